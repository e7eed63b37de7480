"""Models that the tests share.  Everything is made once a run, in pytest's temporary folder."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import pytest
from browser import chromium
from scripted import ALPHABET, write_random_model, write_scripted_model

import fastgpt_c
from fastgpt_c.convert import convert
from fastgpt_c.native.dtypes import quantize_rows, row_bytes

CHECKPOINTS = sorted(config.parent for config in (Path(__file__).parent / "vectors").glob("*/config.json"))


class Tiny(NamedTuple):
    """A model made by tools/make_vectors.py, what transformers says about it, and its GGUF file."""

    model: fastgpt_c.Model
    golden: dict[str, Any]
    path: Path


def write_random_gguf(
    path: Path, *, n_layer: int, n_head: int, n_embd: int, n_ctx: int, n_vocab: int, seed: int = 0, type: str = "f32"
) -> Path:
    """A model with random weights and no tokenizer, of a size that nobody would want to commit; type is that of its
    matrices."""
    rng, n_ff = np.random.default_rng(seed), 4 * n_embd
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(n_layer)
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(n_embd)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("none")

    def add(name: str, *shape: int, mean: float = 0.0) -> None:
        std = 0.3 if len(shape) == 1 else 1.5 / shape[1] ** 0.5
        numbers = (mean + std * rng.standard_normal(shape, np.float32)).astype(np.float32)
        if len(shape) == 1 or type == "f32":
            writer.add_tensor(name, numbers)
            return
        raw = random_q6_k(rng, numbers) if type == "q6_k" else quantize_rows(numbers, type)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType[type.upper()])

    def add_layer(name: str, n_out: int, n_in: int) -> None:
        add(f"{name}.weight", n_out, n_in)
        add(f"{name}.bias", n_out)

    def add_norm(name: str) -> None:
        add(f"{name}.weight", n_embd, mean=1.0)
        add(f"{name}.bias", n_embd)

    add("token_embd.weight", n_vocab, n_embd)
    add("position_embd.weight", n_ctx, n_embd)
    for layer in range(n_layer):
        add_norm(f"blk.{layer}.attn_norm")
        add_layer(f"blk.{layer}.attn_qkv", 3 * n_embd, n_embd)
        add_layer(f"blk.{layer}.attn_output", n_embd, n_embd)
        add_norm(f"blk.{layer}.ffn_norm")
        add_layer(f"blk.{layer}.ffn_up", n_ff, n_embd)
        add_layer(f"blk.{layer}.ffn_down", n_embd, n_ff)
    add_norm("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_q6_k(rng: np.random.Generator, numbers: np.ndarray) -> np.ndarray:
    """Rows of random blocks whose numbers are about as large as these."""
    blocks = rng.integers(0, 256, (numbers.size // 256, row_bytes("q6_k", 256)), np.uint8)
    blocks[:, -2:] = np.full(len(blocks), numbers.std() / 1500, np.float16).view(np.uint8).reshape(-1, 2)
    return blocks.reshape(len(numbers), -1)


@pytest.fixture(scope="session", params=CHECKPOINTS, ids=lambda folder: folder.name)
def checkpoint(request: pytest.FixtureRequest) -> Path:
    """Each checkpoint of tests/vectors in turn: a folder as transformers saves it, and golden.npz."""
    return Path(request.param)


@pytest.fixture(scope="session")
def tiny(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """Each of these checkpoints, converted to F32 and loaded."""
    path = tmp_path_factory.mktemp("tiny") / f"{checkpoint.name}.gguf"
    convert(checkpoint, path)
    with np.load(checkpoint / "golden.npz") as golden, fastgpt_c.load(path) as model:
        yield Tiny(model, dict(golden), path)


@pytest.fixture(scope="session")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """Two and a bit times as many positions as a context computes together (n_batch 512)."""
    path = tmp_path_factory.mktemp("long") / "long.gguf"
    with fastgpt_c.load(write_random_gguf(path, n_layer=2, n_head=2, n_embd=18, n_ctx=1100, n_vocab=97)) as model:
        yield model


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """A full context takes this one tenths of a second, so that something can happen meanwhile."""
    path = tmp_path_factory.mktemp("slow") / "slow.gguf"
    with fastgpt_c.load(write_random_gguf(path, n_layer=6, n_head=4, n_embd=256, n_ctx=1400, n_vocab=64)) as model:
        yield model


@pytest.fixture(scope="session")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that recites the alphabet, again and again; n_ctx 64."""
    return write_scripted_model(tmp_path_factory.mktemp("scripted") / "alphabet.gguf", ALPHABET)


@pytest.fixture(scope="session")
def alphabet_model(alphabet: Path) -> Iterator[fastgpt_c.Model]:
    with fastgpt_c.load(alphabet) as model:
        yield model


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """Nonsense of an odd n_ctx that depends on every token before."""
    with fastgpt_c.load(write_random_model(tmp_path_factory.mktemp("random") / "nonsense.gguf", n_ctx=23)) as model:
        yield model


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, where there is one."""
    with chromium() as running:
        yield running


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[fastgpt_c.Session]]:
    """Every session that models make from now on."""
    made: list[weakref.ref[fastgpt_c.Session]] = []
    make = fastgpt_c.Model.session

    def session(self: fastgpt_c.Model, *args: Any, **kwargs: Any) -> fastgpt_c.Session:
        new = make(self, *args, **kwargs)
        made.append(weakref.ref(new))
        return new

    monkeypatch.setattr(fastgpt_c.Model, "session", session)
    return made
