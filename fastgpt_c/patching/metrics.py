"""What an experiment measures: a number made of the logits after a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.log_probs import log_softmax
from fastgpt_c.engine.one_token import one_token
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, Tokens, float_array, shown, token_array

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel


@dataclass(frozen=True)
class Metric:
    """function       from logits to a number
    all_positions  whether it gets the logits after every token, [n_tokens][n_vocab], not only [n_vocab] after the last;
                   then no part of a run can be left out
    """

    function: Callable[[Floats], float]
    all_positions: bool = False

    def __call__(self, logits: Floats) -> float:
        return float(self.function(logits))


def logit_difference(model: LoadedModel, answer: str | int, against: str | int) -> Metric:
    """logit(answer) - logit(against) after the last token; token ids, or texts of one token, such as " Mary"."""
    one, other = one_token(model, "answer", answer), one_token(model, "against", against)
    return Metric(lambda logits: float(logits[one]) - float(logits[other]))


def log_probability(model: LoadedModel, answer: str | int) -> Metric:
    """The natural logarithm of the answer's probability after the last token."""
    token = one_token(model, "answer", answer)
    return Metric(lambda logits: float(log_softmax(logits)[token]))


def kl_divergence(reference: npt.ArrayLike) -> Metric:
    """How far the prediction is from that of reference [n_vocab] logits: KL(reference || changed), in nats; 0 = the
    same."""
    expected = log_softmax(float_array("reference", reference))
    return Metric(lambda logits: float(np.exp(expected) @ (expected - log_softmax(logits))))


def mean_loss(tokens: Tokens, first: int = 1) -> Metric:
    """The mean of -log p of tokens[first:], each given those before, in nats: what a text costs."""
    ids = token_array(tokens)
    if not 1 <= first < len(ids):
        raise UsageError(f"first is {first}, not in [1, {len(ids)}), of a text of {len(ids)} tokens")
    rows = np.arange(first, len(ids))
    return Metric(lambda logits: -float(log_softmax(logits[rows - 1])[rows - first, ids[rows]].mean()), True)


def as_metric(metric: object) -> Metric:
    """A Metric itself, or one of a function of the logits [n_vocab] after the last token."""
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return Metric(metric)
    raise UsageError(f"metric is {shown(metric)}, not a function, or one of fastgpt_c.patching")
