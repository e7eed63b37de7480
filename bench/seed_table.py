"""fastGPT's own table on this machine: 20 tokens after a prompt of 19, by cores, with and without a KV cache.

    python bench/seed_table.py --work DIR
    python bench/seed_table.py --work DIR --fastgpt "./gpt2" --fastgpt-folder PATH    fastGPT's own program as well

The rows of https://github.com/certik/fastGPT#benchmarks: ours with OpenBLAS and with no BLAS (Native), PyTorch with
transformers, tests/support/reference.py (float64 NumPy, no cache) in the place of picoGPT, fastGPT itself where a
command is given (in the folder of its model.gguf or model.dat and of its input).  First the time of the tokens alone,
in a process that has loaded everything; then a whole run from process start to exit.  DIR as in bench/peers.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import venvs
from harness.files import Files
from harness.measure import say
from harness.plan import N_NEW, N_PROMPT, PROMPT, tokens
from harness.report import as_table
from harness.worker import BENCH, EngineError, Worker, environment

# name -> module of bench/engines, environment, whether it has a KV cache
PROGRAMS = {
    "fastgpt-c (OpenBLAS)": ("ours", "ours", True),
    "fastgpt-c (Native)": ("ours", "ours-native", True),
    "PyTorch": ("pytorch", "pytorch", True),
    "NumPy (float64)": ("numpy_reference", "ours", False),
}
FASTGPT = "fastGPT"


def main() -> None:
    args = make_parser().parse_args()
    files = Files(args.work.resolve(), args.size)
    cells: dict[str, dict[int, str]] = {}
    for n_threads in args.cores:
        for name, seconds in measured(files, n_threads, args):
            cells.setdefault(name, {})[n_threads] = shown(seconds)
    head = [f"{N_PROMPT} + {N_NEW} tokens, {args.size}", *(f"{n} cores" if n > 1 else "1 core" for n in args.cores)]
    text = as_table(head, ([name, *(row.get(n, "") for n in args.cores)] for name, row in cells.items()))
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"seed-table-{args.size}.md"
    path.write_text(f"# fastGPT's table, seconds: median (least) of {args.rounds}\n\n{text}\n", encoding="utf-8")
    print(text)
    say(f"written: {path}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder of environments and models")
    parser.add_argument("--output", type=Path, default=BENCH / "results", metavar="DIR")
    parser.add_argument("--size", default="124M", help="shape of the model (124M)")
    parser.add_argument(
        "--cores", type=int, nargs="+", default=powers_of_two(len(os.sched_getaffinity(0))), metavar="N"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--fastgpt", metavar="COMMAND", help="fastGPT's program")
    parser.add_argument("--fastgpt-folder", type=Path, default=Path(), metavar="DIR", help="where it is to run")
    return parser


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 ... up to most."""
    return [2**i for i in range(most.bit_length()) if 2**i <= most]


def shown(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f})"


# ---- Measuring: each yields the name of a row, and its samples ----


def measured(files: Files, n_threads: int, args: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    with ExitStack() as stack:
        workers = {name: stack.enter_context(loaded(files, name, n_threads)) for name in PROGRAMS}
        for kv_cache in (True, False):
            asks = {
                name: asker(workers[name], kv_cache) for name, (*_, cache) in PROGRAMS.items() if cache or not kv_cache
            }
            say(f"{n_threads} cores, {'with' if kv_cache else 'without'} a KV cache")
            for name, seconds in in_turns(asks, args.rounds).items():
                yield f"{name}, {'KV cache' if kv_cache else 'no cache'}", seconds
    say(f"{n_threads} cores, whole runs")
    runs: dict[str, Callable[[], float]] = {
        name: process(whole_command(files, name, n_threads), BENCH, n_threads) for name in PROGRAMS
    }
    if args.fastgpt:
        runs[FASTGPT] = process(shlex.split(args.fastgpt), args.fastgpt_folder, n_threads)
    for name, seconds in in_turns(runs, args.rounds).items():
        yield f"{name}, total run", seconds


def in_turns(asks: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Samples of each, after one round that is not counted."""
    samples = [{name: ask() for name, ask in asks.items()} for _ in range(rounds + 1)]
    return {name: [sample[name] for sample in samples[1:]] for name in asks}


def model_of(files: Files, name: str) -> Path:
    return files.checkpoint() if PROGRAMS[name][0] == "pytorch" else files.gguf("f32")


def command_of(files: Files, name: str) -> list[str | Path]:
    module, environment_name, _ = PROGRAMS[name]
    return [venvs.python_of(files.work, environment_name), "-m", f"engines.{module}"]


def loaded(files: Files, name: str, n_threads: int) -> Worker:
    log = files.work / "log" / f"seed-{PROGRAMS[name][0]}.log"
    worker = Worker(command_of(files, name), log, n_threads)
    worker.ask("load", model=str(model_of(files, name)), type="f32", n_threads=n_threads)
    return worker


def asker(worker: Worker, kv_cache: bool) -> Callable[[], float]:
    def ask() -> float:
        seconds, _ = worker.ask("generate", prompt=tokens(N_PROMPT), n_new=N_NEW, kv_cache=kv_cache)
        return float(seconds)

    return ask


# ---- Whole runs ----


def whole_command(files: Files, name: str, n_threads: int) -> list[str | Path]:
    if PROGRAMS[name][0] == "ours":
        options = ["-n", str(N_NEW), "--temperature", "0", "--threads", str(n_threads), PROMPT]
        return [command_of(files, name)[0], "-m", "fastgpt_c", "generate", "-m", model_of(files, name), *options]
    wanted = {
        "model": str(model_of(files, name)), "type": "f32", "threads": n_threads, "prompt": PROMPT, "n_new": N_NEW,
    }  # fmt: skip
    return [*command_of(files, name), "whole", json.dumps(wanted)]


def process(command: Sequence[str | Path], folder: Path, n_threads: int) -> Callable[[], float]:
    """Seconds from start to exit.  Raises EngineError with its last words when it fails."""

    def run() -> float:
        begin = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment(n_threads), capture_output=True, text=True)
        if done.returncode:
            raise EngineError(f"{command[0]} failed: {done.stderr.strip().rpartition(chr(10))[2]}")
        return time.perf_counter() - begin

    return run


if __name__ == "__main__":
    main()
