"""The sampler: what transformers would draw from, drawn by a generator that everybody can check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgpt_c.errors import UsageError
from fastgpt_c.sampling import Sampler

with np.load(Path(__file__).parent / "vectors" / "sampler.npz") as file:
    VECTORS = dict(file)
CASES: list[dict[str, Any]] = json.loads(str(VECTORS["cases"]))
NEUTRAL: dict[str, Any] = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0,
    "logit_bias": None, "seed": 42,
}  # fmt: skip
INF = float("inf")
NAN = float("nan")


def sampler(n_vocab: int, **params: Any) -> Sampler:
    """A sampler with every filter off but those that are given."""
    return Sampler(n_vocab, **{**NEUTRAL, **params})


def random_logits(n_vocab: int, seed: int = 0) -> np.ndarray:
    """Logits [n_vocab] with a spread of 2 nats."""
    return np.random.default_rng(seed).normal(0.0, 2.0, n_vocab).astype(np.float32)


def draws(sampler: Sampler, logits: np.ndarray, n: int) -> list[int]:
    """n tokens, one after the other, none of them accepted into the history."""
    return [sampler.sample(logits) for _ in range(n)]


def from_case(case: dict[str, Any], **params: Any) -> Sampler:
    """The sampler of a golden case, with its history."""
    filters = {name: case[name] for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")}
    bias = {int(token): value for token, value in case["bias"].items()}
    made = sampler(case["n_vocab"], **filters, logit_bias=bias, **params)
    made.accept(VECTORS[f"history{case['n_vocab']}"])
    return made


@pytest.mark.parametrize("n_vocab", sorted({case["n_vocab"] for case in CASES}))
def test_probabilities_equal_transformers(n_vocab: int) -> None:
    """Every golden case: the same tokens survive, with the same probabilities."""
    cases = [case for case in CASES if case["n_vocab"] == n_vocab]
    expected, logits = VECTORS[f"probabilities{n_vocab}"], VECTORS[f"logits{n_vocab}"]
    assert len(cases) == len(expected) > 100
    for case, row in zip(cases, expected, strict=True):
        actual = from_case(case).probabilities(logits[case["row"]])
        np.testing.assert_array_equal(actual > 0, row > 0, err_msg=str(case))
        np.testing.assert_allclose(actual, row, rtol=1e-4, atol=1e-7, err_msg=str(case))


@pytest.mark.parametrize("case", CASES[::20], ids=str)
def test_draws_come_from_the_probabilities(case: dict[str, Any]) -> None:
    """Filtered tokens are never drawn, and the rest as often as they should be (Pearson's chi-square)."""
    n_draws, logits = 4000, VECTORS[f"logits{case['n_vocab']}"][case["row"]]
    drawn = from_case(case, seed=7)
    p = drawn.probabilities(logits).astype(np.float64)
    counts = np.bincount(draws(drawn, logits, n_draws), minlength=len(p))
    assert not counts[p == 0].any()
    common = p * n_draws >= 5  # the test's usual condition; the rest makes one cell
    expected = np.append(p[common], p[~common].sum()) * n_draws
    observed = np.append(counts[common], counts[~common].sum())
    used = expected > 0
    chi2 = ((observed - expected)[used] ** 2 / expected[used]).sum()
    freedom = max(int(used.sum()) - 1, 1)
    assert chi2 <= freedom + 4 * np.sqrt(2 * freedom)


def test_generator_is_pcg32() -> None:
    """The outputs that pcg32-demo publishes for seed 42, stream 54; a draw takes two, the high bits first.

    With 4096 equal logits a draw is its uniform number's upper 12 bits.
    """
    outputs = [(0xA15C02B7, 0x7B47F409), (0xBA1D3330, 0x83D2F293), (0xBFA4784B, 0xCBED606E)]
    uniforms = [((high >> 5) * 2**26 + (low >> 6)) / 2**53 for high, low in outputs]
    drawn = draws(sampler(4096, seed=42), np.zeros(4096, np.float32), len(uniforms))
    assert drawn == [int(u * 4096) for u in uniforms]


def test_same_seed_same_draws() -> None:
    """Two samplers with one seed agree; another seed, or another 64-bit seed of equal lower half, does not."""
    logits = random_logits(500)
    first = draws(sampler(500, seed=1), logits, 50)
    assert first == draws(sampler(500, seed=1), logits, 50)
    assert first != draws(sampler(500, seed=2), logits, 50)
    assert first != draws(sampler(500, seed=1 + 2**32), logits, 50)


def test_no_seed_is_a_fresh_seed() -> None:
    """seed=None: two samplers differ."""
    logits = np.zeros(5000, np.float32)
    assert draws(sampler(5000, seed=None), logits, 8) != draws(sampler(5000, seed=None), logits, 8)


def test_probabilities_draw_nothing() -> None:
    """Looking at the distribution does not move the generator."""
    logits, looked = random_logits(300), sampler(300)
    for token in draws(sampler(300), logits, 20):
        looked.probabilities(logits)
        assert looked.sample(logits) == token


def test_greedy_takes_the_first_of_equals() -> None:
    """Temperature 0: the largest logit, the first of equals, and a distribution that says so."""
    logits = np.array([1.0, 3.0, 3.0, 2.0, 3.0], np.float32)
    greedy = sampler(5, temperature=0.0)
    assert draws(greedy, logits, 3) == [1, 1, 1]
    assert greedy.probabilities(logits).tolist() == [0, 1, 0, 0, 0]


def test_greedy_sees_bias_and_penalty() -> None:
    """They come before the choice: a banned winner loses, and so does one that was taken before."""
    logits = np.array([1.0, 3.0, 2.5, -4.0], np.float32)
    assert sampler(4, temperature=0.0, logit_bias={1: -INF}).sample(logits) == 2
    assert sampler(4, temperature=0.0, logit_bias={3: 8.0}).sample(logits) == 3
    penalised = sampler(4, temperature=0.0, repetition_penalty=1.5)
    penalised.accept([1])
    assert penalised.sample(logits) == 2


def test_banned_tokens_are_never_drawn() -> None:
    """A bias of -infinity leaves the others' proportions alone."""
    logits = random_logits(6)
    banned = sampler(6, logit_bias={0: -INF, 4: -INF})
    free = sampler(6).probabilities(logits)
    free[[0, 4]] = 0
    np.testing.assert_allclose(banned.probabilities(logits), free / free.sum(), rtol=1e-5)
    assert not {0, 4} & set(draws(banned, logits, 500))


def test_history_counts_a_token_once() -> None:
    """Having been seen three times is having been seen; the order does not matter either."""
    logits = random_logits(50)

    def after(*calls: list[int]) -> np.ndarray:
        penalised = sampler(50, repetition_penalty=1.7)
        for tokens in calls:
            penalised.accept(tokens)
        return penalised.probabilities(logits)

    once = after([3, 9])
    np.testing.assert_array_equal(after([9, 3, 9, 3]), once)
    np.testing.assert_array_equal(after([3], [], [9], [3]), once)
    assert (once != after()).any()


def test_sampling_does_not_accept() -> None:
    """Only accept adds to the history."""
    logits, penalised = random_logits(50), sampler(50, repetition_penalty=2.0)
    before = penalised.probabilities(logits)
    draws(penalised, logits, 10)
    np.testing.assert_array_equal(penalised.probabilities(logits), before)


def test_reset_starts_again() -> None:
    """The same draws once more, without the history and with the biases."""
    logits = random_logits(200)
    used = sampler(200, seed=9, repetition_penalty=1.5, logit_bias={int(logits.argmax()): -INF})
    first = draws(used, logits, 30)
    used.accept(first)
    used.reset()
    assert draws(used, logits, 30) == first
    assert int(logits.argmax()) not in first


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [[1.0, NAN, 0.0], [1.0, INF, 0.0], [-INF, -INF, -INF], [INF, NAN, -INF]], ids=str)
def test_impossible_logits_are_refused(bad: list[float], temperature: float) -> None:
    """An error instead of a token, and the next draw is the one that would have come."""
    good = np.zeros(3, np.float32)
    tried = sampler(3, temperature=temperature)
    for _ in range(5):
        for use in (tried.sample, tried.probabilities):
            with pytest.raises(UsageError, match=r"(?i)nan|infinit"):
                use(np.array(bad, np.float32))
    assert draws(tried, good, 20) == draws(sampler(3, temperature=temperature), good, 20)


def test_all_tokens_banned_is_refused() -> None:
    """Biases can leave nothing to draw from, too."""
    with pytest.raises(UsageError):
        sampler(2, logit_bias={0: -INF, 1: -INF}).sample(np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "params",
    [{"temperature": -0.1}, {"temperature": NAN}, {"temperature": INF}, {"top_k": -1}, {"top_p": -0.1}, {"top_p": 1.1},
     {"top_p": NAN}, {"min_p": -0.1}, {"min_p": 1.1}, {"min_p": NAN}, {"repetition_penalty": -1.0},
     {"repetition_penalty": NAN}, {"repetition_penalty": INF}, {"logit_bias": {10: 1.0}}, {"logit_bias": {-1: 1.0}},
     {"logit_bias": {0: NAN}}, {"logit_bias": {0: INF}}],
    ids=str,
)  # fmt: skip
def test_parameters_out_of_range_are_refused(params: dict[str, Any]) -> None:
    """Each bound of the documentation, by name."""
    with pytest.raises(UsageError, match=f"^{next(iter(params))} "):
        sampler(10, **params)


def test_wrong_shapes_and_tokens_are_refused() -> None:
    """No vocabulary, logits of another size, and tokens of another vocabulary."""
    with pytest.raises(UsageError, match=r"^n_vocab is 0, not"):
        sampler(0)
    ten = sampler(10)
    for wrong in (np.zeros(9, np.float32), np.zeros(11, np.float32), np.zeros((2, 5), np.float32)):
        with pytest.raises(UsageError):
            ten.sample(wrong)
    for tokens in ([10], [-1], [0, 2**31]):
        with pytest.raises(UsageError):
            ten.accept(tokens)


@pytest.mark.parametrize("temperature", [1e-30, 1e6])
def test_extreme_temperatures(temperature: float) -> None:
    """Next to nothing is greedy, and enormous is uniform; neither overflows."""
    logits = random_logits(40)
    p = sampler(40, temperature=temperature).probabilities(logits)
    expected = np.eye(40)[logits.argmax()] if temperature < 1 else np.full(40, 1 / 40)
    np.testing.assert_allclose(p, expected, atol=1e-6)
