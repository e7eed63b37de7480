"""A profile as a trace that Perfetto and chrome://tracing open.

Format: "Trace Event Format" (Google), events "B" and "E" in the order of a thread's time, in microseconds.  A reader
that rounds them keeps that order, so that spans still nest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from fastgpt_c.io.atomic_files import write_text
from fastgpt_c.profiling.records import Records

JSON = dict[str, Any]


def write_trace(path: Path, profile: Records) -> None:
    """Writes the trace as JSON.  Raises FastGPTError where path cannot be written."""
    write_text(path, json.dumps(make_trace(profile), separators=(",", ":")))


def make_trace(profile: Records) -> JSON:
    """The trace as a dict: a row for each thread; in the first, steps contain layers, which contain ops."""
    return {
        "traceEvents": [*_names(profile), *_spans(profile)],
        "displayTimeUnit": "ms",
        "otherData": {"model": profile.model["name"], "events_lost": profile.n_events_lost},
    }


def _names(profile: Records) -> Iterator[JSON]:
    names = [("process_name", 0, f"fastgpt-c {profile.model['name']}"), ("thread_name", 0, "steps")]
    names += [("thread_name", thread, f"worker {thread}") for thread in range(1, profile.n_threads)]
    for kind, thread, name in names:
        yield {"ph": "M", "name": kind, "pid": 1, "tid": thread, "args": {"name": name}}


def _spans(profile: Records) -> Iterator[JSON]:
    events = [dict(zip(profile.events.dtype.names or (), row.tolist(), strict=True)) for row in profile.events]
    zero = min((e["start_ns"] for e in events), default=0)
    depths = {"step": 0, "layer": 1}
    events.sort(key=lambda e: (e["thread"], e["start_ns"], depths.get(e["op"], 2)))
    for _, rows in groupby(events, key=lambda e: e["thread"]):
        open_spans: list[JSON] = []
        for e in rows:
            yield from _ends(open_spans, e["start_ns"], zero)
            args = {"step": e["step"]} | ({"layer": e["layer"]} if e["layer"] >= 0 else {})
            kind = e["op"] if e["op"] in depths else "op"
            yield _event("B", e, e["start_ns"] - zero) | {"cat": kind, "args": args}
            open_spans.append(e)
        yield from _ends(open_spans, math.inf, zero)


def _ends(open_spans: list[JSON], until: float, zero: int) -> Iterator[JSON]:
    """The ends of the spans that are over by then, the innermost first."""
    while open_spans and open_spans[-1]["end_ns"] <= until:
        e = open_spans.pop()
        yield _event("E", e, e["end_ns"] - zero)


def _event(phase: str, e: JSON, ns: int) -> JSON:
    return {"ph": phase, "name": _name(e), "pid": 1, "tid": e["thread"], "ts": ns / 1000}


def _name(event: JSON) -> str:
    if event["op"] == "layer":
        return f"layer {event['layer']}"
    if event["op"] != "step":
        return str(event["op"])
    n = event["n_tokens"]
    return f"{event['phase']} {n} token{'s' if n > 1 else ''}"
