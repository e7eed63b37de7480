"""Random checkpoints of random sizes and variants, saved by transformers, give transformers' logits and tokens.

FASTGPT_TEST_CHECKPOINTS says how many (default 12).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgpt_c
from fastgpt_c.convert import convert

REASON = "torch and transformers are not installed; tests/vectors has their answers for five fixed models"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)
torch.set_num_threads(1)

N_GREEDY = 50
TOLERANCE = 1e-4


def random_checkpoint(seed: int, folder: Path) -> Any:
    """Saves a GPT-2 of random size in the folder, in one of many ways; returns it in F32 and evaluation mode."""
    rng = np.random.default_rng(seed)
    n_head, head_dim = int(rng.integers(1, 6)), int(rng.integers(0, 8)) * 2 + 1
    upcast = bool(rng.random() < 0.3)
    config = transformers.GPT2Config(
        activation_function=str(rng.choice(ACTIVATIONS)),
        scale_attn_weights=bool(rng.random() < 0.7),
        scale_attn_by_inverse_layer_idx=bool(rng.random() < 0.4),
        reorder_and_upcast_attn=upcast,
        attn_implementation="eager" if upcast else "sdpa",
        n_layer=int(rng.integers(1, 5)),
        n_head=n_head,
        n_embd=n_head * head_dim,
        n_inner=int(rng.integers(1, 100)) if rng.random() < 0.3 else None,
        n_positions=int(rng.integers(8, 65)),
        vocab_size=int(rng.integers(300, 5001)),
        tie_word_embeddings=bool(rng.random() < 0.7),
        layer_norm_epsilon=float(10 ** rng.uniform(-6, -2)),
        initializer_range=float(rng.choice([0.02, 0.2])),  # as trained models start, and livelier
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases start at 0 and norms at 1, which would hide mistakes with them
                parameter.add_(torch.randn_like(parameter) * config.initializer_range)
    model = model.to(getattr(torch, rng.choice(["float32", "float16", "bfloat16"])))
    LAYOUTS[rng.integers(len(LAYOUTS))](model, folder)
    age(folder / "config.json", rng)
    return model.float()


def whole(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)


def sharded(model: Any, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="30KB")


def without_prefix(model: Any, folder: Path) -> None:
    """As GPT2Model saves it, which has no head: only where the head is the token embedding."""
    (model.transformer if model.config.tie_word_embeddings else model).save_pretrained(folder)


def pickled(model: Any, folder: Path) -> None:
    """As before safetensors, with the buffers of old versions and the tied head stored once more."""
    model.config.save_pretrained(folder)
    mask = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 4, 4) for i in range(model.config.n_layer)}
    torch.save({**model.state_dict(), **mask, "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)},
               folder / "pytorch_model.bin")  # fmt: skip


def pickled_shards(model: Any, folder: Path) -> None:
    model.config.save_pretrained(folder)
    state = model.state_dict()
    weight_map = {name: f"pytorch_model-{1 + i % 2:05}-of-00002.bin" for i, name in enumerate(state)}
    for file in set(weight_map.values()):
        torch.save({name: state[name] for name in state if weight_map[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


LAYOUTS = (whole, sharded, without_prefix, pickled, pickled_shards)
ACTIVATIONS = ("gelu_new", "gelu", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish")


def age(path: Path, rng: np.random.Generator) -> None:
    """Some configs are older, and say less, or in other words."""
    config = json.loads(path.read_text())
    if rng.random() < 0.3:
        config["torch_dtype"] = config.pop("dtype", "float32")
    if rng.random() < 0.3:
        config["num_attention_heads"] = config.pop("n_head")
        config["hidden_size"] = config.pop("n_embd")
    if rng.random() < 0.3:
        config["n_ctx"] = config["n_positions"]
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("seed", range(int(os.environ.get("FASTGPT_TEST_CHECKPOINTS", "12"))))
def test_random_checkpoint(tmp_path: Path, seed: int) -> None:
    """Logits within 1e-4 at every position, and the same 50 greedy tokens, as far as n_ctx goes.

    The comparison of tokens ends where the two best logits are too close to tell.
    """
    expected_model = random_checkpoint(seed, tmp_path / "checkpoint")
    convert(tmp_path / "checkpoint", tmp_path / "model.gguf")
    with fastgpt_c.load(tmp_path / "model.gguf") as model, model.session() as session, torch.no_grad():
        tokens = np.random.default_rng(seed).integers(0, model.n_vocab, model.n_ctx)
        expected = expected_model(torch.from_numpy(tokens)[None]).logits[0].numpy()
        np.testing.assert_allclose(session.prefill(tokens, all_logits=True), expected, rtol=0, atol=TOLERANCE)

        session.truncate(0)
        text = tokens[:4].tolist()
        logits = session.prefill(text)
        while len(text) < min(model.n_ctx, 4 + N_GREEDY):
            two_best = expected_model(torch.tensor([text])).logits[0, -1].topk(2)
            if two_best.values[0] - two_best.values[1] < TOLERANCE:
                break
            assert logits.argmax() == two_best.indices[0], f"greedy token {len(text) - 4}"
            text.append(int(logits.argmax()))
            logits = session.decode(text[-1])


@pytest.mark.parametrize("seed", range(int(os.environ.get("FASTGPT_TEST_CHECKPOINTS", "3"))))
def test_inside(tmp_path: Path, seed: int) -> None:
    """What transformers gives as output_hidden_states and output_attentions, within 1e-4.

    Its last hidden state is after ln_f.
    """
    expected_model = random_checkpoint(seed, tmp_path / "checkpoint")
    expected_model.set_attn_implementation("eager")  # the others give no probabilities
    convert(tmp_path / "checkpoint", tmp_path / "model.gguf")
    with fastgpt_c.load(tmp_path / "model.gguf") as model, model.session() as session, torch.no_grad():
        tokens = np.random.default_rng(seed).integers(0, model.n_vocab, model.n_ctx)
        expected = expected_model(torch.from_numpy(tokens)[None], output_hidden_states=True, output_attentions=True)
        heads = [(layer, head) for layer in range(model.n_layer) for head in range(model.n_head)]
        given = session.inspect(tokens, "hidden", "ln_f", heads=heads)
        hidden = np.concatenate([given["hidden"][:-1], given["ln_f"][None]])
        np.testing.assert_allclose(hidden, torch.cat(expected.hidden_states), rtol=0, atol=TOLERANCE)
        attention = given["attention"].reshape(model.n_layer, model.n_head, model.n_ctx, model.n_ctx)
        np.testing.assert_allclose(attention, torch.cat(expected.attentions), rtol=0, atol=TOLERANCE)


def transformers_beams(model: Any, prompt: list[int], num_beams: int, **options: Any) -> list[list[int]]:
    """New tokens of each beam, best first."""
    found = model.generate(
        torch.tensor([prompt]), num_beams=num_beams, num_return_sequences=num_beams, do_sample=False,
        eos_token_id=None, pad_token_id=0, **options,
    )  # fmt: skip
    return [sequence[len(prompt) :] for sequence in found.tolist()]


def in_float64(model: Any) -> Any:
    """model itself, all of whose numbers are float64 from now on."""
    for block in model.transformer.h:
        block.attn.reorder_and_upcast_attn = False  # of half precision to float32, and refused here
    return model.double()


def log_probability(model: Any, prompt: list[int], tokens: list[int]) -> float:
    """Of tokens after prompt."""
    with torch.no_grad():
        rows = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return float(rows[torch.arange(len(tokens)), tokens].sum())


@pytest.mark.parametrize("seed", range(int(os.environ.get("FASTGPT_TEST_CHECKPOINTS", "3"))))
def test_beams_of_a_random_checkpoint(tmp_path: Path, seed: int) -> None:
    """The same beams, where transformers finds the same in float32 and in float64; or others as likely to 7 digits."""
    theirs = random_checkpoint(seed, tmp_path / "checkpoint")
    convert(tmp_path / "checkpoint", tmp_path / "model.gguf")
    rng = np.random.default_rng(seed)
    prompt, n_new = rng.integers(1, 300, 4).tolist(), min(20, theirs.config.n_positions - 4)
    options = {"num_beams": int(rng.integers(2, 6)), "max_new_tokens": n_new, "length_penalty": float(rng.normal())}
    expected = transformers_beams(theirs, prompt, **options)
    if expected != transformers_beams(in_float64(theirs), prompt, **options):
        pytest.skip("rounding decides these beams")
    with fastgpt_c.load(tmp_path / "model.gguf") as model:
        model.eos_token = None
        found = [beam.tokens for beam in model.beam_search(prompt, **options)]
    for ours, best in zip(found, expected, strict=True):
        if ours != best:
            likely = log_probability(theirs, prompt, best)  # in float64; F32 has 7 digits
            assert log_probability(theirs, prompt, ours) == pytest.approx(likely, rel=1e-7), (ours, best)
    assert len({tuple(ours) for ours in found}) == len(found)
