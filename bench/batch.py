"""What a batch costs beside its steps: the throughput of 1,000 short prompts against that of bare steps.

    python bench/batch.py                    the demo model; -m FILE for another

A bare step is one call of the library that decodes a token for each of max_batch sequences, and nothing else.  Batches
and bare steps take turns; figures are medians over the turns.  "scheduler" is the time of a batch that is neither in a
step nor in the drawing of tokens: all that Python does.  "equal" is the share of tokens that are those of a lone run:
of all tokens up to and with the first that differs, since after that the texts are no longer the same.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastgpt_c
from fastgpt_c import scheduler
from fastgpt_c._lib import ffi
from fastgpt_c.cache_pool import CachePool
from fastgpt_c.ragged_step import RaggedStep

WORDS = (
    "once upon",
    "a",
    "time",
    "there was",
    "little",
    "girl",
    "who",
    "loved to",
    "play",
    "in the",
    "dark wood",
    "wolf",
)


def requests(n: int, max_new_tokens: int, seed: int) -> list[fastgpt_c.Request]:
    """Prompts of 1 to 16 words, whose texts may have half to one and a half times max_new_tokens."""
    rng = random.Random(seed)

    def request() -> fastgpt_c.Request:
        text = " ".join(rng.choices(WORDS, k=rng.randint(1, 16)))
        return fastgpt_c.Request(text, max_new_tokens=rng.randint(max_new_tokens // 2, max_new_tokens * 3 // 2))

    return [request() for _ in range(n)]


@dataclass
class Run:
    """Seconds of a batch and of its parts, and the tokens that its steps read."""

    seconds: float = 0.0
    stepping: float = 0.0
    drawing: float = 0.0
    n_tokens: int = 0
    n_steps: int = 0


class TimedStep(RaggedStep):
    """Notes the times of the library's two calls in the latest Run."""

    latest = Run()

    def _step(self, n_rows: int, n_tokens: int) -> None:
        begin = time.perf_counter()
        super()._step(n_rows, n_tokens)
        self.latest.stepping += time.perf_counter() - begin
        self.latest.n_tokens += n_tokens
        self.latest.n_steps += 1

    def run(self, n_rows: int, n_tokens: int) -> list[int]:
        begin, stepped_before = time.perf_counter(), self.latest.stepping
        tokens = super().run(n_rows, n_tokens)
        self.latest.drawing += time.perf_counter() - begin - (self.latest.stepping - stepped_before)
        return tokens


def timed_batch(model: fastgpt_c.Model, prompts: list[fastgpt_c.Request], options: dict[str, Any]) -> Run:
    run = TimedStep.latest = Run()
    begin = time.perf_counter()
    model.generate_batch(prompts, **options)
    run.seconds = time.perf_counter() - begin
    return run


def bare_rate(model: fastgpt_c.Model, args: argparse.Namespace) -> float:
    """Tokens a second of steps that decode a token for each of max_batch sequences, in the middle of their texts."""
    n_rows, n_past, n_steps = args.max_batch, 8 + args.max_new_tokens // 2, 40
    step = RaggedStep(model, n_rows, None, False)
    pool = CachePool(model, "f32", n_rows * model.n_ctx)
    caches = [cache for _ in range(n_rows) if (cache := pool.take([0], n_past + n_steps + 1))]
    tokens = ffi.new("int32_t[]", [1] * n_past)
    for row, cache in enumerate(caches):
        step.read(row, cache.kv, tokens, n_past, ffi.NULL)
    step._step(n_rows, n_rows * n_past)
    for row, cache in enumerate(caches):
        step.go_on(row, cache.kv, 1, ffi.NULL)
    step._step(n_rows, n_rows)  # the first one is not counted
    begin = time.perf_counter()
    for _ in range(n_steps):
        step._step(n_rows, n_rows)
    return float(n_rows * n_steps / (time.perf_counter() - begin))


def equal_share(model: fastgpt_c.Model, prompts: list[fastgpt_c.Request], options: dict[str, Any]) -> float:
    """Of the tokens of a fast batch, those equal to a lone run's."""
    n_equal = n_seen = 0
    for prompt, together in zip(prompts, model.generate_batch(prompts, **options), strict=True):
        alone = model.generate_batch([prompt], **options)[0]
        pairs = list(zip(alone.tokens, together.tokens, strict=False))
        differs = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        n_equal += len(pairs) if differs is None else differs
        n_seen += len(pairs) if differs is None else differs + 1
    return n_equal / n_seen


def measure(model: fastgpt_c.Model, args: argparse.Namespace, options: dict[str, Any]) -> None:
    """Prints a line."""
    turns = []
    for turn in range(args.rounds):
        before = bare_rate(model, args)
        run = timed_batch(model, requests(args.prompts, args.max_new_tokens, turn), options)
        turns.append((run, (before + bare_rate(model, args)) / 2))

    def median(value: Callable[[Run], float]) -> float:
        return statistics.median(value(run) for run, _ in turns)

    rate = median(lambda run: run.n_tokens / run.seconds)
    of_bare = statistics.median(run.n_tokens / run.seconds / bare for run, bare in turns)
    rest = median(lambda run: 1e6 * (run.seconds - run.stepping - run.drawing) / run.n_steps)
    mode = "deterministic" if options.get("deterministic") else "fast"
    print(
        f"  {mode:13} {rate:7.0f} tokens/s, {of_bare:6.1%} of bare "
        f"steps; steps {median(lambda run: run.stepping / run.seconds):6.1%}, "
        f"drawing {median(lambda run: run.drawing / run.seconds):6.1%}, "
        f"scheduler {median(lambda run: 1 - (run.stepping + run.drawing) / run.seconds):6.1%}, {rest:4.0f} us a step"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, help="a GGUF file (the demo model)")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--max-new-tokens", type=int, default=50)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--equal", type=int, default=60, help="prompts whose tokens are compared with lone runs")
    args = parser.parse_args()
    scheduler.RaggedStep = TimedStep  # type: ignore[misc]
    with fastgpt_c.load(args.model) as model:
        print(f"{model.name}, {model.type}, {args.prompts} prompts, {args.max_new_tokens} new tokens each, about")
        for name, sampling in {"greedy": {"temperature": 0}, "temperature 0.8, top_p 0.95": {"seed": 1}}.items():
            print(f"{name}, max_batch {args.max_batch}")
            options = {"max_batch": args.max_batch, **sampling}
            for mode in ({}, {"deterministic": True}):
                measure(model, args, options | mode)
            share = equal_share(model, requests(args.equal, args.max_new_tokens, seed=7), options)
            print(f"  {share:.2%} of a fast batch's tokens equal those of a lone run")


if __name__ == "__main__":
    main()
