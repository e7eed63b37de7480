"""Where the time of a session's steps goes: records by phase, layer and op, and events of every thread.

    with model.session() as session, session.profile() as p:
        logits = session.prefill(tokens)
        token = session.sample(sampler, logits)
    print(p.table())
    p.write_html(Path("profile.html"))

The formulas behind bytes and operations stand in fastgpt.h, at fastgpt_profile_record.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from fastgpt_c._lib import check, ffi, lib
from fastgpt_c.arguments import as_path
from fastgpt_c.errors import UsageError
from fastgpt_c.profiling import report, tables, trace
from fastgpt_c.session import checked_int

if TYPE_CHECKING:
    from fastgpt_c.system import Roofline

Records = npt.NDArray[Any]

PHASES = np.array(["prefill", "decode"])
MODEL_SIZES = ("n_params", "n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "n_ff")
OPS = np.array([ffi.string(lib.fastgpt_op_name(op)).decode() for op in range(lib.FASTGPT_OP_STEP + 1)])


class Profiled(Protocol):
    """Whose steps a profile times: a Session, or the RaggedStep of a batch."""

    n_threads: int
    is_profiled: bool
    _model: Any

    def start_profile(self, n_events: int) -> Any: ...


class Profile:
    """What happened between "with" and the end of its block, in the session or batch that it was made by.

    records  structured array, a row for each op that ran, by phase, then in the order of a step
                 phase       "decode" for steps whose sessions all have one new token, else "prefill"
                 layer       -1 outside of layers
                 op          embed, ln_1, qkv, attention, attn_proj, ln_2, fc, gelu, proj, ln_f, lm_head, sample, and
                             "other": what is left of the steps' time
                 calls, ns   how often, and how long in all, in the thread that called the step
                 best_ns     of the fastest call, which other programs disturbed least
                 bytes, operations  what the op needs, by closed formulas; a multiply-add is two operations
    events   structured array: start_ns, end_ns (of a clock that never goes back), step (from 0), phase, n_tokens (of
             the step), thread, layer, op ("layer" and "step" besides: events of thread 0 around their ops)
    phases   {"prefill": {"n_steps": ..., "n_tokens": ..., "ns": ...}, "decode": ...}
    n_events_lost  the oldest ones, for which there was no room
    model    name, type and sizes of the model
    """

    def __init__(self, profiled: Profiled, n_events: int) -> None:
        self._profiled, self._n_events = profiled, checked_int("n_events", n_events, 0)
        if profiled._model is None:
            raise UsageError("the session is closed")
        self.model = _facts_of(profiled._model)
        self.n_threads = profiled.n_threads
        self._context: Any = None
        self.records: Records = _table("fastgpt_profile_record", 0)[0]
        self.events: Records = _table("fastgpt_profile_event", 0)[0]
        self.phases: dict[str, dict[str, int]] = {}
        self.n_events_lost = 0

    def __enter__(self) -> Profile:
        context = self._profiled.start_profile(self._n_events)
        self._context, self._profiled.is_profiled = context, True  # no call from here on that a signal could follow
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._profiled.is_profiled = False
        lib.fastgpt_profile_stop(self._context)
        self.records = _named(_copied("fastgpt_profile_record", lib.fastgpt_profile_records, self._context))
        self.events = _named(_copied("fastgpt_profile_event", lib.fastgpt_profile_events, self._context))
        summary = ffi.new("fastgpt_profile_summary *")
        check(lib.fastgpt_profile_summarize(self._context, summary))
        for name in PHASES.tolist():
            phase = getattr(summary, name)
            self.phases[name] = {field: getattr(phase, field) for field in ("n_steps", "n_tokens", "ns")}
        self.n_events_lost = summary.n_events_lost
        self._context = None

    # ---- Exports ----

    def report(self, roofline: Roofline | None = None) -> dict[str, Any]:
        """All of it as JSON can hold it, with shares of the time, and of the roofline where one is given."""
        return report.make(self, roofline)

    def table(self, roofline: Roofline | None = None) -> str:
        """Tables for the terminal: for each phase by op, and by layer."""
        return tables.profile(self.report(roofline))

    def write_trace(self, path: str | Path) -> None:
        """Chrome's trace-event format, which https://ui.perfetto.dev opens.  Raises FastGPTError for the file."""
        trace.write(as_path("path", path), self)

    def write_html(self, path: str | Path, roofline: Roofline | None = None) -> None:
        """One page with the charts and the table, which needs no network.  Raises FastGPTError for the file."""
        report.write_page(as_path("path", path), self.report(roofline))


def _facts_of(model: Any) -> dict[str, Any]:
    """Of a fastgpt_model *."""
    texts = {name: getattr(lib, f"fastgpt_model_{name}")(model) for name in ("name", "type")}
    sizes = {name: int(getattr(lib, f"fastgpt_model_{name}")(model)) for name in MODEL_SIZES}
    return {name: ffi.string(text).decode("utf-8", "replace") for name, text in texts.items()} | sizes


# ---- From C's structs to arrays --------------------------------------------------------------------------


def _table(struct: str, n: int) -> tuple[Records, Any]:
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


def _copied(struct: str, get: Any, context: Any) -> Records:
    n = ffi.new("int32_t *")
    get(context, ffi.NULL, 0, n)
    rows, pointer = _table(struct, n[0])
    check(get(context, pointer, len(rows), n))
    return rows


def _named(raw: Records) -> Records:
    """The same with names of phases and ops in place of their numbers."""
    texts = {"phase": PHASES, "op": OPS}
    names = raw.dtype.names or ()
    named = np.zeros(len(raw), [(name, texts[name].dtype if name in texts else raw.dtype[name]) for name in names])
    for name in names:
        named[name] = texts[name][raw[name]] if name in texts else raw[name]
    return named
