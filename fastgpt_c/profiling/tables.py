"""A report as text for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

JSON = dict[str, Any]

ABOVE = ">100%"
OP_WIDTH, LAYER_WIDTH, CELL_WIDTH = 12, 5, 10  # characters of a column
LAYER_OPS = ("ln_1", "qkv", "attention", "attn_proj", "ln_2", "fc", "gelu", "proj")


def profile(report: JSON, columns: int | None = None) -> str:
    """Heading, and for each phase that has steps its ops and its layers; tables that are wider than so many columns of
    the terminal (None = any number) are cut into several."""
    parts = [_filled(_heading(report), columns)]
    if report["roofline"]:
        parts[0] += "\n" + _filled(_ceiling(report["roofline"]), columns)
    for name, phase in report["phases"].items():
        if phase["n_steps"]:
            ops, layers = _op_lines(report, name), _layer_lines(report, name)
            widths = list(_op_widths(report).values())
            parts += [_filled(_title(name, phase), columns), _fitted(ops, OP_WIDTH, widths, columns)]
            parts.append(_fitted(layers, LAYER_WIDTH, [CELL_WIDTH] * (len(LAYER_OPS) + 2), columns))
    if any(_is_above(row[name]) for row in report["ops"] for name in ("roofline", "roofline_at_best")):
        parts.append(
            _filled(f"{ABOVE}: faster than the measured memory bandwidth, so the op read from a cache", columns)
        )
    if report["n_events_lost"]:
        lost = f"{report['n_events_lost']} events are lost to the trace; the tables are complete"
        parts.append(_filled(lost, columns))
    return "\n\n".join(parts)


def _filled(text: str, columns: int | None) -> str:
    return text if columns is None else textwrap.fill(text, columns)


def _fitted(lines: Iterable[str], first: int, widths: list[int], columns: int | None) -> str:
    """A table whose first column is so wide, and the others as widths say: as one, or as several of no more columns of
    the terminal, one below the other, each with the first column."""
    rows = list(lines)
    if columns is None or first + sum(widths) <= columns:
        return "\n".join(rows)
    parts, begin, end = [], first, first
    for width in [*widths, columns]:
        if end > begin and first + end - begin + width > columns:
            parts.append("\n".join((row[:first].ljust(first) + row[begin:end]).rstrip() for row in rows))
            begin = end
        end += width
    return "\n\n".join(parts)


def _heading(report: JSON) -> str:
    model, machine = report["model"], report["machine"]
    threads = "thread" if report["n_threads"] == 1 else "threads"
    return (
        f"{model['name'] or 'a model'}, {model['type']}, {report['n_threads']} {threads} on "
        f"{machine['cpu'] or 'an unknown CPU'} ({machine['kernels']})"
    )


def _ceiling(ceiling: JSON) -> str:
    kinds = sorted({"f32", ceiling["arithmetic"]})
    rates = " and ".join(f"{ceiling[f'{kind}_operations_per_second'] / 1e9:.0f} {kind}" for kind in kinds)
    return f"ceiling: {ceiling['read_bytes_per_second'] / 1e9:.1f} GB/s, {rates} GFLOP/s"


def _title(name: str, phase: JSON) -> str:
    steps, tokens, ns = phase["n_steps"], phase["n_tokens"], phase["ns"]
    plural = "" if steps == 1 else "s"
    return (
        f"{name}: {tokens} tokens in {steps} step{plural}, {1e-6 * ns / steps:.3f} ms a step, "
        f"{1e9 * tokens / max(ns, 1):.1f} tokens/s"
    )


def _op_widths(report: JSON) -> dict[str, int]:
    """Columns behind the name of the op, by their heads."""
    widths = {"ms a step": 10, "share": 8, "calls": 8, "GB/s": 9, "GFLOP/s": 10}
    return widths | {"of roofline": 13, "at best": 9} if report["roofline"] else widths


def _op_lines(report: JSON, phase: str) -> Iterator[str]:
    n_steps = report["phases"][phase]["n_steps"]
    yield f"{'op':{OP_WIDTH}}" + "".join(f"{head:>{width}}" for head, width in _op_widths(report).items())
    for row in report["ops"]:
        if row["phase"] == phase:
            rates = "".join(_rate(row[kind], row["ns"], width) for kind, width in (("bytes", 9), ("operations", 10)))
            of = "".join(_percent(row[name], width) for name, width in (("roofline", 13), ("roofline_at_best", 9)))
            ms = 1e-6 * row["ns"] / n_steps
            yield f"{row['op']:{OP_WIDTH}}{ms:10.3f}{row['share']:8.1%}{row['calls']:8}{rates}{of}".rstrip()


def _percent(share: float | None, width: int) -> str:
    """Of the roofline."""
    text = "" if share is None else ABOVE if _is_above(share) else f"{share:.0%}"
    return f"{text:>{width}}"


def _is_above(share: float | None) -> bool:
    """Whether a fraction of the roofline is above 1, where its value is meaningless."""
    return share is not None and share >= 1.005  # less is shown as 100%


def _rate(amount: int, ns: int, width: int) -> str:
    return f"{amount / ns:{width}.1f}" if amount and ns else " " * width


def _layer_lines(report: JSON, phase: str) -> Iterator[str]:
    """Milliseconds a step of each layer and op."""
    n_steps = report["phases"][phase]["n_steps"]
    total = max(sum(row["ns"] for row in report["ops"] if row["phase"] == phase), 1)
    layers: dict[int, dict[str, int]] = {}
    for r in report["records"]:
        if r["phase"] == phase and r["layer"] >= 0:
            layers.setdefault(r["layer"], {})[r["op"]] = r["ns"]
    yield f"{'layer':>{LAYER_WIDTH}}" + "".join(f"{op:>{CELL_WIDTH}}" for op in (*LAYER_OPS, "all, ms", "share"))
    for layer, ops in layers.items():
        whole = sum(ops.values())
        cells = "".join(f"{1e-6 * ns / n_steps:10.3f}" for ns in (*(ops.get(op, 0) for op in LAYER_OPS), whole))
        yield f"{layer:{LAYER_WIDTH}}{cells}{whole / total:10.1%}"


# ---- Two of them ------------------------------------------------------------------------------------------


def comparison(a: JSON, b: JSON) -> str:
    """Two reports side by side: milliseconds a step of each op, the largest change first."""
    parts = [f"A: {_heading(a)}\nB: {_heading(b)}"]
    for phase in a["phases"]:
        counts = [report["phases"][phase] for report in (a, b)]
        if all(count["n_steps"] for count in counts):
            parts.append("\n".join(_comparison_lines(a, b, phase)))
    if len(parts) == 1:
        parts.append("no phase has steps in both of them")
    return "\n\n".join(parts)


def _comparison_lines(a: JSON, b: JSON, phase: str) -> Iterator[str]:
    tokens = [report["phases"][phase]["n_tokens"] / report["phases"][phase]["n_steps"] for report in (a, b)]
    before, after = (_ms_by_op(report, phase) for report in (a, b))
    rows = [(op, before.get(op, 0.0), after.get(op, 0.0)) for op in dict.fromkeys([*before, *after])]
    rows.sort(key=lambda row: -abs(row[2] - row[1]))
    yield f"{phase}, ms a step of {tokens[0]:g} tokens in A and {tokens[1]:g} in B"
    yield f"{'op':12}{'A':>10}{'B':>10}{'B - A':>10}{'B / A':>8}"
    for op, x, y in [*rows, ("all", *_sums(rows))]:
        ratio = f"{y / x:8.2f}" if x else ""
        yield f"{op:12}{x:10.3f}{y:10.3f}{y - x:+10.3f}{ratio}"


def _ms_by_op(report: JSON, phase: str) -> dict[str, float]:
    n_steps = report["phases"][phase]["n_steps"]
    return {row["op"]: 1e-6 * row["ns"] / n_steps for row in report["ops"] if row["phase"] == phase}


def _sums(rows: Iterable[tuple[str, float, float]]) -> tuple[float, float]:
    rows = list(rows)
    return sum(row[1] for row in rows), sum(row[2] for row in rows)
