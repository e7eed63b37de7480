"""Path patching: what one head tells another, and nobody else (Wang et al. 2022, "Interpretability in the Wild", arXiv
2211.00593; Goldowsky-Dill et al. 2023, arXiv 2304.05969)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.edits import Edit
from fastgpt_c.engine.reader import common_prefix_length
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, Tokens, checked_int, shown
from fastgpt_c.patching.activation import checked_pair
from fastgpt_c.patching.runs import MAX_TOKENS_IN_FLIGHT, Doubles, Sweep

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

COMPONENTS = ("q", "k", "v")


def path_patch(
    model: LoadedModel,
    clean: Tokens,
    corrupted: Tokens,
    metric: object,
    sender: tuple[int, int],
    component: str = "q",
    *,
    direct: bool = True,
    max_tokens_in_flight: int = MAX_TOKENS_IN_FLIGHT,
    progress: bool | None = None,
    deterministic: bool = False,
) -> Doubles:
    """The corrupted text, but with what the sender would write in the clean one in the queries ("q"), keys ("k") or
    values ("v") of one later head.

    sender  (layer, head)
    direct  True: the receiver alone sees the sender's clean output, as if it stood in the residual stream that it reads
            (TransformerLens's get_act_patch_direct_path).  False: it sees what the sender changes on all ways, through
            any layers between
    the others are as in act_patch

    Returns float64 [n_layer][n_head]: the metric for each receiver; NaN where that is not in a later layer.
    """
    if component not in COMPONENTS:
        raise UsageError(f"component is {shown(component)}, not one of {', '.join(COMPONENTS)}")
    try:
        layer, head = sender
    except (TypeError, ValueError):
        raise UsageError(f"sender is {shown(sender)}, not a pair of layer and head") from None
    checked_int("the sender's layer", layer, 0, model.n_layer - 1)
    checked_int("the sender's head", head, 0, model.n_head - 1)
    good, bad = checked_pair(model, clean, corrupted)
    n_same = common_prefix_length(good.tolist(), bad.tolist())
    found = np.full((model.n_layer, model.n_head), np.nan)
    with Sweep(
        model, bad, metric, max_tokens_in_flight=max_tokens_in_flight, progress=progress, deterministic=deterministic
    ) as sweep:
        if n_same == len(good):
            found[layer + 1 :] = sweep.baseline
            return found
        received = (_directly if direct else _on_all_ways)(model, (good, bad), n_same, (layer, head), component)
        receivers = [(later, reader) for later in range(layer + 1, model.n_layer) for reader in range(model.n_head)]
        values = sweep.run(
            [[Edit(later, component, "set", received[later, :, reader], reader, n_same)] for later, reader in receivers]
        )
    for (later, reader), value in zip(receivers, values, strict=True):
        found[later, reader] = value
    return found


Pair = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


def _on_all_ways(model: LoadedModel, pair: Pair, n_same: int, sender: tuple[int, int], component: str) -> Floats:
    """[n_layer][n_tokens - n_same][n_head][n_embd / n_head]: what receivers read in a run whose sender is the clean
    one."""
    (good, bad), (layer, head) = pair, sender
    clean = _inspected(model, good, "z")["z"][layer, n_same:, head]
    patched = _inspected(model, bad, component, edits=[Edit(layer, "z", "set", clean, head, n_same)])
    return patched[component][:, n_same:]


def _directly(model: LoadedModel, pair: Pair, n_same: int, sender: tuple[int, int], component: str) -> Floats:
    """The same, if the sender's clean output is added to the corrupted residual stream before each later layer."""
    (good, bad), (layer, head) = pair, sender
    width = model.n_embd // model.n_head
    writes = model.tensor(f"blk.{layer}.attn_output.weight")[:, head * width : (head + 1) * width]
    corrupted = _inspected(model, bad, "z", "resid_pre")
    change = (_inspected(model, good, "z")["z"] - corrupted["z"])[layer, n_same:, head] @ writes.T
    received = np.zeros((model.n_layer, len(change), model.n_head, width), np.float32)
    for later in range(layer + 1, model.n_layer):
        reads = _component_of(model, later, component, corrupted["resid_pre"][later, n_same:] + change)
        received[later] = reads.reshape(len(change), model.n_head, width)
    return received


def _inspected(
    model: LoadedModel, tokens: npt.NDArray[np.int32], *sites: str, edits: list[Edit] | None = None
) -> dict[str, Floats]:
    with model.session(len(tokens)) as session:
        return session.inspect(tokens, sites=sites, edits=edits or [])


def _component_of(model: LoadedModel, layer: int, component: str, resid: Floats) -> Floats:
    """Queries, keys or values [n_tokens][n_embd] that a layer reads from resid [n_tokens][n_embd]."""
    x = resid.astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    x /= np.sqrt((x * x).mean(axis=1, keepdims=True) + model.layer_norm_epsilon)
    x = x * model.tensor(f"blk.{layer}.attn_norm.weight") + model.tensor(f"blk.{layer}.attn_norm.bias")
    part = slice(COMPONENTS.index(component) * model.n_embd, (COMPONENTS.index(component) + 1) * model.n_embd)
    rows = model.tensor(f"blk.{layer}.attn_qkv.weight")[part]
    return np.asarray(x @ rows.T + model.tensor(f"blk.{layer}.attn_qkv.bias")[part], np.float32)
