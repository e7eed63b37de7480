"""Types of KV caches: what is rounded and how much, the default, and that caches of 8 bits are like any other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

import fastgpt_c
from fastgpt_c.convert import quantize
from fastgpt_c.errors import UsageError

if TYPE_CHECKING:
    from models import Tiny

TEXT = "Once upon a time there was a little girl who lived at the edge of a dark wood, and everybody who knew her"
TYPES = ["f32", "f16", "bf16", "q8_0"]


@pytest.fixture(scope="module")
def demo() -> fastgpt_c.Model:
    return fastgpt_c.load()


@pytest.fixture(scope="module")
def tokens(demo: fastgpt_c.Model) -> list[int]:
    return demo.encode(TEXT * 6)


def decoded(session: fastgpt_c.Session, tokens: list[int]) -> npt.NDArray[Any]:
    return np.stack([session.decode(token) for token in tokens])


def test_q8_0_rounds_and_no_more(demo: fastgpt_c.Model, tokens: list[int]) -> None:
    """Keys and values are within half a step of F32's, and logits near, however tokens are fed."""
    with demo.session(kv_type="q8_0") as session, demo.session(kv_type="f32") as exact:
        logits, expected = session.prefill(tokens), exact.prefill(tokens)
        for layer in range(demo.n_layer):
            for rounded, true in ((session.keys, exact.keys), (session.values, exact.values)):
                blocks = true(layer).reshape(len(tokens), -1, 32)
                if layer == 0:  # later layers read what was rounded before
                    step = np.abs(blocks).max(axis=2, keepdims=True) / 127
                    error = np.abs(rounded(layer).reshape(blocks.shape) - blocks)
                    assert (error <= 0.5 * step + 0.07 * step + 1e-6).all()
        tolerance = 0.02 * np.abs(expected).max()
        np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)
        session.truncate(len(tokens) - 20)
        exact.truncate(len(tokens) - 20)
        np.testing.assert_allclose(decoded(session, tokens[-20:]), decoded(exact, tokens[-20:]), rtol=0, atol=tolerance)


@pytest.mark.parametrize("kv_type", TYPES)
def test_deterministic_steps(demo: fastgpt_c.Model, tokens: list[int], kv_type: str) -> None:
    """The same bits by any number of threads, in one step or token by token, alone, in a batch, or behind a fork."""
    tokens = tokens[:140]
    with demo.session(kv_type=kv_type, deterministic=True, n_threads=1) as session:
        expected = session.prefill(tokens, all_logits=True)
    with demo.session(kv_type=kv_type, deterministic=True, n_threads=3) as session:
        first = session.prefill(tokens[:100], all_logits=True)
        np.testing.assert_array_equal(first, expected[:100])
        forks = [session.fork() for _ in range(9)]
        for position in range(100, 135):
            rows = fastgpt_c.step([(fork, [tokens[position]]) for fork in forks])
            for row in rows:
                np.testing.assert_array_equal(row, expected[position])
        np.testing.assert_array_equal(decoded(session, tokens[100:]), expected[100:])
        for fork in forks:
            fork.close()


@pytest.mark.parametrize("kv_type", TYPES)
def test_threads_and_files(demo: fastgpt_c.Model, tokens: list[int], kv_type: str, tmp_path: Path) -> None:
    """Threads change no bit, and a saved cache goes on as if it had not been saved."""
    with demo.session(kv_type=kv_type, n_threads=1) as session:
        session.prefill(tokens[:-9])
        session.save(tmp_path / "cache")
        largest = session.keys(0).nbytes
        expected = decoded(session, tokens[-9:])
    with demo.load_session(tmp_path / "cache", n_threads=3) as session:
        assert session.kv_type == kv_type
        np.testing.assert_array_equal(decoded(session, tokens[-9:]), expected)
    if kv_type == "q8_0":
        share = (tmp_path / "cache").stat().st_size / (2 * demo.n_layer * largest)
        assert 0.26 < share < 0.275


def test_attention_of_q8_0_sums_to_one(demo: fastgpt_c.Model, tokens: list[int]) -> None:
    """Looking inside shows what attention used: the queries are rounded there, too."""
    with demo.session(kv_type="q8_0") as session, demo.session(kv_type="f32") as exact:
        seen = [s.inspect(tokens[:40], heads=[(0, 0), (3, 5)])["attention"] for s in (session, exact)]
    np.testing.assert_allclose(seen[0].sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(seen[0], seen[1], atol=0.05)


def test_default_types(demo: fastgpt_c.Model, tiny: Tiny, tmp_path: Path) -> None:
    """F32 for weights of F32, F16 for any other; what is asked for goes first."""
    quantize(demo.path, tmp_path / "q8_0.gguf", type="q8_0")
    quantize(demo.path, tmp_path / "f32.gguf", type="f32")
    for file, expected in (("q8_0", "f16"), ("f32", "f32")):
        with fastgpt_c.load(tmp_path / f"{file}.gguf") as model, model.session() as session:
            assert session.kv_type == expected
            assert model.session(kv_type="bf16").kv_type == "bf16"
    with demo.session() as session:
        assert session.kv_type == "f16"
    assert tiny.model.session().kv_type == "f32"


def test_heads_that_no_blocks_fit(tiny: Tiny) -> None:
    """An error that says why, and what to choose."""
    assert tiny.model.n_embd // tiny.model.n_head % 32
    with pytest.raises(UsageError, match=r"cannot be cached as Q8_0, whose blocks have 32.*choose F16"):
        tiny.model.session(kv_type="q8_0")
