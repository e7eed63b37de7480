"""What a profile costs: decode steps without one, with sums, and with sums and events, in turns in one run.

    python bench/profile_overhead.py [MODEL] [--steps 200] [--threads N]

MODEL is what fastgpt-c takes after -m; the demo model if not given.  CPU time is that of the thread that calls the
step: on a busy machine, and with --threads 1, it says more than wall time.  Ratios are medians of the ratios of
neighbours.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack

import fastgpt_c
from fastgpt_c.benchmark import some_tokens

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
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
