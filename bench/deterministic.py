"""What deterministic steps cost, beside the fast ones.

    python bench/deterministic.py MODEL.gguf [MODEL.gguf ...] [--threads N] [--rounds 7]

For each model: a prefill of --prompt tokens, and decodes of 1, 8 and 32 sequences that hold so many.  Fast and
deterministic steps take turns; a cell is the fast step's median time, and the median of their ratios, round by round.
With --threads 1 the times are the thread's own, which other processes hardly disturb.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import fastgpt_c

BATCHES = (1, 8, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    heads = [f"prefill of {args.prompt}", *(f"decode of {n}" for n in BATCHES)]
    print(f"| weights | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for path in args.models:
        with fastgpt_c.load(path, n_threads=args.threads) as model:
            cells = [shown(*times) for times in measured(model, args.prompt, args.rounds)]
            print(f"| {model.type} | {' | '.join(cells)} |", flush=True)


def shown(fast: list[float], deterministic: list[float]) -> str:
    ratio = statistics.median(d / f for f, d in zip(fast, deterministic, strict=True))
    return f"{statistics.median(fast) * 1e3:.1f} ms, x {ratio:.2f}"


def measured(model: fastgpt_c.Model, n_prompt: int, n_rounds: int) -> Iterator[tuple[list[float], list[float]]]:
    """Seconds of fast and of deterministic steps: of the prefill, then of each batch."""
    prompt = np.random.default_rng(0).integers(0, model.n_vocab, n_prompt)
    room = n_prompt + n_rounds + 1
    pair = [model.session(n_ctx=room, deterministic=deterministic) for deterministic in (False, True)]
    yield in_turns([[session] for session in pair], prompt, n_rounds)
    for session in pair:
        session.truncate(0)
        session.prefill(prompt)
    for n in BATCHES:
        yield in_turns([[session.copy() for _ in range(n)] for session in pair], prompt[:1], n_rounds)


def in_turns(
    batches: list[list[fastgpt_c.Session]], tokens: np.ndarray, n_rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of a step that appends tokens to every session of a batch, batch by batch; the first round warms up."""
    clock = time.process_time if batches[0][0].n_threads == 1 else time.perf_counter
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(n_rounds + 1):
        for batch, times in zip(batches, seconds, strict=True):
            n_past = batch[0].n_past
            begin = clock()
            fastgpt_c.step([(session, tokens) for session in batch])
            times.append(clock() - begin)
            for session in batch:
                session.truncate(n_past)
    return seconds[0][1:], seconds[1][1:]


if __name__ == "__main__":
    main()
