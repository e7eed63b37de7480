"""A profile as JSON: what the command prints, the page shows, and  --compare  reads again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastgpt_c.errors import FastGPTError
from fastgpt_c.io.checked_json import read_json
from fastgpt_c.io.html_page import write_page as write_html_page
from fastgpt_c.profiling import machine
from fastgpt_c.profiling.machine import Roofline
from fastgpt_c.profiling.records import Records

JSON = dict[str, Any]

KIND = "fastgpt-c profile"
FORMAT = 1  # of the report: another number when a field means something else
PHASE = {"n_steps": int, "n_tokens": int, "ns": int}
SHAPE = {  # of what a comparison looks at
    "model": {"name": str, "type": str},
    "machine": {"cpu": (str, type(None)), "kernels": str},
    "n_threads": int,
    "phases": {"prefill": PHASE, "decode": PHASE},
    "ops": [{"phase": str, "op": str, "ns": int}],
}
N_OF_TITLE = 50  # characters of a prompt
PRODUCTS = ("qkv", "attn_proj", "fc", "proj", "lm_head")  # ops that multiply by weights


def make(profile: Records, roofline: Roofline | None) -> JSON:
    """
    model, machine, n_threads
    roofline    machine.Roofline's fields and "arithmetic", the kind that weight products are compared with; or None
    phases      {phase: {n_steps, n_tokens, ns}}
    records     one for each phase, layer and op
    ops         the same, summed over the layers (also best_ns), with "share" of the phase's time, sampling included;
                "roofline": the least time that the op's bytes and operations take on this machine, as a part of its
                time, and "roofline_at_best": were all calls as fast as the fastest; None where it means nothing.
                Above 1 memory was not what it waited for: what it reads was in a cache
    steps       one for each step whose events are all there: step, phase, n_tokens, start_ns (from the first of them),
                ns, sample_ns, and "ops": nanoseconds of each op
    """
    facts = machine.facts()
    ceiling = None if roofline is None else asdict(roofline) | {"arithmetic": _arithmetic(profile.model, roofline)}
    records = [dict(zip(profile.records.dtype.names or (), row.tolist(), strict=True)) for row in profile.records]
    return {
        "kind": KIND,
        "format": FORMAT,
        "version": facts["version"],
        "model": profile.model,
        "machine": {name: facts[name] for name in ("cpu", "kernels", "blas")},
        "n_threads": profile.n_threads,
        "roofline": ceiling,
        "phases": profile.phases,
        "records": records,
        "ops": list(_ops(records, ceiling)),
        "steps": _steps(profile),
        "n_events_lost": profile.n_events_lost,
    }


def write_page(path: Path, report: JSON, prompt: str | None = None) -> None:
    """The report as a page, whose title names the model and the beginning of the prompt.  Raises FastGPTError where it
    cannot be written."""
    title = f"Where the time goes: {report['model']['name'] or 'a model'}"
    if prompt is not None:
        beginning = " ".join(prompt.split())
        title += f", after “{beginning[:N_OF_TITLE]}{'…' * (len(beginning) > N_OF_TITLE)}”"
    write_html_page(path, "profile", title, report)


def read(path: Path) -> JSON:
    """A report that was written as JSON.  Raises FastGPTError where path cannot be read, or holds something else."""
    report = read_json(path)
    if report.get("kind") != KIND or report.get("format") != FORMAT or not _fits(report, SHAPE):
        raise FastGPTError(f"{path}: is not a profile; make one with  fastgpt-c profile --json")
    return report


def _fits(value: object, shape: Any) -> bool:
    """Whether a value of JSON has what shape has: keys, elements of lists, types; counts are below 2^63."""
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(_fits(value.get(key), part) for key, part in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(element, shape[0]) for element in value)
    if shape is int:
        return type(value) is int and 0 <= value < 2**63
    return isinstance(value, shape)


def _arithmetic(model: JSON, roofline: Roofline) -> str:
    """The best that the machine has for weights of the model's type: their own, or F32, to which all can be widened."""
    own = "int8" if model["type"].startswith("Q") else model["type"].lower()
    kinds = ("f32", own) if own in ("int8", "bf16") else ("f32",)
    return max(kinds, key=lambda kind: float(getattr(roofline, f"{kind}_operations_per_second")))


def _least_ns(record: JSON, ceiling: JSON) -> float:
    """What the roofline says (Williams, Waterman and Patterson 2009)."""
    kind = ceiling["arithmetic"] if record["op"] in PRODUCTS else "f32"
    rate = ceiling[f"{kind}_operations_per_second"]
    return float(1e9 * max(record["bytes"] / ceiling["read_bytes_per_second"], record["operations"] / rate))


def _ops(records: Iterable[JSON], ceiling: JSON | None) -> Iterable[JSON]:
    by_op: dict[tuple[str, str], list[JSON]] = {}
    totals: dict[str, int] = {}
    for r in records:
        by_op.setdefault((r["phase"], r["op"]), []).append(r)
        totals[r["phase"]] = totals.get(r["phase"], 0) + r["ns"]
    for (phase, op), rows in by_op.items():
        sums = {name: sum(r[name] for r in rows) for name in ("calls", "ns", "best_ns", "bytes", "operations")}
        row = {"phase": phase, "op": op, **sums, "share": sums["ns"] / max(totals[phase], 1)}
        yield row | {"roofline": None, "roofline_at_best": None} | (_of_roofline(rows, ceiling) if ceiling else {})


def _of_roofline(rows: list[JSON], ceiling: JSON) -> dict[str, float]:
    """For records of one op."""
    least, ns, best_ns = sum(_least_ns(r, ceiling) for r in rows), sum(r["ns"] for r in rows), _best_ns(rows)
    if not least or not ns:
        return {}
    return {"roofline": least / ns} | ({"roofline_at_best": least / best_ns} if best_ns else {})


def _best_ns(rows: list[JSON]) -> int:
    """Nanoseconds, were all calls as fast as the fastest; 0 where calls differ in what they have to do: those of
    attention, since the past grows, and slices of a prefill."""
    alike = all(r["calls"] == 1 or (r["phase"] == "decode" and r["op"] != "attention") for r in rows)
    return sum(r["calls"] * r["best_ns"] for r in rows) if alike else 0


def _steps(profile: Records) -> list[JSON]:
    events = profile.events[profile.events["thread"] == 0]
    if profile.n_events_lost and len(events):
        events = events[events["step"] > events["step"].min()]  # the first of those that are left has lost some
    whole = {int(e["step"]): e for e in events[events["op"] == "step"]}
    zero = min((int(e["start_ns"]) for e in whole.values()), default=0)
    steps = {
        number: {
            "step": number, "phase": str(e["phase"]), "n_tokens": int(e["n_tokens"]),
            "start_ns": int(e["start_ns"]) - zero, "ns": int(e["end_ns"] - e["start_ns"]), "sample_ns": 0, "ops": {},
        }
        for number, e in whole.items()
    }  # fmt: skip
    for number, op, ns in zip(*_columns(events), strict=True):
        if number not in steps or op in ("step", "layer"):
            continue
        step: JSON = steps[number]
        if op == "sample":
            step["sample_ns"] += ns
        else:
            step["ops"][op] = step["ops"].get(op, 0) + ns
    return list(steps.values())


def _columns(events: Any) -> tuple[list[int], list[str], list[int]]:
    return events["step"].tolist(), events["op"].tolist(), (events["end_ns"] - events["start_ns"]).tolist()
