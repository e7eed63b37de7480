"""Candidates by rank and by weight: whatever the order of a row, and to the bit."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from fastgpt_c.engine.sampler import Sampler


def spread(n_vocab: int) -> np.ndarray:
    """Logits [n_vocab] with a spread of 2 nats."""
    return np.random.default_rng(0).normal(0.0, 2.0, n_vocab).astype(np.float32)


def uniforms(seed: int, n: int) -> list[float]:
    """The n first numbers in [0, 1) of PCG32, stream 54."""
    increment, outputs = 54 << 1 | 1, []
    state = (increment + seed) * 6364136223846793005 + increment & 2**64 - 1
    for _ in range(2 * n):
        word, turn = ((state >> 18 ^ state) >> 27) & 2**32 - 1, state >> 59
        outputs.append((word >> turn | word << (-turn & 31)) & 2**32 - 1)
        state = state * 6364136223846793005 + increment & 2**64 - 1
    return [((high >> 5) * 2**26 + (low >> 6)) / 2**53 for high, low in zip(outputs[::2], outputs[1::2], strict=True)]


ROWS = {
    "random": spread(5000),
    "rising": np.linspace(-9, 9, 5000, dtype=np.float32),
    "falling": np.linspace(9, -9, 5000, dtype=np.float32),
    "equal": np.zeros(5000, np.float32),
    "many equals": spread(5000).round(),
    "one far above": np.append(spread(4999), np.float32(60)),
    "few": spread(30),
}


@pytest.mark.parametrize("logits", ROWS.values(), ids=ROWS.keys())
@pytest.mark.parametrize("top_p", [0.3, 0.95, 0.99999])
def test_draws_go_down_the_ranks(logits: np.ndarray, top_p: float) -> None:
    """A draw is the candidate at which the weights, summed by falling logit and rising token, exceed the uniform
    number's share of what top_p keeps: as many as weigh that much but for four units of F32."""
    order = np.lexsort((np.arange(len(logits)), -logits))
    weights = np.exp(logits[order].astype(np.float64) - logits.max().astype(np.float64))
    wanted = (np.float64(np.float32(top_p)) - 4 * np.float64(np.finfo(np.float32).eps)) * weights.sum()
    sums = weights.cumsum()[: 1 + np.searchsorted(weights.cumsum(), wanted)]
    sampler = Sampler(len(logits), temperature=1, top_p=top_p, seed=7)
    expected = [int(order[np.searchsorted(sums, u * sums[-1], side="right")]) for u in uniforms(7, 40)]
    assert [sampler.sample(logits) for _ in expected] == expected


@pytest.mark.parametrize(
    ("params", "digest"),
    [
        ({}, "86ec61150ff5383c"),
        ({"top_p": 0.95, "temperature": 0.8}, "3ce582dc39caa79c"),
        ({"typical_p": 0.9, "min_p": 0.001}, "eb52319cf0f7a5a2"),
    ],
    ids=repr,
)
def test_bits_of_probabilities(params: dict[str, Any], digest: str) -> None:
    """The same on every machine, and in every version: logits that are exact in F32, and what was once made of them."""
    logits = (np.arange(5000, dtype=np.int64) * 40503 % 65536 / 4096).astype(np.float32)
    sampler = Sampler(5000, **{"temperature": 1, "top_p": 1} | params)
    assert hashlib.sha256(sampler.probabilities(logits).tobytes()).hexdigest()[:16] == digest
