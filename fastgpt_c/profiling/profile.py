"""Where the time of a session's steps goes: records by phase, layer and op, and events of every thread.

    with model.session() as session, session.profile() as p:
        logits = session.prefill(tokens)
        token = session.sample(sampler, logits)
    print(p.table())
    p.write_html(Path("profile.html"))

The formulas behind bytes and operations stand in fastgpt.h, at fastgpt_profile_record.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import as_path, checked_int
from fastgpt_c.native.lib import check, ffi, lib
from fastgpt_c.profiling import report, tables, trace
from fastgpt_c.profiling.machine import Roofline
from fastgpt_c.profiling.records import OPS, PHASES, Records, copied, facts_of, named, table


class Profiled(Protocol):
    """A source of steps to profile: a Session, or the RaggedStep of a batch."""

    n_threads: int
    is_profiled: bool

    def handles(self) -> AbstractContextManager[tuple[Any, Any]]:
        """The fastgpt_model * and fastgpt_context *, reserved for the caller in the block."""


class Profile(Records):
    """Times of the steps in a "with" block; made by Session.profile or Batch.profile, and complete after the block.

    records  structured array, a row for each phase, layer (from 0; -1 = outside of layers) and op: phase, layer, op,
             calls, ns, best_ns, bytes, operations
    events   structured array, one for each op and thread: start_ns, end_ns, step, phase, n_tokens, thread, layer, op
    phases   {"prefill": {"n_steps": ..., "n_tokens": ..., "ns": ...}, "decode": ...}
    n_events_lost, model, n_threads
             see profiling.records.Records, which describes every field

    One profile of a session or batch can run at a time.
    """

    def __init__(self, profiled: Profiled, n_events: int) -> None:
        self._profiled, self._n_events = profiled, checked_int("n_events", n_events, 0)
        with profiled.handles() as (model, _):
            facts = facts_of(model)
        nothing = table("fastgpt_profile_record", 0)[0], table("fastgpt_profile_event", 0)[0]
        super().__init__(facts, profiled.n_threads, *nothing, phases={}, n_events_lost=0)
        self._context: Any = None

    def __enter__(self) -> Profile:
        with self._profiled.handles() as (_, context):
            if self._profiled.is_profiled:
                raise UsageError("a profile of these steps has begun already")
            check(lib.fastgpt_profile_start(context, self._n_events))
            self._context, self._profiled.is_profiled = context, True
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._profiled.is_profiled = False
        lib.fastgpt_profile_stop(self._context)
        self.records = named(copied("fastgpt_profile_record", lib.fastgpt_profile_records, self._context))
        self.events = named(copied("fastgpt_profile_event", lib.fastgpt_profile_events, self._context))
        summary = ffi.new("fastgpt_profile_summary *")
        check(lib.fastgpt_profile_summarize(self._context, summary))
        for name in PHASES.tolist():
            phase = getattr(summary, name)
            self.phases[name] = {field: getattr(phase, field) for field in ("n_steps", "n_tokens", "ns")}
        self.n_events_lost = summary.n_events_lost
        self._context = None

    def seconds_so_far(self) -> dict[tuple[str, str], float]:
        """{(phase, op): seconds} since the block began; asked inside of it, between two steps, by the thread that runs
        them."""
        raw = copied("fastgpt_profile_record", lib.fastgpt_profile_records, self._context)
        ns = np.bincount(raw["phase"] * len(OPS) + raw["op"], weights=raw["ns"], minlength=len(PHASES) * len(OPS))
        names = product(PHASES.tolist(), OPS.tolist())
        return {name: float(value) / 1e9 for name, value in zip(names, ns, strict=True) if value}

    def __repr__(self) -> str:
        phases = [
            f"{name}: {phase['n_tokens']} tokens in {phase['n_steps']} step{'s' * (phase['n_steps'] != 1)}, "
            f"{phase['ns'] / 1e6:.3f} ms"
            for name, phase in self.phases.items()
            if phase["n_steps"]
        ]
        return f"Profile({'; '.join(phases) or 'no steps'})"

    # ---- Exports ----

    def report(self, roofline: Roofline | None = None) -> dict[str, Any]:
        """The profile as a dict for JSON, with shares of the time, and of the roofline where one is given."""
        return report.make_report(self, roofline)

    def table(self, roofline: Roofline | None = None, columns: int | None = None) -> str:
        """Tables for the terminal: for each phase by op, and by layer.  What is wider than so many columns is cut into
        several tables; None = never."""
        return tables.profile(self.report(roofline), columns)

    def write_trace(self, path: str | Path) -> None:
        """A file in Chrome's trace-event format, which https://ui.perfetto.dev opens.  Raises FastGPTError where it
        cannot be written."""
        trace.write_trace(as_path("path", path), self)

    def write_html(self, path: str | Path, roofline: Roofline | None = None, prompt: str | None = None) -> None:
        """One self-contained HTML page with charts and tables; its title names prompt, if that is given.  Raises
        FastGPTError where it cannot be written."""
        report.write_page(as_path("path", path), self.report(roofline), prompt)
