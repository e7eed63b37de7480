"""The data of a profile: C's structs as NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.native.lib import check, ffi, lib

Rows = npt.NDArray[Any]

PHASES = np.array(["prefill", "decode"])
MODEL_SIZES = ("n_params", "n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "n_ff")
OPS = np.array([ffi.string(lib.fastgpt_op_name(op)).decode() for op in range(lib.FASTGPT_OP_STEP + 1)])


@dataclass(eq=False, repr=False)
class Records:
    """The times of steps, by op and as events.  Times are in nanoseconds; layers are counted from 0.

    records  structured array, a row for each op that ran, by phase, then in the order of a step
                 phase       "decode" for steps whose sessions all have one new token, else "prefill"
                 layer       -1 outside of layers
                 op          embed, ln_1, qkv, attention, attn_proj, ln_2, fc, gelu, proj, ln_f, lm_head, sample, and
                             "other": the rest of the steps' time
                 calls, ns   how often, and how long in all, in the thread that called the step
                 best_ns     of the fastest call, which other programs have disturbed least
                 bytes, operations  that the op needs, by closed formulas; a multiply-add is two operations
    events   structured array: start_ns, end_ns (of a monotonic clock), step (from 0), phase, n_tokens (of
             the step), thread, layer, op ("layer" and "step" besides: events of thread 0 around their ops)
    phases   {"prefill": {"n_steps": ..., "n_tokens": ..., "ns": ...}, "decode": ...}
    n_events_lost  events that were dropped for lack of memory, the oldest ones
    model    name, type and sizes of the model
    n_threads  of the steps
    """

    model: dict[str, Any]
    n_threads: int
    records: Rows
    events: Rows
    phases: dict[str, dict[str, int]]
    n_events_lost: int


def facts_of(model: Any) -> dict[str, Any]:
    """Name, type and sizes of a fastgpt_model *."""
    texts = {name: getattr(lib, f"fastgpt_model_{name}")(model) for name in ("name", "type")}
    sizes = {name: int(getattr(lib, f"fastgpt_model_{name}")(model)) for name in MODEL_SIZES}
    return {name: ffi.string(text).decode("utf-8", "replace") for name, text in texts.items()} | sizes


def table(struct: str, n: int) -> tuple[Rows, Any]:
    """An array of n structs, and the C pointer to it."""
    fields = ffi.typeof(struct).fields
    formats = {"int32_t": "i4", "int64_t": "i8"}
    layout: Any = {
        "names": [name for name, _ in fields],
        "formats": [formats[field.type.cname] for _, field in fields],
        "offsets": [field.offset for _, field in fields],
        "itemsize": ffi.sizeof(struct),
    }
    rows = np.zeros(n, np.dtype(layout))
    return rows, ffi.from_buffer(f"{struct}[]", rows.view(np.uint8)) if n else ffi.NULL


def copied(struct: str, get: Any, context: Any) -> Rows:
    """The structs that get, a function of the library, returns for a fastgpt_context *."""
    n = ffi.new("int32_t *")
    get(context, ffi.NULL, 0, n)
    rows, pointer = table(struct, n[0])
    check(get(context, pointer, len(rows), n))
    return rows


def named(raw: Rows) -> Rows:
    """A copy with names of phases and ops instead of their numbers."""
    texts = {"phase": PHASES, "op": OPS}
    names = raw.dtype.names or ()
    rows = np.zeros(len(raw), [(name, texts[name].dtype if name in texts else raw.dtype[name]) for name in names])
    for name in names:
        rows[name] = texts[name][raw[name]] if name in texts else raw[name]
    return rows
