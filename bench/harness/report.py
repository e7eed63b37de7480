"""From samples to tables: medians, ratios, and each row's share of what the machine can do."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.measure import Results, Row
from harness.plan import ENGINES, OURS, PRECISIONS, WORKS, Work

GB = 1e9


@dataclass(frozen=True)
class Line:
    """A row of the table.

    ratio      median over the rounds of theirs / ours; None for our own, or where we have no time
    share      of the read bandwidth, that the weights alone account for; None where bytes do not decide
    """

    row: Row
    median: float
    least: float
    ratio: float | None
    n_bytes: int | None
    embedding: str
    share: float | None


def ratio_of(theirs: Sequence[float], ours: Sequence[float]) -> float | None:
    """Median of the ratios of neighbouring runs, which saw the same noise."""
    pairs = list(zip(theirs, ours, strict=False))
    return statistics.median(a / b for a, b in pairs) if pairs else None


def lines(results: Results) -> list[Line]:
    """One for each row that has samples, in the order of the rows."""
    ours = {_key(row): row for row in reversed(results.rows) if row.engine == OURS and row.seconds}
    files = {entry["entry"]: entry for entry in results.files}
    bandwidth = bandwidths(results)
    return [_line(row, ours.get(_key(row)), files, bandwidth) for row in results.rows if row.seconds]


def _key(row: Row) -> tuple[str, str, int]:
    return row.work, row.precision, row.n_threads


def _line(row: Row, ours: Row | None, files: dict[str, dict[str, Any]], bandwidth: dict[int, float]) -> Line:
    median = statistics.median(row.seconds)
    file = files.get(f"{row.engine} {row.type}", {})
    share = None
    if row.work.startswith("step of 1 ") and file and row.n_threads in bandwidth:
        share = file["bytes"] / median / bandwidth[row.n_threads]
    return Line(
        row=row,
        median=median,
        least=min(row.seconds),
        ratio=ratio_of(row.seconds, ours.seconds) if ours and ours is not row else None,
        n_bytes=file.get("bytes"),
        embedding=file.get("embedding", ""),
        share=share,
    )


def bandwidths(results: Results) -> dict[int, float]:
    """Bytes a second by number of threads, the best that was measured in this run."""
    found: dict[int, float] = {}
    for one in results.rooflines:
        n = int(one["n_threads"])
        found[n] = max(found.get(n, 0), one["read_bytes_per_second"])
    return found


# ---- Markdown ----


def markdown(results: Results, title: str, notes: Iterable[str]) -> str:
    table = lines(results)
    parts = [f"# {title}", _notes(notes), _rooflines(results)]
    parts += [_section(name, [line for line in table if _section_of(line) == name]) for name in SECTIONS]
    parts += [_rates(table, "step"), _rates(table, "job"), _leads(table), _memory(results), _failures(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


SECTIONS = {
    "Step": "Milliseconds; of bandwidth: one sequence's weights in bytes / the median / the measured read bandwidth.",
    "Prefill": "Milliseconds for the prompt.",
    "Job": "Milliseconds for all of it.",
    "Whole run": "Milliseconds from process start to exit, 19 + 20 tokens, page cache warm.",
    "Load": "Milliseconds of the whole run that loading the model took, imports not counted.",
}


def _section_of(line: Line) -> str:
    return line.row.work.split()[0].capitalize().replace("Whole", "Whole run")


def _section(name: str, table: list[Line]) -> str:
    if not table:
        return ""
    head = ["work", "threads", "precision", "engine and type", "embedding", "MB a token", "median ms", "min ms",
            "ratio to ours", "of bandwidth"]  # fmt: skip
    body = [
        [line.row.work, str(line.row.n_threads), line.row.precision, f"{line.row.engine} {line.row.type}",
         line.embedding, f"{line.n_bytes / 1e6:.0f}" if line.n_bytes else "", f"{1e3 * line.median:.2f}",
         f"{1e3 * line.least:.2f}", f"{line.ratio:.2f}" if line.ratio else "",
         f"{line.share:.0%}" if line.share else ""]
        for line in table
    ]  # fmt: skip
    return f"## {name}\n\n{SECTIONS[name]}\n\n{as_table(head, body)}"


def as_table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _notes(notes: Iterable[str]) -> str:
    return "\n".join(f"- {note}" for note in notes)


def _rooflines(results: Results) -> str:
    kinds = ("f32", "bf16", "int8")
    best: dict[int, dict[str, float]] = {}
    for one in results.rooflines:
        seen = best.setdefault(int(one["n_threads"]), dict(one))
        best[int(one["n_threads"])] = {name: max(seen[name], one[name]) for name in seen}
    body = [
        [str(n), f"{one['read_bytes_per_second'] / GB:.1f}"]
        + [f"{one[f'{kind}_operations_per_second'] / 1e9:.0f}" for kind in kinds]
        for n, one in sorted(best.items())
    ]
    head = ["threads", "read GB/s", *(f"{kind} GFLOP/s" for kind in kinds)]
    return f"## This machine, in this run\n\n{as_table(head, body)}" if body else ""


def _rates(table: list[Line], kind: str) -> str:
    """New tokens a second of all sequences together: a line for each engine, a column for each work."""
    works = {work.name: work for work in WORKS if work.kind == kind}
    found: dict[tuple[int, str, str], dict[str, float]] = {}
    for line in table:
        if work := works.get(line.row.work):
            key = (line.row.n_threads, line.row.precision, f"{line.row.engine} {line.row.type}")
            found.setdefault(key, {})[work.name] = _n_new(work) / line.median
    names = [name for name in works if any(name in row for row in found.values())]
    body = [[str(t), p, e, *(f"{row[n]:.0f}" if n in row else "" for n in names)] for (t, p, e), row in found.items()]
    head = ["threads", "precision", "engine and type", *(name.removeprefix(f"{kind} of ") for name in names)]
    text = "New tokens a second of all sequences together, by their number and the tokens of each."
    return f"## {kind.capitalize()}s of many sequences\n\n{text}\n\n{as_table(head, body)}" if body else ""


def _n_new(work: Work) -> int:
    return work.n * max(work.n_new, 1)


def _leads(table: list[Line]) -> str:
    """Ours of each precision beside the fastest peer of any precision."""
    body = []
    for key in dict.fromkeys((line.row.work, line.row.n_threads) for line in table if line.row.work != "load"):
        lines_here = [line for line in table if (line.row.work, line.row.n_threads) == key]
        best = min((line for line in lines_here if line.row.engine != OURS), key=_median, default=None)
        for precision in PRECISIONS if best else ():
            ours = [line for line in lines_here if line.row.engine == OURS and line.row.precision == precision]
            if best and ours:
                mine = min(ours, key=_median)
                body.append([key[0], str(key[1]), precision, mine.row.type, f"{1e3 * mine.median:.2f}",
                             f"{best.row.engine} {best.row.type}", f"{1e3 * best.median:.2f}",
                             f"{best.median / mine.median:.2f}"])  # fmt: skip
    head = ["work", "threads", "precision", "ours", "ms", "the fastest peer of any precision", "ms", "times as fast"]
    return f"## Beside the fastest peer\n\n{as_table(head, body)}" if body else ""


def _median(line: Line) -> float:
    return line.median


def _memory(results: Results) -> str:
    body = [
        [one["entry"], str(one["n_threads"]), f"{one['all'] / 1e6:.0f}", f"{(one['all'] - one['model']) / 1e6:.0f}"]
        for one in results.memory
    ]
    head = ["engine and type", "threads", "resident MB", "without the mapped model"]
    return f"## Memory, with a context of 1,024 tokens filled\n\n{as_table(head, body)}" if body else ""


def _failures(results: Results) -> str:
    reasons = {f"{row.engine} {row.type}, {row.work}: {row.error}" for row in results.rows if row.error}
    return "## What did not run\n\n" + _notes(sorted(reasons)) if reasons else ""


def precisions_of(results: Results) -> list[str]:
    return [name for name in PRECISIONS if any(row.precision == name for row in results.rows)]


def engines_of(results: Results) -> list[str]:
    return [name for name in ENGINES if any(row.engine == name for row in results.rows)]
