"""Activation patching: which values of one run, put into another, bring back its answer (Meng et al. 2022, arXiv
2202.05262; Wang et al. 2022, arXiv 2211.00593; Heimersheim and Nanda 2024, arXiv 2404.15255)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.edits import Edit
from fastgpt_c.engine.reader import common_prefix_length
from fastgpt_c.engine.sites import SITES, site_of
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, Tokens, shown
from fastgpt_c.patching.runs import MAX_TOKENS_IN_FLIGHT, Doubles, Sweep, checked_text

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

AXES = ("layer", "position", "source", "head")


class Cell(NamedTuple):
    """What one run patches; None = all of them."""

    layer: int
    position: int | None = None
    source: int | None = None
    head: int | None = None


def act_patch(
    model: LoadedModel,
    clean: Tokens,
    corrupted: Tokens,
    metric: object,
    sites: str | Sequence[str] = "resid_pre",
    by: Sequence[str] | None = None,
    *,
    max_tokens_in_flight: int = MAX_TOKENS_IN_FLIGHT,
    progress: bool | None = None,
    deterministic: bool = False,
) -> Doubles:
    """Runs the corrupted text once for each part of a site, with that part's values taken from the clean text.

    clean, corrupted  tokens of two texts, equally many
    metric   what is measured: logit_difference(model, " Mary", " John"), log_probability, kl_divergence, mean_loss, or
             a function of the logits [n_vocab] after the last token
    sites    a site of every layer: "resid_pre", "attn_out", "ff_out", "z", "q", "pattern" ... (fastgpt_c.SITES),
             or several of them
    by       the axes of the result, of "layer", "position", "head" and, for pattern and scores, "source", the position
             that is read; None = layer and position, for q, k, v, z, scores and pattern layer and head.  An axis that
             is left out is patched as a whole, but for "layer", which must be there
    max_tokens_in_flight, progress, deterministic   see Sweep

    Returns float64 with the axes of `by`, in that order; of several sites, [n_sites] first.  Positions at which both
    texts begin alike need no run: the values there are the same, and so is the metric.  What TransformerLens calls
    get_act_patch_resid_pre is act_patch(..., "resid_pre"); get_act_patch_attn_head_out_by_pos is by=("layer",
    "position", "head") of "z".  Raises UsageError, ContextFullError; Ctrl-C ends it at once.
    """
    names = [sites] if isinstance(sites, str) else list(sites)
    axes = [_axes(name, by) for name in names]
    if not names or len({*axes}) > 1:
        raise UsageError(f"sites are {shown(sites)}: give at least one, and by, if their axes differ")
    good, bad = checked_pair(model, clean, corrupted)
    with model.session(len(good)) as session:
        values = session.inspect(good, sites=names)
    with Sweep(
        model, bad, metric, max_tokens_in_flight=max_tokens_in_flight, progress=progress, deterministic=deterministic
    ) as sweep:
        before: dict[str, Floats] = {}
        if "source" in axes[0]:
            with model.session(len(bad)) as session:
                before = session.inspect(bad, sites=names)
        n_same = common_prefix_length(good.tolist(), bad.tolist())
        shape = tuple(_size(model, len(bad), axis) for axis in axes[0])
        runs = [
            _patches(name, Cell(**dict(zip(axes[0], index, strict=True))), values[name], before.get(name), n_same)
            for name in names
            for index in product(*map(range, shape))
        ]
        found = sweep.run(runs).reshape(len(names), *shape)
    return found[0] if isinstance(sites, str) else found


def checked_pair(
    model: LoadedModel, clean: Tokens, corrupted: Tokens
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Both texts; raises UsageError unless they have equally many tokens."""
    good, bad = checked_text(model, clean, "the clean text"), checked_text(model, corrupted, "the corrupted text")
    if len(good) != len(bad):
        raise UsageError(
            f"the clean text has {len(good)} tokens, the corrupted one {len(bad)}: patching needs equally many, so "
            "replace words by others of as many tokens"
        )
    return good, bad


def _axes(name: str, by: Sequence[str] | None) -> tuple[str, ...]:
    site = site_of(name)
    if not site.has_layers:
        raise UsageError(f"{name} has no layers to patch one by one; there are {_sites_with_layers()}")
    has_heads = site.kind in ("heads", "keys")
    axes = (("layer", "head") if has_heads else ("layer", "position")) if by is None else tuple(by)
    for axis in axes:
        if axis not in AXES or axes.count(axis) > 1:
            raise UsageError(f"by has {shown(axis)}; it is made of {', '.join(AXES)}, each once")
        if (axis == "head" and not has_heads) or (axis == "source" and site.kind != "keys"):
            raise UsageError(f"{name} is not made of {'heads' if axis == 'head' else 'sources'}: leave {axis!r} out")
    if "layer" not in axes:
        raise UsageError("by needs 'layer'")
    if "source" in axes and "position" not in axes:
        raise UsageError("by 'source' needs 'position', too")
    return axes


def _sites_with_layers() -> str:
    return ", ".join(name for name, site in SITES.items() if site.has_layers)


def _size(model: LoadedModel, n_tokens: int, axis: str) -> int:
    return {"layer": model.n_layer, "head": model.n_head}.get(axis, n_tokens)


def _patches(name: str, cell: Cell, clean: Floats, corrupted: Floats | None, n_same: int) -> list[Edit]:
    """The edits that put clean values [n_layer] ... of a site where the cell says; none where both runs are the same.

    corrupted  the same of the other run, for a cell with a source
    n_same     positions at the beginning where both texts are alike
    """
    n_tokens = clean.shape[2] if SITES[name].kind == "keys" else clean.shape[1]
    first, last = (n_same, n_tokens - 1) if cell.position is None else (cell.position, cell.position)
    if last < n_same:
        return []
    if SITES[name].kind == "keys":
        return _key_patches(name, cell, clean[cell.layer], corrupted, (first, last))
    rows = clean[cell.layer, first : last + 1]
    if SITES[name].kind == "heads":
        rows = rows.reshape(len(rows), -1) if cell.head is None else rows[:, cell.head]
    return [Edit(cell.layer, name, "set", rows, cell.head, first, last)]


def _key_patches(
    name: str, cell: Cell, clean: Floats, corrupted: Floats | None, positions: tuple[int, int]
) -> list[Edit]:
    """For a site whose rows are keys, [n_head][n_tokens][n_keys]: an edit for each head."""
    first, last = positions
    if cell.source is not None and cell.source > last:
        return []  # no position reads a later one
    edits = []
    for head in range(len(clean)) if cell.head is None else [cell.head]:
        rows = clean[head, first : last + 1]
        if cell.source is not None and corrupted is not None:
            rows, source = corrupted[cell.layer, head, first : last + 1].copy(), cell.source
            rows[:, source] = clean[head, first : last + 1, source]
        # What a token does not see is never read: any finite number will do.
        edits.append(Edit(cell.layer, name, "set", np.nan_to_num(rows, neginf=0.0), head, first, last))
    return edits
