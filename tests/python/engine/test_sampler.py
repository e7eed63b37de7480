"""The sampler: what transformers would draw from, drawn by a generator that everybody can check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from paths import VECTORS

from fastgpt_c.engine.sampler import Sampler
from fastgpt_c.errors import UsageError

with np.load(VECTORS / "sampler.npz") as file:
    VECTORS = dict(file)
CASES: list[dict[str, Any]] = json.loads(str(VECTORS["cases"]))
NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "seed": 42}
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
    n_vocab, n_taken = case["n_vocab"], int(VECTORS["n_taken"])
    fields = {name: value for name, value in case.items() if name not in ("n_vocab", "row", "bias", "allowed")}
    bias = {int(token): value for token, value in case["bias"].items()}
    eos_token = int(VECTORS[f"eos_token{n_vocab}"])
    made = sampler(n_vocab, **fields, logit_bias=bias, eos_token=eos_token, **params)
    if case["allowed"]:
        made.allow(VECTORS[f"allowed{n_vocab}"])
    history = VECTORS[f"history{n_vocab}"]
    made.accept_prompt(history[:-n_taken])
    made.accept(history[-n_taken:])
    return made


@pytest.mark.parametrize("n_vocab", sorted({case["n_vocab"] for case in CASES}))
def test_probabilities_equal_transformers(n_vocab: int) -> None:
    """Every golden case: the same tokens survive, with the same probabilities."""
    cases = [case for case in CASES if case["n_vocab"] == n_vocab]
    expected, logits = VECTORS[f"probabilities{n_vocab}"], VECTORS[f"logits{n_vocab}"]
    assert len(cases) == len(expected) > 300
    for case, row in zip(cases, expected, strict=True):
        actual = from_case(case).probabilities(logits[case["row"]])
        np.testing.assert_array_equal(actual > 0, row > 0, err_msg=str(case))
        np.testing.assert_allclose(actual, row, rtol=1e-4, atol=1e-7, err_msg=str(case))


@pytest.mark.parametrize("n_vocab", sorted({case["n_vocab"] for case in CASES}))
def test_adjusted_logits_come_before_temperature_and_filters(n_vocab: int) -> None:
    """Golden cases: whatever the filters, adjusted logits are those of the same case without any, up to a constant."""
    off = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 0.0}
    for case in (case for case in CASES if case["n_vocab"] == n_vocab):
        logits = VECTORS[f"logits{n_vocab}"][case["row"]]
        actual = from_case(case).adjusted(logits)
        expected = from_case(case | off).probabilities(logits)
        np.testing.assert_allclose(softmax(actual.astype(np.float64)), expected, rtol=1e-4, err_msg=str(case))
        bias = np.zeros(n_vocab, np.float32)
        for token, value in case["bias"].items():
            bias[int(token)] = value
        plain = ~np.isin(np.arange(n_vocab), VECTORS[f"history{n_vocab}"]) & (actual > -np.inf)
        np.testing.assert_array_equal(actual[plain], (logits + bias)[plain], err_msg=str(case))


def kept(probabilities: Sequence[float], **params: float) -> list[int]:
    with np.errstate(divide="ignore"):
        logits = np.log(np.array(probabilities, np.float64)).astype(np.float32)
    return np.flatnonzero(sampler(len(probabilities), **params).probabilities(logits)).tolist()


@pytest.mark.parametrize(
    ("probabilities", "top_p", "tokens"),
    [
        ([0.3, 0.1, 0.1, 0.5], 0.8, [0, 3]),
        ([0.1, 0.2, 0.3, 0.4], 0.7, [2, 3]),
        ([0.1, 0.2, 0.3, 0.4], 0.8, [1, 2, 3]),
        ([0.1, 0.2, 0.3, 0.4], 1, [0, 1, 2, 3]),
        ([0.1, 0.2, 0.3, 0.4], 0, [3]),
        ([0.4, 0.4, 0.2], 0, [0]),
    ],
)
def test_top_p_at_its_edges(probabilities: list[float], top_p: float, tokens: list[int]) -> None:
    """A sum that equals it is enough, as in transformers and llama.cpp; 0 keeps the likeliest token, the first of
    equals, and 1 keeps all."""
    assert kept(probabilities, top_p=top_p) == tokens


def test_exact_sums_are_enough() -> None:
    """Probabilities that are twentieths, and top_p as well: as many as integers say, however F32 rounds them."""
    rng = np.random.default_rng(3)
    for _ in range(500):
        parts = rng.multinomial(20, rng.dirichlet(np.ones(6)))
        wanted = int(rng.integers(1, 20))
        n_enough = int(np.searchsorted(np.sort(parts)[::-1].cumsum(), wanted)) + 1
        assert len(kept(parts / 20, top_p=wanted / 20)) == n_enough, (parts, wanted)


def test_all_may_be_banned_in_adjusted_logits() -> None:
    """Unlike a draw, which needs a token; NaN and +infinity are refused alike."""
    none = sampler(3)
    none.allow([])
    assert none.adjusted(np.zeros(3)).tolist() == [-INF] * 3
    for bad in (NAN, INF):
        with pytest.raises(UsageError, match=r"(?i)nan"):
            none.adjusted(np.array([0, bad, 0]))


def check_draws(drawn: Sampler, logits: np.ndarray, n_draws: int) -> None:
    """Filtered tokens are never drawn, and the rest as often as they should be (Pearson's chi-square)."""
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


@pytest.mark.parametrize("case", CASES[::40], ids=str)
def test_draws_come_from_the_probabilities(case: dict[str, Any]) -> None:
    """Golden cases, 4,000 draws of each."""
    check_draws(from_case(case, seed=7), VECTORS[f"logits{case['n_vocab']}"][case["row"]], 4000)


@pytest.mark.parametrize(
    "params",
    [{}, {"typical_p": 0.5}, {"top_n_sigma": 1.0}, {"frequency_penalty": 0.7, "presence_penalty": -0.4},
     {"no_repeat_ngram_size": 1}, {"min_new_tokens": 6, "eos_token": 11}, {"mirostat_tau": 3.0, "mirostat_eta": 0.0},
     {"temperature": 1.3, "top_n_sigma": 2.0, "top_k": 60, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.9,
      "mirostat_tau": 2.5, "mirostat_eta": 0.0, "repetition_penalty": 1.2}],
    ids=str,
)  # fmt: skip
def test_100_000_draws(params: dict[str, Any]) -> None:
    """Each sampler and all at once, at a fixed seed."""
    drawn = sampler(100, **params)
    drawn.accept([3, 3, 9, 60, 3])
    check_draws(drawn, random_logits(100, 2), 100_000)


def test_100_000_draws_of_allowed_tokens() -> None:
    """A mask in the middle of a word, beside a penalty and a filter; the others are never drawn."""
    drawn = sampler(100, frequency_penalty=0.5, min_p=0.02)
    drawn.accept([40, 40, 70])
    drawn.allow(range(29, 75))
    logits = random_logits(100, 3)
    assert set(np.flatnonzero(drawn.probabilities(logits))) < set(range(29, 75))
    check_draws(drawn, logits, 100_000)


# ---- What transformers has not: a reference in float64 ------------------------------------------------------


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 [n_vocab]; 0 for -infinity."""
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def only(kept: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Logits of what is kept; the others are -infinity."""
    return np.where(kept, logits, -np.inf)


@pytest.mark.parametrize("n_sigma", [0.5, 1.0, 2.0, 1e6])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("row", range(3))
def test_top_n_sigma(n_sigma: float, temperature: float, row: int) -> None:
    """Logits within n standard deviations of the largest, of all but banned ones, whatever the temperature."""
    logits = VECTORS["logits1000"][row].astype(np.float64)
    finite = logits[logits > -np.inf]
    kept = logits >= logits.max() - n_sigma * finite.std()
    expected = softmax(only(kept, logits) / temperature)
    assert 1 <= kept.sum() < finite.size or n_sigma == 1e6
    actual = sampler(1000, top_n_sigma=n_sigma, temperature=temperature).probabilities(logits)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("frequency", "presence"), [(0.5, 0.0), (0.0, 1.5), (-0.5, 0.25), (2.0, -2.0)])
def test_frequency_and_presence_penalties(frequency: float, presence: float) -> None:
    """OpenAI's formula, logit - count * frequency - (count > 0) * presence, over the new tokens; not the prompt's."""
    logits, new = random_logits(30), [4, 9, 4, 4, 17]
    penalised = sampler(30, frequency_penalty=frequency, presence_penalty=presence)
    penalised.accept_prompt([1, 2, 4, 2])
    penalised.accept(new)
    counts = np.bincount(new, minlength=30)
    expected = softmax(logits.astype(np.float64) - counts * frequency - (counts > 0) * presence)
    np.testing.assert_allclose(penalised.probabilities(logits), expected, rtol=1e-5)
    penalised.reset()
    np.testing.assert_allclose(penalised.probabilities(logits), softmax(logits.astype(np.float64)), rtol=1e-5)


@pytest.mark.parametrize(("tau", "eta"), [(3.0, 0.1), (1.0, 0.5), (2.0, 1.0)])
def test_mirostat(tau: float, eta: float) -> None:
    """Step by step: what is left is at most mu bits surprising, and each draw moves mu by eta times its error."""
    rng, mu, surprises = np.random.default_rng(5), 2 * tau, []
    drawn = sampler(400, mirostat_tau=tau, mirostat_eta=eta)
    for _ in range(300):
        logits = rng.normal(0.0, 3.0, 400).astype(np.float32)
        p = softmax(logits.astype(np.float64))
        kept = (-np.log2(p) <= mu) | (p == p.max())
        expected = softmax(only(kept, logits.astype(np.float64)))
        np.testing.assert_allclose(drawn.probabilities(logits), expected, rtol=1e-4, atol=1e-9)
        surprises.append(-np.log2(expected[drawn.sample(logits)]))
        mu -= eta * (surprises[-1] - tau)
    assert abs(np.mean(surprises[50:]) - tau) < 0.1 * tau, "mirostat's promise"
    drawn.reset()
    p = softmax(logits.astype(np.float64))
    assert (drawn.probabilities(logits) > 0).sum() == max((-np.log2(p) <= 2 * tau).sum(), 1)


# ---- Bans ---------------------------------------------------------------------------------------------------


def test_allowed_tokens() -> None:
    """Only they are drawn, in their old proportions, greedily too, until all are allowed again."""
    logits = random_logits(70)
    p = sampler(70).probabilities(logits)
    for tokens in ([3, 31, 32, 33, 64, 69], [int(p.argmin())]):
        some, greedy = sampler(70), sampler(70, temperature=0.0)
        some.allow(tokens)
        greedy.allow(tokens)
        expected = np.where(np.isin(np.arange(70), tokens), p, 0)
        np.testing.assert_allclose(some.probabilities(logits), expected / expected.sum(), rtol=1e-5)
        assert greedy.sample(logits) == expected.argmax()
        some.reset()
        assert some.probabilities(logits).astype(bool).sum() == len(tokens), "reset keeps the mask"
        some.allow(None)
        np.testing.assert_array_equal(some.probabilities(logits), p)


def test_no_allowed_token_is_refused() -> None:
    """Nothing is left to draw from; a token that is none, or a mask of another size, is refused as well."""
    none = sampler(33)
    none.allow([])
    with pytest.raises(UsageError, match="every token is banned"):
        none.sample(np.zeros(33, np.float32))
    for tokens in ([33], [-1]):
        with pytest.raises(UsageError, match=r"outside \[0, 33\)"):
            none.allow(tokens)
    with pytest.raises(UsageError, match="33 tokens has 8 bytes, not 7"):
        none.allow_mask(bytes(7))


def test_min_new_tokens() -> None:
    """The end-of-text token is banned until so many tokens were accepted, the prompt's not counted."""
    logits = random_logits(20)
    end = int(logits.argmax())
    patient = sampler(20, temperature=0.0, min_new_tokens=2, eos_token=end)
    patient.accept_prompt([1, 2, 3])
    assert patient.sample(logits) != end
    patient.accept([5])
    assert patient.sample(logits) != end
    patient.accept([5])
    assert patient.sample(logits) == end
    assert sampler(20, temperature=0.0, min_new_tokens=2).sample(logits) == end, "there is no end-of-text token"


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_no_n_gram_comes_twice(n: int) -> None:
    """In 150 greedy tokens over six, which would repeat at once; the history grows as they come."""
    logits = [random_logits(6, seed) for seed in range(6)]
    new = sampler(6, temperature=0.0, no_repeat_ngram_size=n)
    text = [2]
    new.accept_prompt(text)
    while len(text) < 150:
        try:
            text.append(new.sample(logits[text[-1]]))
        except UsageError:  # every token would repeat one
            break
        new.accept(text[-1:])
    grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    assert len(set(grams)) == len(grams)
    assert len(text) == 6 if n == 1 else len(text) > 6 * n


# ---- The generator ------------------------------------------------------------------------------------------


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
     {"repetition_penalty": NAN}, {"repetition_penalty": INF}, {"typical_p": -0.1}, {"typical_p": 1.1},
     {"typical_p": NAN}, {"top_n_sigma": -1.0}, {"top_n_sigma": INF}, {"mirostat_tau": -1.0}, {"mirostat_tau": NAN},
     {"mirostat_eta": 1.5}, {"mirostat_eta": -0.5}, {"frequency_penalty": INF}, {"frequency_penalty": -2e6},
     {"presence_penalty": NAN}, {"presence_penalty": 2e6}, {"no_repeat_ngram_size": -1}, {"min_new_tokens": -1},
     {"eos_token": 10}, {"eos_token": -1}, {"logit_bias": {10: 1.0}}, {"logit_bias": {-1: 1.0}},
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
