"""Laws of Model.score: the numbers are those of the logits, however the text is cut, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import fastgpt_c
from fastgpt_c.engine.log_probs import log_normalisers
from fastgpt_c.errors import ContextFullError, FastGPTError, UsageError
from fastgpt_c.scoring import token_scores
from fastgpt_c.scoring.multiple_choice import score_choices, split_tokens
from fastgpt_c.scoring.token_scores import Scorer, TokenScores, score_logits, windows

if TYPE_CHECKING:
    from models import Tiny


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """[n][n_vocab] in float64, by the definition."""
    rows = logits.astype(np.float64)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def by_rank(row: np.ndarray) -> list[int]:
    """Ids from the likeliest on, of equals the lower one first."""
    return sorted(range(len(row)), key=lambda token: (-row[token], token))


def assert_scores(actual: TokenScores, tokens: np.ndarray, logits: np.ndarray, top_k: int) -> None:
    """That they are those of tokens [n], predicted by the rows of logits [n][n_vocab]."""
    expected = log_softmax(logits)
    np.testing.assert_array_equal(actual.tokens, tokens)
    np.testing.assert_allclose(actual.logprobs, expected[np.arange(len(tokens)), tokens], rtol=0, atol=2e-5)
    assert actual.top_tokens.shape == actual.top_logprobs.shape == (len(tokens), top_k)
    np.testing.assert_allclose(actual.top_logprobs, -np.sort(-expected, axis=1)[:, :top_k], rtol=0, atol=2e-5)


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """For each prefill from now on: how many tokens, and whether all their logits were made."""
    calls: list[tuple[int, bool]] = []
    prefill = fastgpt_c.Session.prefill

    def noted(self: fastgpt_c.Session, tokens: Any, all_logits: bool = False) -> Any:
        calls.append((len(tokens), all_logits))
        return prefill(self, tokens, all_logits)

    monkeypatch.setattr(fastgpt_c.Session, "prefill", noted)
    return calls


# ---- Logits -> scores ----


@pytest.mark.parametrize("n_vocab", [1, 3, 64, 200, 1000])
def test_ranks_and_alternatives_of_ties(n_vocab: int) -> None:
    """A token of rank r is the r-th of the likeliest tokens, of equals the lower id first, for every top_k."""
    rng = np.random.default_rng(n_vocab)
    logits = np.round(rng.normal(0, 2, (40, n_vocab))).astype(np.float32)
    logits[:5] = 1
    logits[5:10, 1::2] = -np.inf
    tokens = rng.integers(0, n_vocab, 40).astype(np.int32)
    expected = [by_rank(row) for row in logits]
    for top_k in {0, 1, min(7, n_vocab), n_vocab}:
        scores = score_logits(logits, tokens, top_k)
        assert scores.top_tokens.tolist() == [ids[:top_k] for ids in expected]
        assert scores.ranks.tolist() == [1 + ids.index(token) for ids, token in zip(expected, tokens, strict=True)]


def test_large_logits() -> None:
    """No overflow: adding a number to all logits of a row changes nothing."""
    logits = np.random.default_rng(0).normal(0, 3, (4, 50)).astype(np.float32)
    np.testing.assert_allclose(log_normalisers(logits + np.float32(1e4)) - 1e4, log_normalisers(logits), atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_damaged_weights(bad: float) -> None:
    """Logits that are no numbers are an error, not a score."""
    with pytest.raises(FastGPTError, match="NaN or infinite"):
        score_logits(np.array([[0, bad, 1]], np.float32), np.array([0], np.int32))


# ---- A text that fits ----


def test_scores_are_those_of_transformers(tiny: Tiny) -> None:
    """Log-probabilities and alternatives of a text that fills n_ctx; its first token has none."""
    tokens, logits = tiny.golden["tokens"], tiny.golden["logits"]
    scores = tiny.model.score(tokens, top_k=4, stride=tiny.model.n_ctx)
    assert_scores(scores[1:], tokens[1:], logits[:-1], 4)
    assert (scores.n_scored, scores.ranks[0], scores.top_tokens[0].tolist()) == (len(tokens) - 1, 0, [-1] * 4)
    assert np.isnan(scores.logprobs[0]) and np.isnan(scores.top_logprobs[0]).all()
    assert scores.total == pytest.approx(scores.logprobs[1:].sum())


def test_bos(tiny: Tiny) -> None:
    """The first token's score is that after the end-of-text token, and the others see that token, too."""
    tokens, eos = tiny.golden["tokens"][:5], tiny.model.eos_token
    assert eos is not None
    whole = tiny.model.score([eos, *tokens], top_k=2, stride=tiny.model.n_ctx)
    scores = tiny.model.score(tokens, top_k=2, bos=True, stride=tiny.model.n_ctx)
    for actual, expected in zip(scores._arrays(), whole[1:]._arrays(), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert scores.n_scored == len(tokens)


@pytest.mark.parametrize("tokens", [[], [3]])
def test_nothing_to_score(tiny: Tiny, tokens: list[int]) -> None:
    """No token, or one that nothing stands before: arrays of the usual shapes, and a total of 0."""
    scores = tiny.model.score(tokens, top_k=2)
    assert (len(scores), scores.n_scored, scores.total) == (len(tokens), 0, 0)
    assert scores.top_tokens.shape == (len(tokens), 2)


def test_text_is_encoded(alphabet_model: fastgpt_c.Model) -> None:
    """Text gives the scores of its tokens: one who recites the alphabet finds each next letter likeliest."""
    scores = alphabet_model.score("abcdef")
    assert scores.tokens.tolist() == alphabet_model.encode("abcdef")
    assert scores.greedy and np.all(scores.logprobs[1:] > -1e-4)
    assert not alphabet_model.score("abdc").greedy


# ---- A text that does not fit ----


@pytest.mark.parametrize("n_tokens", [0, 1, 2, 7, 8, 30])
@pytest.mark.parametrize("n_ctx", [2, 7, 16])
def test_windows(n_tokens: int, n_ctx: int) -> None:
    """Whatever the stride: no window is longer than n_ctx; each token but the first is scored once, at full overlap by
    what is before it; where windows do not overlap, the first token of each is left out."""
    for stride in range(1, n_ctx + 1):
        scored: list[int] = []
        for begin, first, end in windows(n_tokens, n_ctx, stride):
            assert begin < end <= min(begin + n_ctx, n_tokens)
            assert first - begin >= (1 if begin == 0 else max(n_ctx - stride, 1))
            scored += range(first, end)
        left_out = set(range(0, n_tokens, n_ctx)) if stride == n_ctx else {0}
        assert scored == [i for i in range(n_tokens) if i not in left_out]


@pytest.mark.parametrize("stride", [1, 4, None, 22, 23])
def test_a_long_text(random_model: fastgpt_c.Model, stride: int | None) -> None:
    """Every token has the score that its window alone gives."""
    n_ctx = random_model.n_ctx
    tokens = np.random.default_rng(1).integers(0, random_model.n_vocab, 60)
    scores = random_model.score(tokens, top_k=3, stride=stride)
    with random_model.session() as session:
        for begin, first, end in windows(60, n_ctx, stride or n_ctx // 2):
            session.truncate(0)
            if first < end:
                logits = session.prefill(tokens[begin:end], all_logits=True)
                assert_scores(scores[first:end], tokens[first:end], logits[first - begin - 1 : -1], 3)


def test_logits_are_made_in_slices(
    long_model: fastgpt_c.Model, fed: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the text, only so many rows of logits are there at a time; the scores are the same."""
    tokens = np.random.default_rng(2).integers(0, long_model.n_vocab, 1000)
    whole = long_model.score(tokens, stride=long_model.n_ctx)
    assert max(n for n, all_logits in fed if all_logits) == 512
    monkeypatch.setattr(token_scores, "_FLOATS_AT_ONCE", 100 * long_model.n_vocab)
    del fed[:]
    in_slices = long_model.score(tokens, stride=long_model.n_ctx)
    assert max(n for n, all_logits in fed if all_logits) == 100
    np.testing.assert_allclose(in_slices.logprobs, whole.logprobs, rtol=0, atol=1e-4)


# ---- Continuations and choices ----


def test_a_context_is_read_once(random_model: fastgpt_c.Model, fed: list[tuple[int, bool]]) -> None:
    """What a scorer holds already is not read again, and the scores are those of a fresh one."""
    rng = np.random.default_rng(3)
    context = rng.integers(0, random_model.n_vocab, 15).tolist()
    choices = [rng.integers(0, random_model.n_vocab, n).tolist() for n in (4, 1, 6)]
    with Scorer(random_model) as scorer:
        shared = [scorer.after(context, choice) for choice in choices]
    assert [n for n, _ in fed] == [14, 4, 1, 6]  # the context without its last token, then that and each choice
    for choice, scores in zip(choices, shared, strict=True):
        with Scorer(random_model) as scorer:
            np.testing.assert_allclose(scores.logprobs, scorer.after(context, choice).logprobs, rtol=0, atol=1e-5)


def test_choices_are_ranked(alphabet_model: fastgpt_c.Model) -> None:
    """The log-likelihood of a choice is the sum over its tokens; the model's own continuation wins."""
    with Scorer(alphabet_model) as scorer:
        found = score_choices(alphabet_model, scorer, "abc", ["xyz", "def", "d"])
        assert max(found, key=lambda choice: choice.loglikelihood).text in ("d", "def")
        assert [choice.scores.greedy for choice in found] == [False, True, True]
    whole = alphabet_model.score("abcxyz")
    assert found[0].loglikelihood == pytest.approx(whole.logprobs[3:].sum())
    assert (found[0].per_token, found[0].per_byte) == (found[0].loglikelihood / 3, found[0].loglikelihood / 3)


@pytest.mark.parametrize(
    ("context", "text", "n_context"),
    [("a the", "n", 2), ("a ", "the", 1), ("a", " the", 1), ("a \n", "b", 1), ("", "the", 1), (" ", "a", 1)],
)
def test_where_context_and_choice_part(random_model: fastgpt_c.Model, context: str, text: str, n_context: int) -> None:
    """Encoded together, parted before the spaces that end the context; nothing before is the end-of-text token."""
    before, tokens = split_tokens(random_model, context, text)
    assert len(before) == n_context
    start = [] if context.strip() else [random_model.eos_token]
    assert before + tokens == start + random_model.encode(context + text)


def test_a_context_too_long_loses_its_beginning(random_model: fastgpt_c.Model) -> None:
    """As many tokens as n_ctx has no room for, since the last token of a choice need not be read."""
    context = "abcdefgh" * 5
    with Scorer(random_model) as scorer:
        (choice,) = score_choices(random_model, scorer, context, ["xyz"])
        assert choice.n_dropped == 40 + 3 - (random_model.n_ctx + 1)
        kept = random_model.encode(context)[choice.n_dropped :]
        assert choice.loglikelihood == pytest.approx(scorer.after(kept, random_model.encode("xyz")).total)


# ---- Errors ----


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model.score([1, 265]), "outside"),
        (lambda model: model.score([-1]), "outside"),
        (lambda model: model.score([1.5, 2]), "integers"),
        (lambda model: model.score([1, 2], top_k=-1), "top_k is -1"),
        (lambda model: model.score([1, 2], top_k=266), "top_k is 266"),
        (lambda model: model.score([1, 2], stride=0), "stride is 0"),
        (lambda model: model.score([1, 2], stride=24), "stride is 24"),
        (lambda model: Scorer(model).after([], [1]), "before it"),
        (lambda model: Scorer(model).after([1], []), "before it"),
        (lambda model: score_choices(model, Scorer(model), "a", ["b", ""]), "no token"),
    ],
)
def test_wrong_arguments(random_model: fastgpt_c.Model, call: Any, words: str) -> None:
    """Named, with what they may be."""
    with pytest.raises(UsageError, match=words):
        call(random_model)


def test_after_an_error(random_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that does not fit, or an interrupt at any point, leaves the scorer as good as new."""
    context, tokens = [1, 2, 3, 4, 5], [6, 7, 8]
    expected = Scorer(random_model).after(context, tokens).logprobs
    prefill = fastgpt_c.Session.prefill

    def interrupted(n_more: Sequence[int]) -> Any:
        left = list(n_more)

        def call(self: fastgpt_c.Session, *arguments: Any, **options: Any) -> Any:
            result = prefill(self, *arguments, **options)
            if not left:
                raise KeyboardInterrupt
            left.pop()
            return result

        return call

    with Scorer(random_model) as scorer:
        with pytest.raises(ContextFullError):
            scorer.after(context, [6] * 23)
        for n_more in ([], [0]):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(fastgpt_c.Session, "prefill", interrupted(n_more))
                scorer.after([9, *context], tokens)
            np.testing.assert_allclose(scorer.after(context, tokens).logprobs, expected, rtol=0, atol=1e-5)
