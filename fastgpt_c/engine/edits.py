"""What changes a step: edits of values, functions that are called with them, a start in the middle of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.sites import SITES, site_of
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, checked_int, float_array, shown
from fastgpt_c.native.lib import ffi, float_pointer

EditOp = Literal["set", "add", "scale", "zero", "mean", "project_out"]
_OPS: dict[str, int] = {op: number for number, op in enumerate(get_args(EditOp))}


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of the values of one site in one layer, before anything else reads them.

    layer  counted from 0; 0 for embed, pos_embed and ln_f, which have no layers
    site   a name of fastgpt_c.SITES
    op     "set": x = value; "add": x += value; "scale": x *= value; "zero": x = 0; "mean": x = value, a mean that you
           have taken over other inputs; "project_out": x -= d (x . d) / (d . d) for the direction d = value
    value  a number, or [width], or [n_positions][width] with a row for each position from first to last.  width is
           n_embd; n_ff for ff_pre and ff_post; n_embd / n_head for q, k, v and z with a head, without one also
           [n_head][n_embd / n_head]; for scores and pattern n_past after the step, of which a token reads as much as
           it sees.  Scores may be set or lowered to -infinity
    head   of q, k, v, z, scores and pattern, counted from 0; None = all of them
    first, last
           positions in the whole sequence, both included; last None = the end.  Those that the session has already stay
           as they are; one at least must be in the step

    A wrong name raises UsageError at once, wrong numbers when the step is asked for; then no session has changed.
    """

    layer: int
    site: str
    op: EditOp
    value: npt.ArrayLike | None = None
    head: int | None = None
    first: int = 0
    last: int | None = None

    def __post_init__(self) -> None:
        site_of(self.site)
        if self.op not in _OPS:
            raise UsageError(f"op is {shown(self.op)}, not one of {', '.join(_OPS)}")
        if (self.value is None) != (self.op == "zero"):
            raise UsageError(f"{self.op!r} takes {'no value' if self.op == 'zero' else 'a value'}")
        for name in ("first", "last", "head"):
            position = getattr(self, name)
            if position is not None and checked_int(name, position) < 0:
                raise UsageError(f"{name} is {position}, and is counted from 0")

    def rows(self, n_head: int, n_embd: int) -> Floats:
        """value as float32 [n_rows][n_values] for a model of that shape; [0][0] for "zero"."""
        if self.value is None:
            return np.zeros((0, 0), np.float32)
        array = float_array("value", self.value)
        if self.head is None and SITES[self.site].kind == "heads" and array.shape[-2:] == (n_head, n_embd // n_head):
            array = array.reshape(*array.shape[:-2], n_embd)
        if array.ndim > 2 or not array.size:
            raise UsageError(f"the value of an edit of {self.site} has the shape {np.shape(array)}")
        return np.atleast_2d(array)


def edit_array(edits: Sequence[Sequence[Edit]], n_head: int, n_embd: int) -> tuple[Any, list[Floats]]:
    """A fastgpt_edit[] of the edits of each span, and the arrays that it points to."""
    every = [(span, edit) for span, some in enumerate(edits) for edit in some]
    structs, kept = ffi.new("fastgpt_edit[]", len(every)), []
    for struct, (span, edit) in zip(structs, every, strict=True):
        if not isinstance(edit, Edit):
            raise UsageError(f"edits has {shown(edit)}, not an Edit")
        rows = edit.rows(n_head, n_embd)
        struct.span, struct.layer = span, checked_int("layer", edit.layer)
        struct.site, struct.op = SITES[edit.site].number, _OPS[edit.op]
        struct.head = -1 if edit.head is None else edit.head
        struct.first, struct.last = edit.first, -1 if edit.last is None else edit.last
        struct.n_rows, struct.n_values = rows.shape
        struct.value = float_pointer(rows) if rows.size else ffi.NULL
        kept.append(rows)
    return structs, kept
