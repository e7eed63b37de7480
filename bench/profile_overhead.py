"""What a profile costs: decode steps without one, with sums, and with sums and events, in turns in one run.

    python bench/profile_overhead.py [MODEL] [--steps 200] [--threads N]
    python bench/profile_overhead.py [MODEL] --instructions

MODEL is what fastgpt-c takes after -m; the demo model if not given.  CPU time is that of the thread that calls the
step: on a busy machine, and with --threads 1, it says more than wall time.  Ratios are medians of the ratios of
neighbours.  --instructions counts those of a step of one thread with valgrind, which no other program can disturb;
a look at the clock is a system call there, and so counts less than it costs.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

import fastgpt_c
from fastgpt_c.analysis.benchmark import some_tokens

N_PAST = 64
WAYS = {"off": None, "sums": 0, "sums and events": 1_000_000}  # n_events


def seconds_of_steps(model: fastgpt_c.Model, n_steps: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each decode step, by way; the ways take turns, and who is first changes."""
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        sessions = {way: stack.enter_context(model.session()) for way in WAYS}
        for way, session in sessions.items():
            session.prefill(some_tokens(model.n_vocab, N_PAST))
            if WAYS[way] is not None:
                stack.enter_context(session.profile(WAYS[way]))
        for i, token in enumerate(some_tokens(model.n_vocab, n_steps)):
            for way in [*WAYS][i % len(WAYS) :] + [*WAYS][: i % len(WAYS)]:
                sessions[way].truncate(N_PAST)
                wall, cpu = time.perf_counter(), time.thread_time()
                sessions[way].decode(token)
                seconds[way].append((time.perf_counter() - wall, time.thread_time() - cpu))
    return seconds


def decode(model: fastgpt_c.Model, way: str, n_steps: int) -> None:
    """What valgrind counts."""
    with ExitStack() as stack:
        session = stack.enter_context(model.session())
        if WAYS[way] is not None:
            stack.enter_context(session.profile(WAYS[way]))
        for token in some_tokens(model.n_vocab, n_steps):
            session.decode(token)


def instructions(args: argparse.Namespace, way: str, n_steps: int) -> int:
    """Of n_steps decode steps, whatever happens around them."""
    command = ["valgrind", "--tool=callgrind", "--toggle-collect=fastgpt_decode*", "--callgrind-out-file=/dev/null"]
    command += [sys.executable, __file__, *([args.model] if args.model else []), "--decode", way]
    result = subprocess.run([*command, "--steps", str(n_steps)], capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", result.stderr)
    assert found is not None, result.stderr
    return int(found[1])


def print_instructions(args: argparse.Namespace) -> None:
    """Those of the second step: the first is unlike all others."""
    counts = {way: instructions(args, way, 2) - instructions(args, way, 1) for way in WAYS}
    for way, n in counts.items():
        print(f"{way:18}{n:14,}{n - counts['off']:+10,}{n / counts['off'] - 1:+10.3%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--decode", choices=WAYS, help=argparse.SUPPRESS)  # what runs under valgrind
    args = parser.parse_args()
    if args.instructions:
        print_instructions(args)
        return
    if args.decode:
        with fastgpt_c.load(args.model, n_threads=1) as model:
            decode(model, args.decode, args.steps)
        return
    with fastgpt_c.load(args.model, n_threads=args.threads) as model:
        seconds = seconds_of_steps(model, args.steps)
        print(f"{model.name or model.path.name}, {model.type}: a decode step, {args.steps} of each in turns")
    print(f"{'profile':18}{'wall ms':>10}{'than off':>10}{'CPU ms':>10}{'than off':>10}")
    for way, pairs in seconds.items():
        line = f"{way:18}"
        for times, off in zip(zip(*pairs, strict=True), zip(*seconds["off"], strict=True), strict=True):
            ratio = statistics.median(a / b for a, b in zip(times, off, strict=True))
            line += f"{1e3 * statistics.median(times):10.3f}{ratio - 1:+10.2%}"
        print(line)


if __name__ == "__main__":
    main()
