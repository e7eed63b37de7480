"""A whole patching experiment as JSON can hold it: what each place of a model brings back of the clean answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgpt_c.engine.one_token import one_token
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Tokens
from fastgpt_c.patching.activation import act_patch, checked_pair
from fastgpt_c.patching.metrics import logit_difference
from fastgpt_c.patching.runs import MAX_TOKENS_IN_FLIGHT, Doubles, Sweep

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

BY_POSITION = ("resid_pre", "attn_out", "ff_out")
LEAST_DIFFERENCE = 1e-3  # between both texts, in logits: below it, parts of it are rounding


@dataclass(frozen=True)
class Experiment:
    """clean, corrupted   what the metric, logit(answer) - logit(against), is after each text
    answer, against    token ids
    by_position        of resid_pre, attn_out and ff_out, float64 [n_layer][n_tokens]: the metric of the corrupted text
                       with that place taken from the clean one
    by_head            float64 [n_layer][n_head]: the same of each head's z, at all positions
    """

    clean: float
    corrupted: float
    answer: int
    against: int
    by_position: dict[str, Doubles]
    by_head: Doubles

    def recovered(self, values: Doubles) -> Doubles:
        """0 = as corrupted, 1 = as clean."""
        return np.asarray((values - self.corrupted) / (self.clean - self.corrupted))


def experiment(
    model: LoadedModel,
    clean: Tokens,
    corrupted: Tokens,
    answer: str | int,
    against: str | int,
    *,
    max_tokens_in_flight: int = MAX_TOKENS_IN_FLIGHT,
    progress: bool | None = None,
) -> Experiment:
    """Patches resid_pre, attn_out and ff_out by layer and position, and heads by layer.

    Raises UsageError as act_patch does, and where both texts give the same difference of logits, so that there is
    nothing to bring back.
    """
    good, bad = checked_pair(model, clean, corrupted)
    metric = logit_difference(model, answer, against)
    ends = []
    for tokens in (good, bad):
        with Sweep(model, tokens, metric, progress=False) as sweep:
            ends.append(sweep.baseline)
    if abs(ends[0] - ends[1]) < LEAST_DIFFERENCE:
        raise UsageError(
            f"the logits of answer and against differ by {ends[0]:.3f} after the clean text and by {ends[1]:.3f} after "
            "the corrupted one: there is nothing to bring back; change a word that matters for the answer"
        )
    options: dict[str, Any] = {"max_tokens_in_flight": max_tokens_in_flight, "progress": progress}
    maps = act_patch(model, good, bad, metric, BY_POSITION, ("layer", "position"), **options)
    heads = act_patch(model, good, bad, metric, "z", ("layer", "head"), **options)
    pair = one_token(model, "answer", answer), one_token(model, "against", against)
    return Experiment(ends[0], ends[1], *pair, dict(zip(BY_POSITION, maps, strict=True)), heads)


def report(found: Experiment) -> dict[str, Any]:
    """{"clean": float, "corrupted": float, "answer": id, "against": id, "resid_pre": [n_layer][n_tokens], "attn_out",
    "ff_out": the same, "z": [n_layer][n_head]}: the first two are differences of logits, the maps what of their
    difference a patch brings back: 0 = as corrupted, 1 = as clean."""
    maps = {**found.by_position, "z": found.by_head}
    return {
        "clean": round(found.clean, 5),
        "corrupted": round(found.corrupted, 5),
        "answer": found.answer,
        "against": found.against,
        **{site: np.round(found.recovered(values), 4).tolist() for site, values in maps.items()},
    }
