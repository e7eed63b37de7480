"""Control vectors from pairs of prompts: the direction in which what a model holds of them differs (Rimsky et al.
2023, arXiv 2312.06681; by principal components as in Zou et al. 2023, arXiv 2310.01405)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastgpt_c.engine.control_vector import ControlVector
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Tokens, checked_int, shown
from fastgpt_c.patching.runs import Doubles, checked_text

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

METHODS = ("mean", "pca")


def control_vector(
    model: LoadedModel,
    pairs: Sequence[tuple[Tokens | str, Tokens | str]],
    layers: Sequence[int] | None = None,
    method: str = "mean",
) -> ControlVector:
    """A direction for each layer, from what the residual stream is after the last tokens of pairs of prompts.

    pairs   (what it leads to, what it leads away from), as texts or tokens
    layers  whose resid_post it is added to; None = all but layer 0, which llama.cpp's files cannot have either
    method  "mean": the mean of the differences; "pca": their first principal component, of the length of that mean, on
            the side of the first prompts
    """
    if method not in METHODS:
        raise UsageError(f"method is {shown(method)}, not one of {', '.join(METHODS)}")
    if not len(pairs):
        raise UsageError("a control vector needs at least one pair of prompts")
    wanted = range(1, model.n_layer) if layers is None else layers
    checked = [checked_int("layer", layer, 0, model.n_layer - 1) for layer in wanted]
    differences = np.stack([_after(model, one) - _after(model, other) for one, other in pairs], axis=1)
    return ControlVector({layer: _direction(differences[layer], method) for layer in checked})


def _after(model: LoadedModel, prompt: Tokens | str) -> Doubles:
    """[n_layer][n_embd]: resid_post of the last token."""
    tokens = checked_text(model, model.encode(prompt) if isinstance(prompt, str) else prompt, "a prompt")
    with model.session(len(tokens)) as session:
        if len(tokens) > 1:
            session.inspect(tokens[:-1])
        return session.inspect(tokens[-1:], "hidden")["hidden"][1:, 0].astype(np.float64)


def _direction(differences: Doubles, method: str) -> Doubles:
    """Of differences [n_pairs][n_embd]."""
    mean: Doubles = differences.mean(axis=0)
    if method == "mean":
        return mean
    axis = np.linalg.svd(differences, full_matrices=False)[2][0]
    return np.asarray(axis * np.linalg.norm(mean) * (1 if axis @ mean >= 0 else -1))
