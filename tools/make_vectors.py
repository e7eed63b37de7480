"""Makes the golden files of tests/vectors: what Hugging Face transformers computes, for our tests to compare with.

    python tools/make_vectors.py

For each of CHECKPOINTS a tiny GPT-2 with seeded random weights, as transformers saves it (config.json,
model.safetensors), and golden.npz:

    tokens  [n_ctx]            a random text that fills the context
    logits  [n_ctx][n_vocab]   after each of them
    n_prompt, greedy [n_new]   the likeliest continuation of tokens[:n_prompt]

and sampler.npz with cases of logits, history and sampling parameters, and the probabilities that the logits
processors of transformers' generate make of them, in generate's own order.

and beams.json with the beams of generate(num_beams=...) on these checkpoints, alone and with penalties, bans and bias.

Running it again gives the same bytes.  Needs torch, transformers and numpy.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors"

CHECKPOINTS: dict[str, dict[str, Any]] = {
    "three_heads": {"n_layer": 2, "n_head": 3, "n_embd": 36, "n_ctx": 7, "vocab_size": 311},
    "one_head": {"n_layer": 1, "n_head": 1, "n_embd": 5, "n_ctx": 19, "vocab_size": 53},
    "three_layers": {"n_layer": 3, "n_head": 5, "n_embd": 40, "n_ctx": 33, "vocab_size": 1000},
    "n_inner": {"n_layer": 2, "n_head": 2, "n_embd": 22, "n_inner": 50, "n_ctx": 64, "vocab_size": 257},
    "untied": {"n_layer": 2, "n_head": 4, "n_embd": 28, "n_ctx": 20, "vocab_size": 400,
               "tie_word_embeddings": False, "layer_norm_epsilon": 1e-2},
    "by_layer": {"n_layer": 3, "n_head": 4, "n_embd": 44, "n_ctx": 12, "vocab_size": 200,
                 "activation_function": "gelu", "scale_attn_by_inverse_layer_idx": True},
    "unscaled": {"n_layer": 2, "n_head": 3, "n_embd": 24, "n_ctx": 16, "vocab_size": 90,
                 "activation_function": "relu", "scale_attn_weights": False},
    "silu": {"n_layer": 2, "n_head": 2, "n_embd": 12, "n_ctx": 12, "vocab_size": 70, "activation_function": "silu"},
}  # fmt: skip

N_GREEDY = 50
# A continuation is a fair test where rounding cannot change the winner, and a strong one when it keeps moving.
GREEDY_MARGIN = 1e-3
MIN_DIFFERENT = 0.3

N_VOCABS = (200, 1000)
TEMPERATURES = (1.0, 0.3, 1.7)
TOP_KS = (0, 1, 40, 5000)
TOP_PS = (1.0, 0.9, 0.2)
MIN_PS = (0.0, 0.05, 1.0)
TYPICAL_PS = (1.0, 0.9, 0.2)
PENALTIES = (1.0, 1.3, 0.7)
NO_REPEAT_NGRAM_SIZES = (0, 1, 2, 3)
MIN_NEW_TOKENS = (0, 3, 4)
N_TAKEN = 3  # so many tokens of a history are new ones, the others a prompt's
# Filters compare sums of float32 probabilities with a threshold; nearer than this, rounding would decide.
FILTER_MARGIN = 1e-5


def random_model(seed: int, **config: Any) -> GPT2LMHeadModel:
    """A GPT-2 in evaluation mode whose weights, biases and norms are all far from their usual start values."""
    torch.manual_seed(seed)
    config["n_positions"] = config.pop("n_ctx")
    model = GPT2LMHeadModel(GPT2Config(**config, bos_token_id=0, eos_token_id=0)).eval()
    for name, p in model.named_parameters():
        # What the blocks add outweighs the embeddings: else the likeliest token is always the one just read.
        std = 0.3 if p.ndim == 1 or "wte" in name or "wpe" in name else 2.0 / p.shape[0] ** 0.5
        p.normal_(mean=1.0 if p.ndim == 1 and "ln_" in name and "weight" in name else 0.0, std=std)
        if "c_attn" in name and not model.config.scale_attn_weights:  # training would make queries as much smaller
            p[..., : model.config.n_embd] /= (model.config.n_embd // model.config.n_head) ** 0.5
    return model


def golden(model: GPT2LMHeadModel, seed: int) -> dict[str, Any] | None:
    """The arrays of golden.npz, see the top of this file; None when the continuation is no good test."""
    n_ctx, n_vocab = model.config.n_positions, model.config.vocab_size
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(0, n_vocab, n_ctx))
    n_prompt = min(5, n_ctx // 2)
    n_new = min(N_GREEDY, n_ctx - n_prompt)
    prompt = tokens[None, :n_prompt]
    text = model.generate(prompt, max_new_tokens=n_new, do_sample=False, eos_token_id=None, pad_token_id=0)
    best, second = model(text[:, :-1]).logits[0, n_prompt - 1 :].topk(2).values.T
    greedy = text[0, n_prompt:]
    if (best - second).min() < GREEDY_MARGIN or len(greedy.unique()) < MIN_DIFFERENT * n_new:
        return None
    return {
        "tokens": tokens.numpy().astype(np.int32),
        "logits": model(tokens[None]).logits[0].numpy(),
        "n_prompt": np.int32(n_prompt),
        "greedy": greedy.numpy().astype(np.int32),
    }


def make_checkpoint(name: str) -> None:
    """Writes tests/vectors/NAME with the first seed that gives a good test."""
    folder = VECTORS / name
    shutil.rmtree(folder, ignore_errors=True)
    seed = 0
    while (arrays := golden(model := random_model(seed, **CHECKPOINTS[name]), seed)) is None:
        seed += 1
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    np.savez_compressed(folder / "golden.npz", **arrays)
    print(f"{name}: seed {seed}, logits spread {arrays['logits'].std(axis=-1).mean():.2f}, "
          f"{len(set(arrays['greedy'].tolist()))} different of {len(arrays['greedy'])} greedy tokens")  # fmt: skip


def sampler_logits(rng: np.random.Generator, n_vocab: int) -> NDArray[np.float32]:
    """Rows of logits [n_rows][n_vocab]: plain, full of ties (also at the top), and a third of them -infinity."""
    plain = rng.normal(0.0, 3.0, n_vocab)
    ties = np.round(rng.normal(0.0, 3.0, n_vocab))
    ties[rng.choice(n_vocab, 2, replace=False)] = ties.max()
    banned = np.where(rng.random(n_vocab) < 1 / 3, -np.inf, rng.normal(0.0, 1.0, n_vocab))
    return np.stack([plain, ties, banned]).astype(np.float32)


def sampler_history(rng: np.random.Generator, n_vocab: int) -> NDArray[np.int32]:
    """A history that ends with two tokens of its middle, so that there are n-grams to ban."""
    history = rng.integers(0, n_vocab, n_vocab // 4).astype(np.int32)
    history[-2:] = history[10:12]
    return history


FIELDS: dict[str, tuple[Any, ...]] = {
    "top_k": TOP_KS, "top_p": TOP_PS, "min_p": MIN_PS, "typical_p": TYPICAL_PS, "repetition_penalty": PENALTIES,
    "no_repeat_ngram_size": NO_REPEAT_NGRAM_SIZES, "min_new_tokens": MIN_NEW_TOKENS,
    "bias": (False, True), "allowed": (False, True),
}  # fmt: skip
FILTERS = ("top_k", "top_p", "min_p", "typical_p")


def sampler_cases() -> list[dict[str, Any]]:
    """Each field alone with each of its values, greedy (temperature 0) and sampled, and 90 mixtures of all."""
    neutral = {"temperature": 1.0} | {name: values[0] for name, values in FIELDS.items()}
    one_field = [neutral | {name: value} for name, values in FIELDS.items() for value in values[1:]]
    temperatures = [neutral | {"temperature": t} for t in TEMPERATURES]
    greedy = [c | {"temperature": 0.0} for c in [neutral, *one_field] if all(c[f] == neutral[f] for f in FILTERS)]
    rng = np.random.default_rng(0)
    mixed = [
        {"temperature": float(rng.choice(TEMPERATURES))}
        | {name: values[int(rng.integers(len(values)))] for name, values in FIELDS.items()}
        for _ in range(90)
    ]
    return [*greedy, *temperatures, *one_field, *mixed]


class Processors:
    """The logits processors that generate would use for a case, and what they make of logits."""

    def __init__(
        self,
        model: GPT2LMHeadModel,
        case: dict[str, Any],
        bias: dict[int, float],
        allowed: list[int],
        eos_token: int,
        n_prompt: int,
    ) -> None:
        config = GenerationConfig(
            do_sample=case["temperature"] > 0,
            temperature=case["temperature"] or None,
            top_k=case["top_k"] if case["temperature"] else None,
            top_p=case["top_p"] if case["temperature"] else None,
            min_p=case["min_p"] or None,
            typical_p=case["typical_p"],
            repetition_penalty=case["repetition_penalty"],
            no_repeat_ngram_size=case["no_repeat_ngram_size"],
            min_new_tokens=case["min_new_tokens"],
            num_beams=1,
            num_return_sequences=1,
            sequence_bias={(token,): value for token, value in bias.items()} if case["bias"] else None,
        )
        config._eos_token_tensor = torch.tensor([eos_token])
        self.list = model._get_logits_processor(
            config,
            input_ids_seq_length=n_prompt,
            prefix_allowed_tokens_fn=(lambda *_: allowed) if case["allowed"] else None,
        )
        self.greedy = not config.do_sample

    def probabilities(self, history: NDArray[np.int32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n_vocab]: softmax of the processed logits; all on the first largest one when greedy."""
        scores = self.list(torch.from_numpy(history)[None].long(), torch.from_numpy(logits)[None].clone())[0]
        if self.greedy:
            scores = torch.where(torch.arange(len(scores)) == scores.argmax(), 0.0, -torch.inf)
        p: NDArray[np.float32] = scores.softmax(dim=-1).numpy()
        return p

    def is_fair(self, history: NDArray[np.int32], logits: NDArray[np.float32]) -> bool:
        """False where rounding or the order of equal logits, which transformers leaves open, would decide a filter."""
        scores = torch.from_numpy(logits)[None].clone()
        for processor in self.list:
            before, p = scores, scores.softmax(dim=-1)[0].double()
            scores = processor(torch.from_numpy(history)[None].long(), scores)
            kind = type(processor).__name__
            if kind == "TopPLogitsWarper":
                tail = p.sort().values.cumsum(0)
                cut = before[0][(scores[0] == -torch.inf) & (before[0] > -torch.inf)]
                split = len(cut) > 0 and bool(torch.isin(cut, scores[0]).any())
                if split or bool(((tail - (1 - processor.top_p)).abs() < FILTER_MARGIN).any()):
                    return False
            if kind == "TypicalLogitsWarper" and not is_fair_typical(before[0], p, processor.mass):
                return False
            if kind == "MinPLogitsWarper":
                excess = p / p.max() - processor.min_p
                if bool(((excess.abs() < FILTER_MARGIN) & (excess != 0)).any()):
                    return False
        return True


def is_fair_typical(scores: torch.Tensor, p: torch.Tensor, mass: float) -> bool:
    """Whether neither the sum that reaches the mass, nor the distance from the entropy that is the last, is close."""
    surprise = -p.clamp_min(1e-300).log()
    distance, order = (surprise - (p * surprise).sum()).abs().sort()
    sums = p[order].cumsum(0)
    last = min(int((sums < mass).sum()), len(p) - 1)
    close = ((distance - distance[last]).abs() < FILTER_MARGIN) & (scores[order] != scores[order[last]])
    return bool(((sums - mass).abs() > FILTER_MARGIN).all() and not (close & (p[order] > 0)).any())


def make_sampler_vectors() -> None:
    """Writes tests/vectors/sampler.npz: cases as JSON, and for each n_vocab the inputs and the probabilities."""
    model = random_model(0, n_layer=1, n_head=1, n_embd=4, n_ctx=4, vocab_size=8)
    arrays: dict[str, Any] = {}
    cases = []
    for n_vocab in N_VOCABS:
        rng = np.random.default_rng(n_vocab)
        logits, history = sampler_logits(rng, n_vocab), sampler_history(rng, n_vocab)
        bias = {int(t): float(v) for t, v in zip(rng.integers(0, n_vocab, 9), rng.normal(0, 4, 9), strict=True)}
        bias[int(logits[0].argmax())] = -np.inf
        eos_token = int(logits[1].argmax())
        allowed = rng.choice(n_vocab, n_vocab // 2, replace=False).tolist()
        rows = []
        for case, row in itertools.product(sampler_cases(), range(len(logits))):
            processors = Processors(model, case, bias, allowed, eos_token, len(history) - N_TAKEN)
            if processors.is_fair(history, logits[row]):
                cases.append({**case, "bias": bias if case["bias"] else {}, "n_vocab": n_vocab, "row": row})
                rows.append(processors.probabilities(history, logits[row]))
        arrays |= {f"logits{n_vocab}": logits, f"history{n_vocab}": history, f"probabilities{n_vocab}": np.stack(rows)}
        arrays |= {f"eos_token{n_vocab}": np.int32(eos_token), f"allowed{n_vocab}": np.array(allowed, np.int32)}
    arrays["n_taken"] = np.int32(N_TAKEN)
    np.savez_compressed(VECTORS / "sampler.npz", cases=json.dumps(cases), **arrays)
    print(f"sampler: {len(cases)} cases")


def beams_of(model: GPT2LMHeadModel, prompt: list[int], case: dict[str, Any]) -> list[dict[str, Any]]:
    """The beams that have ended, best first: their new tokens and scores."""
    options = case | case["adjustments"]
    bias = options.pop("logit_bias", None)
    del options["adjustments"]
    found = model.generate(
        torch.tensor([prompt]), do_sample=False, num_return_sequences=case["num_beams"], pad_token_id=0,
        return_dict_in_generate=True, output_scores=True,
        sequence_bias=bias and {(int(token),): value for token, value in bias.items()}, **options,
    )  # fmt: skip
    beams = []
    for sequence, score in zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True):
        new = sequence[len(prompt) :][: case["max_new_tokens"]]
        end = new.index(case["eos_token_id"]) + 1 if case["eos_token_id"] in new else len(new)
        beams.append({"tokens": new[:end], "score": score})
    return [beam for beam in beams if beam["score"] > -1e8]  # the others had not ended


BEAM_ADJUSTMENTS: tuple[dict[str, Any], ...] = (
    {"repetition_penalty": 1.5},
    {"repetition_penalty": 0.6},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2, "repetition_penalty": 0.4},
    {"min_new_tokens": 6},
    {"min_new_tokens": 4, "no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
)


def beam_cases(model: GPT2LMHeadModel, prompt: list[int]) -> list[dict[str, Any]]:
    """Numbers of beams, penalties and ways to stop, with an end-of-text token that comes soon, late or never: 30 of
    them as they are; and two with each of BEAM_ADJUSTMENTS, and as many with a bias against a likely token besides."""
    n_new = min(12, model.config.n_positions - len(prompt))
    free = {
        "num_beams": 4,
        "length_penalty": 1.0,
        "early_stopping": False,
        "eos_token_id": None,
        "max_new_tokens": n_new,
        "adjustments": {},
    }
    third = beams_of(model, prompt, free)[2]["tokens"]
    grid = list(itertools.product(
        (2, 3, 5), (-1.0, 0.0, 1.0, 2.5), (False, True, "never"), (None, third[min(1, n_new - 1)], third[n_new // 2])
    ))  # fmt: skip
    rng, bias = np.random.default_rng(0), {str(third[0]): -2.5, str(third[-1]): 1.5}
    plain: list[tuple[Any, dict[str, Any]]] = [(grid[i], {}) for i in rng.choice(len(grid), 30, replace=False)]
    adjusted = [
        (grid[rng.integers(len(grid))], adjustments | ({"logit_bias": bias} if biased else {}))
        for adjustments, biased, _ in itertools.product(BEAM_ADJUSTMENTS, (False, True), range(2))
    ]
    return [dict(zip(free, (*values, n_new, changes), strict=True)) for values, changes in plain + adjusted]


def make_beam_vectors() -> None:
    """Writes tests/vectors/beams.json; a case stays where float64 and float32 find the same beams."""
    kept = []
    for name in CHECKPOINTS:
        model = GPT2LMHeadModel.from_pretrained(VECTORS / name).eval()
        exact = GPT2LMHeadModel.from_pretrained(VECTORS / name).eval().double()
        prompt = np.load(VECTORS / name / "golden.npz")["tokens"][:3].tolist()
        for case in beam_cases(model, prompt):
            beams, others = beams_of(model, prompt, case), beams_of(exact, prompt, case)
            if [beam["tokens"] for beam in beams] == [beam["tokens"] for beam in others]:
                kept.append({"checkpoint": name, "prompt": prompt, **case, "beams": beams})
    (VECTORS / "beams.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"beams: {len(kept)} cases")


def main() -> None:
    """Writes everything, and says how large it is."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for name in CHECKPOINTS:
        make_checkpoint(name)
    make_sampler_vectors()
    make_beam_vectors()
    print(f"{sum(f.stat().st_size for f in VECTORS.rglob('*') if f.is_file())} bytes in {VECTORS}")


if __name__ == "__main__":
    main()
