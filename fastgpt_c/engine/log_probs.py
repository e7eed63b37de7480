"""Logits -> log-probabilities, and the likeliest tokens: what searches compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """logits [..., n_vocab], not all of a row -infinity -> log-probabilities in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def likeliest(scores: npt.NDArray[Any], n: int) -> npt.NDArray[np.intp]:
    """The places of the n largest scores [n_scores], the largest first and of equals the first; fewer where the others
    are -infinity."""
    least = np.partition(scores, -n)[-n] if n < len(scores) else -np.inf
    places = np.flatnonzero((scores >= least) & (scores > -np.inf))
    return places[np.argsort(-scores[places], kind="stable")][:n]
