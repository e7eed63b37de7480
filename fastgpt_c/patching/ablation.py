"""Ablation: what a model loses without a part (zero, mean and resample ablation; Chan et al. 2022, "Causal Scrubbing";
Heimersheim and Nanda 2024, arXiv 2404.15255)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.edits import Edit
from fastgpt_c.engine.sites import SITES, site_of
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, Tokens, shown
from fastgpt_c.patching.runs import MAX_TOKENS_IN_FLIGHT, Doubles, Sweep, checked_text

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

METHODS = ("zero", "mean", "resample")


def ablate(
    model: LoadedModel,
    tokens: Tokens,
    metric: object,
    site: str = "z",
    method: str = "zero",
    data: Sequence[Tokens] = (),
    *,
    seed: int = 0,
    max_tokens_in_flight: int = MAX_TOKENS_IN_FLIGHT,
    progress: bool | None = None,
    deterministic: bool = False,
) -> Doubles:
    """The metric of a text once for each part of a site, which is switched off at every position.

    site    "z", "q", "k" or "v": a head at a time; "resid_pre", "attn_out", "ff_out" ...: a layer at a time
    method  "zero"; "mean": the part has its mean over the texts of data; "resample": its values in one of them, drawn
            by seed, position by position
    data    texts as tokens; those of "resample" must be as long as the text
    the others are as in act_patch

    Returns float64 [n_layer][n_head], or [n_layer].
    """
    kind = site_of(site).kind
    if not SITES[site].has_layers or kind == "keys":
        raise UsageError(f"{site} cannot be switched off; z, q, k, v, attn_out, ff_out and the like can")
    text = checked_text(model, tokens)
    values = _values(model, text, site, method, data, seed)
    shape = (model.n_layer, model.n_head) if kind == "heads" else (model.n_layer,)
    runs = []
    for layer, *heads in product(*map(range, shape)):
        head = heads[0] if heads else None
        if values is None:
            runs.append([Edit(layer, site, "zero", head=head)])
        else:
            value = values[layer] if head is None else values[layer, ..., head, :]
            runs.append([Edit(layer, site, "mean" if method == "mean" else "set", value, head)])
    with Sweep(
        model, text, metric, max_tokens_in_flight=max_tokens_in_flight, progress=progress, deterministic=deterministic
    ) as sweep:
        return sweep.run(runs).reshape(shape)


def _values(
    model: LoadedModel, text: Tokens, site: str, method: str, data: Sequence[Tokens], seed: int
) -> Floats | None:
    """What takes the place of a site's values: [n_layer] ..., with an axis of positions for "resample"."""
    if method not in METHODS:
        raise UsageError(f"method is {shown(method)}, not one of {', '.join(METHODS)}")
    if method == "zero":
        if len(data):
            raise UsageError("data is for the methods mean and resample")
        return None
    if not len(data):
        raise UsageError(f"{method} needs data: texts as lists of tokens")
    if method == "mean":
        return mean_values(model, site, data)
    chosen = checked_text(model, data[int(np.random.default_rng(seed).integers(len(data)))], "a text of data")
    if len(chosen) < len(text):
        raise UsageError(
            f"a text of data has {len(chosen)} tokens; resample needs {len(text)}, as many as the text has"
        )
    return _inspected(model, chosen[: len(text)], site)


def mean_values(model: LoadedModel, site: str, data: Sequence[Tokens]) -> Floats:
    """float32 [n_layer] ...: the mean of a site's values over all positions of all texts."""
    total: npt.NDArray[np.float64] | float = 0.0
    n_tokens = 0
    for text in data:
        tokens = checked_text(model, text, "a text of data")
        total = total + _inspected(model, tokens, site).sum(axis=1, dtype=np.float64)
        n_tokens += len(tokens)
    return np.asarray(total / n_tokens, np.float32)


def _inspected(model: LoadedModel, tokens: Tokens, site: str) -> Floats:
    with model.session(len(tokens)) as session:
        return session.inspect(tokens, sites=[site])[site]
