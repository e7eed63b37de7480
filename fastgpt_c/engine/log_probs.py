"""Logits -> log-probabilities, and the likeliest tokens: what scores, searches and the logit lens compare."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastgpt_c.errors import FastGPTError


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """logits [..., n_vocab], not all of a row -infinity -> log-probabilities in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - _log_sum_exp(shifted))


def log_normalisers(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """[n] log(sum(exp(row))) of each row of logits [n][n_vocab]: subtracted from logits, it gives log-probabilities.

    For when only a few tokens of a row are needed: exponentials are float32, faster and smaller than log_softmax.
    Raises FastGPTError for logits that are NaN or infinite.
    """
    largest = logits.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():
        raise FastGPTError("the model gives logits that are NaN or infinite: its weights are damaged")
    return np.asarray((largest + _log_sum_exp(logits - largest))[:, 0])


class TokenLogProb(NamedTuple):
    """How likely a model found a token in its place.

    token    its id
    logprob  its log-probability, a natural logarithm
    rank     1 = no token was likelier; of equals the lower id comes first
    top      (token, log-probability) of the likeliest tokens in its place, likeliest first
    """

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


def token_log_prob(logits: npt.NDArray[np.float32], token: int, n_top: int) -> TokenLogProb:
    """Of a token in the place that logits [n_vocab] predict, with the n_top likeliest.  Raises FastGPTError for logits
    that are NaN or infinite."""
    normaliser = float(log_normalisers(logits[None])[0])
    rank = int(token_ranks(logits[None], np.array([token]))[0])
    top = tuple((i, float(logits[i]) - normaliser) for i in likeliest(logits, n_top).tolist())
    return TokenLogProb(token, float(logits[token]) - normaliser, rank, top)


def token_ranks(logits: npt.NDArray[np.float32], tokens: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """[n] the ranks of tokens [n] in the rows of logits [n][n_vocab]: 1 = the likeliest; of equals the lower id comes
    first."""
    own = np.take_along_axis(logits, tokens[:, None].astype(np.int64), axis=1)
    n_before = [np.count_nonzero(row[:token] == row[token]) for row, token in zip(logits, tokens, strict=True)]
    return np.asarray(1 + np.count_nonzero(logits > own, axis=1) + n_before, np.int32)


def _log_sum_exp(shifted: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """[..., 1] log(sum(exp(row))) of rows whose largest is 0."""
    return np.asarray(np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)))


def likeliest(scores: npt.NDArray[Any], n: int) -> npt.NDArray[np.intp]:
    """Indices of the n largest of scores [n_scores], the largest first; of equals the lower index comes first."""
    if n == 0:
        return np.empty(0, np.intp)
    # A cheap lower bound of the n-th largest score: the n-th largest of the maxima of disjoint parts.
    n_parts = len(scores) // 64
    least = -np.inf
    if n <= n_parts:
        least = np.partition(scores[: 64 * n_parts].reshape(64, n_parts).max(axis=0), n_parts - n)[n_parts - n]
    places = np.flatnonzero(scores >= least)
    order: npt.NDArray[np.intp] = places[np.argsort(-scores[places], kind="stable")[:n]]
    return order


def likeliest_possible(scores: npt.NDArray[Any], n: int) -> npt.NDArray[np.intp]:
    """As likeliest, without scores of -infinity, so there may be fewer than n."""
    places = likeliest(scores, n)
    return places[scores[places] > -np.inf]
