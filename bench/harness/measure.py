"""Runs the entries of a precision side by side: all loaded, one at work at a time, in turns for several rounds."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import venvs
from harness.files import Files
from harness.plan import ENGINES, FULL_CONTEXT, N_NEW, OURS, PROMPT, Entry, Work, request, works_of
from harness.worker import BENCH, EngineError, Worker, environment


@dataclass
class Row:
    """What one entry took for one kind of work.

    seconds  of a step, of a prompt (prefill), of a job, of a process (whole run), of loading in it (load), by round
    error    why there are none
    """

    work: str
    precision: str
    n_threads: int
    engine: str
    type: str
    seconds: list[float] = field(default_factory=list)
    error: str = ""


@dataclass
class Results:
    rows: list[Row] = field(default_factory=list)
    rooflines: list[dict[str, float]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)  # entry, bytes of weights a step, embedding's type
    memory: list[dict[str, Any]] = field(default_factory=list)  # entry, bytes, with a full context

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


@dataclass
class Group:
    """The entries that are compared with one another."""

    precision: str
    n_threads: int
    entries: Sequence[Entry]
    rounds: int  # of a work that is not dear


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def command_of(files: Files, entry: Entry) -> list[str | Path]:
    module, name = ENGINES[entry.engine]
    return [venvs.python_of(files.work, name), "-m", f"engines.{module}"]


# ---- Workers that stay loaded ----


def run(files: Files, group: Group, works: Sequence[Work], results: Results) -> None:
    """Adds a row for each entry and work.  An entry that fails gets the reason."""
    steps = [work for work in works if work.kind != "whole"]
    if steps:
        with ExitStack() as stack:
            workers = dict(_loaded(files, group, results, stack))
            _measure_roofline(workers, results)
            _run_works(files, group, steps, workers, results)
            _measure_roofline(workers, results)
    for work in works:
        if work.kind == "whole":
            _run_processes(files, group, work, results)


def _loaded(files: Files, group: Group, results: Results, stack: ExitStack) -> Iterator[tuple[Entry, Worker]]:
    for entry in group.entries:
        try:
            model = str(files.path(entry))
            log = files.work / "log" / f"{entry.name.replace(' ', '-')}.log"
            worker = stack.enter_context(Worker(command_of(files, entry), log, group.n_threads))
            worker.ask("load", model=model, type=entry.type, n_threads=group.n_threads)
        except EngineError as error:
            results.rows.append(new_row("load", group, entry, str(error)))
            say(f"{entry.name} is left out: {error}")
        else:
            yield entry, worker


def new_row(work: str, group: Group, entry: Entry, error: str = "") -> Row:
    return Row(work, group.precision, group.n_threads, entry.engine, entry.type, error=error)


def _run_works(
    files: Files, group: Group, works: Sequence[Work], workers: dict[Entry, Worker], results: Results
) -> None:
    """Memory is looked at after the one sequence of a full context, and before the many."""
    for work in works:
        _run_rounds(group, work, workers, results)
        if work == FULL_CONTEXT:
            _measure_memory(files, group, workers, results)


def _run_rounds(group: Group, work: Work, workers: dict[Entry, Worker], results: Results) -> None:
    """One round that is not counted, then those that are, always in the same order."""
    say(f"{group.precision}, {group.n_threads} threads, {work.name}")
    rows = {entry: new_row(work.name, group, entry) for entry in workers if works_of(entry, [work])}
    for _ in range(1 + work.rounds(group.rounds)):
        for entry, row in rows.items():
            if not row.error:
                _sample(workers[entry], work, row)
    for row in rows.values():
        del row.seconds[:1]
    results.rows += rows.values()


def _sample(worker: Worker, work: Work, row: Row) -> None:
    try:
        row.seconds.append(worker.ask(**request(work)))
    except EngineError as error:
        row.error = str(error)
        say(f"{row.engine} {row.type}: {error}")


def _measure_roofline(workers: dict[Entry, Worker], results: Results) -> None:
    ours = [worker for entry, worker in workers.items() if entry.engine == OURS]
    if ours:
        with contextlib.suppress(EngineError):
            results.rooflines.append(ours[0].ask("roofline"))


def _measure_memory(files: Files, group: Group, workers: dict[Entry, Worker], results: Results) -> None:
    for entry, worker in workers.items():
        with contextlib.suppress(EngineError):
            resident = worker.ask("memory", models=str(files.folder.resolve()))
            results.memory.append({"entry": entry.name, "n_threads": group.n_threads, **resident})


# ---- Whole processes ----


def _run_processes(files: Files, group: Group, work: Work, results: Results) -> None:
    """From process start to exit: a text of 19 tokens, 20 greedy tokens after it, the page cache warm."""
    say(f"{group.precision}, {group.n_threads} threads, {work.name}")
    entries = [entry for entry in group.entries if works_of(entry, [work])]
    rows = {entry: (new_row(work.name, group, entry), new_row("load", group, entry)) for entry in entries}
    for _ in range(1 + work.rounds(group.rounds)):
        for entry, (whole, load) in rows.items():
            if not whole.error:
                _time_process(files, group, entry, whole, load)
    for pair in rows.values():
        for row in pair:
            del row.seconds[:1]
            results.rows.append(row)


def _time_process(files: Files, group: Group, entry: Entry, whole: Row, load: Row) -> None:
    try:
        command = _whole_command(files, entry, group.n_threads)
        begin = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, cwd=BENCH, env=environment(group.n_threads))
        whole.seconds.append(time.perf_counter() - begin)
        load.seconds.append(json.loads(done.stdout)["load_seconds"])
    except EngineError as error:
        whole.error = str(error)
    except subprocess.CalledProcessError as error:
        whole.error = error.stderr.decode(errors="replace").strip().rpartition("\n")[2] or str(error)


def _whole_command(files: Files, entry: Entry, n_threads: int) -> list[str | Path]:
    model = files.path(entry)
    if entry.engine == OURS:
        options = ["-n", str(N_NEW), "--temperature", "0", "--json", "--threads", str(n_threads)]
        python = venvs.python_of(files.work, "ours")
        return [python, "-m", "fastgpt_c", "generate", "-m", model, *options, PROMPT]
    wanted = {"model": str(model), "type": entry.type, "threads": n_threads, "prompt": PROMPT, "n_new": N_NEW}
    return [*command_of(files, entry), "whole", json.dumps(wanted)]
