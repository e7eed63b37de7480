"""How likely a model finds given tokens: log-probabilities, ranks and alternatives.

Logits are [n_vocab] for each position, so they are computed and reduced a slice of positions at a time: memory does not
grow with the text.  Log-probabilities are natural logarithms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.log_probs import likeliest, log_normalisers, token_ranks
from fastgpt_c.engine.reader import Reader
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, checked_int, token_array

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

Ints = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]

_FLOATS_AT_ONCE = 2**24  # of logits, where that is at least as many positions as a prefill needs to be quick:
_POSITIONS_AT_ONCE = (64, 512)
_ROWS_IN_CACHE = 16


@dataclass(frozen=True, repr=False)
class TokenScores:
    """How likely a model finds each of n tokens, given those before it.

    tokens        int32 [n]
    logprobs      float64 [n], natural logarithms; NaN for a token without a token before it
    ranks         int32 [n], 1 = this token was the likeliest; of equals the lower id comes first; 0 = no score
    top_tokens    int32 [n][top_k], the likeliest tokens, likeliest first; -1 = no score
    top_logprobs  float64 [n][top_k], theirs; NaN = no score
    """

    tokens: Ints
    logprobs: Doubles
    ranks: Ints
    top_tokens: Ints
    top_logprobs: Doubles

    @property
    def total(self) -> float:
        """The sum of the log-probabilities of all tokens that have one."""
        return float(self.logprobs[self.ranks > 0].sum())

    @property
    def n_scored(self) -> int:
        """The number of tokens with a log-probability."""
        return int(np.count_nonzero(self.ranks))

    @property
    def greedy(self) -> bool:
        """Whether each token with a score was the likeliest in its place."""
        return bool((self.ranks <= 1).all())

    def __repr__(self) -> str:
        return (
            f"TokenScores({len(self)} tokens, {self.n_scored} scored, total={self.total:.6g}, "
            f"top_k={self.top_tokens.shape[1]})"
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, tokens: slice) -> TokenScores:
        return TokenScores(*(array[tokens] for array in self._arrays()))

    def _arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return self.tokens, self.logprobs, self.ranks, self.top_tokens, self.top_logprobs


def joined(parts: Sequence[TokenScores]) -> TokenScores:
    """Concatenates the scores of parts of one text."""
    return TokenScores(*map(np.concatenate, zip(*(part._arrays() for part in parts), strict=True)))


def without_score(tokens: Ints, top_k: int) -> TokenScores:
    """Scores of tokens without a token before them: NaN."""
    n = len(tokens)
    nothing = np.full((n, top_k), np.nan)
    return TokenScores(tokens, np.full(n, np.nan), np.zeros(n, np.int32), np.full((n, top_k), -1, np.int32), nothing)


# ---- Logits -> scores ----


def score_logits(logits: Floats, tokens: Ints, top_k: int = 0) -> TokenScores:
    """Scores of tokens [n], where row i of logits [n][n_vocab] predicts token i."""
    parts = [
        _score_few(logits[i : i + _ROWS_IN_CACHE], tokens[i : i + _ROWS_IN_CACHE], top_k)
        for i in range(0, len(tokens), _ROWS_IN_CACHE)
    ]
    return joined(parts)


def _score_few(logits: Floats, tokens: Ints, top_k: int) -> TokenScores:
    normalisers = log_normalisers(logits)
    chosen = np.take_along_axis(logits, tokens[:, None].astype(np.int64), axis=1)
    top = np.array([likeliest(row, top_k) for row in logits]).reshape(len(tokens), top_k)
    top_logprobs = np.take_along_axis(logits, top, axis=1) - normalisers[:, None]
    logprobs, ranks = chosen[:, 0] - normalisers, token_ranks(logits, tokens)
    return TokenScores(tokens, logprobs, ranks, top.astype(np.int32), top_logprobs)


# ---- Tokens -> scores ----


def tokens_of(tokens: Sequence[int] | Ints, n_vocab: int) -> Ints:
    """[n_tokens]; raises UsageError for anything but a row of integers in [0, n_vocab)."""
    row = token_array(tokens)
    if row.size and not 0 <= row.min() <= row.max() < n_vocab:
        raise UsageError(f"a token is outside [0, {n_vocab})")
    return row


class Scorer:
    """Scores tokens after others, in a session of its own, which is not made to read a common prefix again.

    One thread at a time, as a session.
    """

    def __init__(
        self, model: LoadedModel, *, n_threads: int | None = None, kv_type: str = "f32", deterministic: bool = False
    ) -> None:
        """deterministic  the same scores to the bit, whatever was scored before; see Session"""
        self.n_ctx, self.n_vocab = model.n_ctx, model.n_vocab
        self._reader = Reader(model.session(n_threads=n_threads, kv_type=kv_type, deterministic=deterministic))
        least, most = _POSITIONS_AT_ONCE
        self._n_rows = min(max(_FLOATS_AT_ONCE // model.n_vocab, least), most)

    def after(self, context: Sequence[int], tokens: Sequence[int], top_k: int = 0) -> TokenScores:
        """Scores of tokens, each given context and the tokens before it, with the top_k likeliest in its place.

        Both have one token at least; all but the last of tokens are read, so len(context) + len(tokens) <= n_ctx + 1.
        Raises as Session.prefill does; later calls are not affected.
        """
        if not len(context) or not len(tokens):
            raise UsageError("scoring needs a token, and one before it")
        checked_int("top_k", top_k, 0, self.n_vocab)
        targets = tokens_of(tokens, self.n_vocab)
        read = [*context, *tokens][:-1]
        session = self._reader.session
        n_kept = self._reader.keep_common(read, len(context) - 1)
        if n_kept < len(context) - 1:
            session.prefill(read[n_kept : len(context) - 1])
        parts = []
        for begin in range(len(context) - 1, len(read), self._n_rows):
            some = read[begin : begin + self._n_rows]
            first = begin - len(context) + 1
            rows = targets[first : first + len(some)]
            parts.append(score_logits(session.prefill(some, all_logits=True), rows, top_k))
        self._reader.note(read)
        return joined(parts)

    def close(self) -> None:
        """Frees the memory."""
        self._reader.session.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- Texts -> scores ----


class Window(NamedTuple):
    """Tokens [begin, end) of a text, which the model reads together to score [first, end)."""

    begin: int
    first: int
    end: int


def windows(n_tokens: int, n_ctx: int, stride: int) -> Iterator[Window]:
    """The windows in which a text of any length is read: n_ctx tokens each, stride tokens apart; each scores the tokens
    that those before it did not reach.

    So a token has at least n_ctx - stride tokens before it, if the text has.  The first token of a window can't be
    scored by it: with stride = n_ctx the first of each window is left out.  That is the recipe of transformers' guide
    "Perplexity of fixed-length models".  Raises UsageError for a stride outside [1, n_ctx].
    """
    checked_int("stride", stride, 1, n_ctx)
    reached = 0
    for begin in range(0, n_tokens, stride):
        end = min(begin + n_ctx, n_tokens)
        yield Window(begin, max(reached, begin + 1), end)
        reached = end
        if end == n_tokens:
            return


def score_windows(scorer: Scorer, tokens: Sequence[int], stride: int, top_k: int = 0) -> Iterator[TokenScores]:
    """The scores of tokens in parts, one for each of windows; joined they are those of all tokens."""
    row = token_array(tokens)
    reached = 0
    for begin, first, end in windows(len(row), scorer.n_ctx, stride):
        parts = [without_score(row[reached:first], top_k)]
        if first < end:
            parts.append(scorer.after(row[begin:first].tolist(), row[first:end].tolist(), top_k))
        yield joined(parts)
        reached = end


def score(
    scorer: Scorer, tokens: Sequence[int], *, top_k: int = 0, start: int | None = None, stride: int | None = None
) -> TokenScores:
    """Scores of a text's tokens; for start and stride see Model.score, whose work this is."""
    row = tokens_of(tokens, scorer.n_vocab)
    checked_int("top_k", top_k, 0, scorer.n_vocab)
    before = [] if start is None else [start]
    step = max(scorer.n_ctx // 2, 1) if stride is None else stride
    parts = list(score_windows(scorer, [*before, *row.tolist()], step, top_k))
    return joined(parts)[len(before) :] if parts else without_score(row, top_k)


def start_token(model: LoadedModel) -> int:
    """The token before the first one of a text: GPT-2 separates texts by the end-of-text token."""
    if model.eos_token is None:
        raise UsageError("the model has no end-of-text token for a text to begin with")
    return model.eos_token
