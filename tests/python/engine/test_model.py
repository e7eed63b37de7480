"""A model loaded from a file computes what transformers computes, and a bad file is refused by name."""

from __future__ import annotations

import gc
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
import reference

import fastgpt_c
from fastgpt_c.convert import convert
from fastgpt_c.errors import ModelFileError, UsageError

if TYPE_CHECKING:
    from models import Tiny

DEMO = resources.files("fastgpt_c") / "models" / "demo.gguf"


def all_logits(model: fastgpt_c.Model, tokens: np.ndarray) -> np.ndarray:
    """tokens [n_tokens] in a fresh session -> logits [n_tokens][n_vocab]."""
    with model.session() as session:
        return session.prefill(tokens, all_logits=True)


def test_logits_equal_transformers(tiny: Tiny) -> None:
    """Within 1e-4 at every position of a full context."""
    logits = all_logits(tiny.model, tiny.golden["tokens"])
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, tiny.golden["logits"], rtol=0, atol=1e-4)


def test_greedy_tokens_equal_transformers(tiny: Tiny) -> None:
    """The likeliest token, fed back, up to 50 times: the same continuation."""
    prompt, expected = tiny.golden["tokens"][: tiny.golden["n_prompt"]], tiny.golden["greedy"].tolist()
    with tiny.model.session() as session:
        tokens = [int(session.prefill(prompt).argmax())]
        while len(tokens) < len(expected):
            tokens.append(int(session.decode(tokens[-1]).argmax()))
    assert tokens == expected


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_half_types(tiny: Tiny, checkpoint: Path, tmp_path: Path, kind: str) -> None:
    """With an F32 cache, a half file gives what float64 gives for its rounded weights: within 1e-4 token by token.  A
    prefill may multiply BF16 weights with activations in BF16, whose last bit is 2^-8, and in attention queries with
    keys and weights with values: within 5% of the largest logit."""
    path, tokens = tmp_path / f"{kind}.gguf", tiny.golden["tokens"]
    convert(checkpoint, path, type=kind)
    expected = reference.load_gguf(path).logits(tokens)
    with fastgpt_c.load(path) as model, model.session(kv_type="f32") as session:
        assert model.type == kind.upper()
        decoded = np.stack([session.decode(int(token)) for token in tokens])
        session.truncate(0)
        prefilled = session.prefill(tokens, all_logits=True)
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        prefilled, expected, rtol=0, atol=1e-4 if kind == "f16" else 0.05 * np.abs(expected).max()
    )
    assert np.abs(decoded - tiny.golden["logits"]).max() > 1e-4, "nothing was rounded"


@pytest.mark.parametrize("use_mmap", [True, False])
def test_reload_gives_the_same_bits(tiny: Tiny, use_mmap: bool) -> None:
    """Another copy of the same file, mapped or read into memory."""
    tokens = tiny.golden["tokens"]
    with fastgpt_c.load(tiny.path, use_mmap=use_mmap) as again:
        np.testing.assert_array_equal(all_logits(again, tokens), all_logits(tiny.model, tokens))


def test_without_mmap_the_file_may_go_away(tiny: Tiny, tmp_path: Path) -> None:
    """use_mmap=False copies: overwriting and deleting the file changes nothing."""
    path, tokens = tmp_path / "model.gguf", tiny.golden["tokens"]
    path.write_bytes(tiny.path.read_bytes())
    with fastgpt_c.load(path, use_mmap=False) as model:
        path.write_bytes(b"")
        path.unlink()
        np.testing.assert_array_equal(all_logits(model, tokens), all_logits(tiny.model, tokens))


def test_properties(tiny: Tiny, checkpoint: Path) -> None:
    """Sizes are those of config.json; n_params counts every stored number."""
    config, model = json.loads((checkpoint / "config.json").read_text()), tiny.model
    assert (model.n_layer, model.n_head, model.n_embd) == (config["n_layer"], config["n_head"], config["n_embd"])
    assert (model.n_ctx, model.n_vocab) == (config["n_positions"], config["vocab_size"])
    assert model.n_ff == (config["n_inner"] or 4 * config["n_embd"])
    assert model.n_params == sum(w.size for w in reference.load_checkpoint(checkpoint).weights.values())
    assert (model.type, model.path) == ("F32", tiny.path)


@pytest.mark.skipif(not DEMO.is_file(), reason="this build has no demo model inside")
def test_demo_model() -> None:
    """Without a name, load gives the demo model, and it computes what its file says."""
    tokens = list(range(100, 160))
    with fastgpt_c.load() as model, resources.as_file(DEMO) as path:
        np.testing.assert_allclose(
            all_logits(model, np.array(tokens)), reference.load_gguf(path).logits(tokens), rtol=0, atol=1e-3
        )
        assert model.decode(model.encode("Once upon a time")) == "Once upon a time"


def bad_files(good: bytes) -> dict[str, bytes]:
    """Contents that are not models, by what is wrong with them."""
    return {
        "empty": b"",
        "text": b"Once upon a time there was no model here. " * 100,
        "json": b'{"architectures": ["GPT2LMHeadModel"]}',
        "zeros": bytes(len(good)),
        "version": good[:4] + b"\x63" + good[5:],
        "big_endian": good[:4] + good[7:3:-1] + good[8:],
        "architecture": good.replace(b"gpt2", b"gpt7", 1),
    }


@pytest.mark.parametrize("wrong", sorted(bad_files(bytes(8))))
def test_bad_file_is_refused_by_name(tiny: Tiny, tmp_path: Path, wrong: str) -> None:
    """A ModelFileError whose text names the file."""
    path = tmp_path / "bad-model.gguf"
    path.write_bytes(bad_files(tiny.path.read_bytes())[wrong])
    with pytest.raises(ModelFileError, match=r"bad-model\.gguf"):
        fastgpt_c.load(path)


@pytest.mark.parametrize("use_mmap", [True, False])
def test_truncated_file_is_refused_by_name(tiny: Tiny, tmp_path: Path, use_mmap: bool) -> None:
    """Any file that ends before its last weight does, cut in its header or in its tensors."""
    whole, path = tiny.path.read_bytes(), tmp_path / "cut-model.gguf"
    tensors = gguf.GGUFReader(tiny.path).tensors
    end_of_weights = max(int(t.data_offset + t.n_bytes) for t in tensors)
    header_cuts = range(0, int(tensors[0].data_offset), 37)
    for n_bytes in [*header_cuts, *np.linspace(int(tensors[0].data_offset), end_of_weights - 1, 40, dtype=int)]:
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(ModelFileError, match=r"cut-model\.gguf"):
            fastgpt_c.load(path, use_mmap=use_mmap)


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    """What is not there is named, whether a file or what a checkpoint's folder should have in it."""
    with pytest.raises(ModelFileError, match=r"not-there\.gguf"):
        fastgpt_c.load(tmp_path / "not-there.gguf")
    (tmp_path / "empty-folder").mkdir()
    with pytest.raises(ModelFileError, match=r"empty-folder"):
        fastgpt_c.load(tmp_path / "empty-folder")


def test_closed_model_refuses_work(tiny: Tiny) -> None:
    """After close nothing starts; closing twice is harmless."""
    model = fastgpt_c.load(tiny.path)
    model.close()
    model.close()
    with pytest.raises(UsageError, match="closed"):
        model.session()


def test_sessions_outlive_a_closed_model(tiny: Tiny) -> None:
    """A session keeps the weights alive: the same bits after close, and after nobody else knows the model."""
    model, tokens = fastgpt_c.load(tiny.path, use_mmap=False), tiny.golden["tokens"]
    with model.session() as session, tiny.model.session() as other:
        model.close()
        del model
        gc.collect()
        np.testing.assert_array_equal(session.prefill(tokens), other.prefill(tokens))


def write_vocabulary(path: Path, names: gguf.GGUFReader) -> Path:
    """The vocabulary of a model file without its weights, as llama.cpp's files of vocabularies are."""
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    for key in ("tokens", "merges", "token_type"):
        writer.add_array(f"tokenizer.ggml.{key}", names.fields[f"tokenizer.ggml.{key}"].contents())
    writer.add_eos_token_id(names.fields["tokenizer.ggml.eos_token_id"].contents())
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return path


def test_vocabulary_file_encodes_and_refuses_the_rest(tmp_path: Path) -> None:
    """A file of a vocabulary alone says so; with vocab_only its tokens are those of the whole file, and no session."""
    path = write_vocabulary(tmp_path / "vocab.gguf", gguf.GGUFReader(DEMO))
    with pytest.raises(ModelFileError, match=r"vocab\.gguf: holds a vocabulary and no weights"):
        fastgpt_c.load(path)
    vocabulary, whole = fastgpt_c.load(path, vocab_only=True), fastgpt_c.load()
    text = "Once upon a time<|endoftext|> né 日本"
    assert vocabulary.encode(text) == whole.encode(text)
    assert vocabulary.decode(whole.encode(text)) == text
    assert (vocabulary.n_vocab, vocabulary.n_layer) == (whole.n_vocab, 0)
    with pytest.raises(UsageError):
        vocabulary.session()
    assert fastgpt_c.load(DEMO, vocab_only=True).encode(text) == whole.encode(text)
