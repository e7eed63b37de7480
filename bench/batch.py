"""What a batch costs beside its steps: the throughput of 1,000 short prompts against that of bare steps.

    python bench/batch.py                    the demo model; -m FILE for another

Bare steps are the steps of the same batch once more: the same tokens in the same rows, and nothing else, neither
scheduler nor drawing.  Batches and bare steps take turns, round by round; figures are medians over the rounds, of
seconds as a clock tells them and, since other processes may disturb those, of seconds that the process itself computed.
(With --threads 2 or more, threads that wait for work compute, too, for a moment.)  "scheduler" is the time of a batch
that is neither in a step nor in the drawing of tokens: all that Python does.  "equal" is the share of tokens that are
those of a lone run: of all tokens up to and with the first that differs, since after that the texts are no longer the
same.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import fastgpt_c
from fastgpt_c.batching import scheduler
from fastgpt_c.batching.ragged_step import RaggedStep
from fastgpt_c.native.lib import check, create, ffi, lib

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


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "likes": {"type": "array", "items": {"type": "string"}}},
    "required": ["name", "likes"],
    "additionalProperties": False,
}


def requests(n: int, max_new_tokens: int, seed: int, json_share: float = 0) -> list[fastgpt_c.Request]:
    """Prompts of 1 to 16 words, whose texts may have half to one and a half times max_new_tokens; json_share of the
    texts are JSON of SCHEMA."""
    rng = random.Random(seed)

    def request() -> fastgpt_c.Request:
        text = " ".join(rng.choices(WORDS, k=rng.randint(1, 16)))
        n_new = rng.randint(max_new_tokens // 2, max_new_tokens * 3 // 2)
        changes = {"json_schema": SCHEMA} if rng.random() < json_share else {}
        return fastgpt_c.Request(text, max_new_tokens=n_new, **changes)

    return [request() for _ in range(n)]


@dataclass
class Seconds:
    """Of a clock, and of the process on all its cores."""

    wall: float = 0.0
    cpu: float = 0.0

    def begin(self) -> None:
        self.wall -= time.perf_counter()
        self.cpu -= time.process_time()

    def end(self) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


@dataclass
class Run:
    """Times of a batch and of its parts, and what its steps read."""

    whole: Seconds = field(default_factory=Seconds)
    stepping: Seconds = field(default_factory=Seconds)
    drawing: Seconds = field(default_factory=Seconds)
    n_tokens: int = 0
    n_steps: int = 0


class TimedStep(RaggedStep):
    """Notes the times of the library's two calls in the latest Run."""

    latest = Run()

    def run(self, n_rows: int, n_tokens: int, *edits: Any) -> None:
        self.latest.stepping.begin()
        super().run(n_rows, n_tokens, *edits)
        self.latest.stepping.end()
        self.latest.n_tokens += n_tokens
        self.latest.n_steps += 1

    def draw(self, n_rows: int) -> list[int]:
        self.latest.drawing.begin()
        tokens = super().draw(n_rows)
        self.latest.drawing.end()
        return tokens


# Of a row of a step: which cache, how many tokens it holds before, and the tokens that it reads.
Span = tuple[Any, int, list[int]]


class RecordedStep(RaggedStep):
    """Notes what the steps read."""

    steps: ClassVar[list[list[Span]]] = []

    def run(self, n_rows: int, n_tokens: int, *edits: Any) -> None:
        spans = [self._spans[row] for row in range(n_rows)]
        self.steps.append([(s.kv, lib.fastgpt_kv_cache_n_past(s.kv), ffi.unpack(s.tokens, s.n_tokens)) for s in spans])
        super().run(n_rows, n_tokens, *edits)


def run_batch(model: fastgpt_c.Model, prompts: list[fastgpt_c.Request], options: dict[str, Any], step: type) -> None:
    scheduler.RaggedStep = step  # type: ignore[misc]
    model.generate_batch(prompts, **options)


def timed_batch(model: fastgpt_c.Model, prompts: list[fastgpt_c.Request], options: dict[str, Any]) -> Run:
    run = TimedStep.latest = Run()
    run.whole.begin()
    run_batch(model, prompts, options, TimedStep)
    run.whole.end()
    return run


def recorded_steps(
    model: fastgpt_c.Model, prompts: list[fastgpt_c.Request], options: dict[str, Any]
) -> list[list[Span]]:
    RecordedStep.steps = []
    run_batch(model, prompts, options, RecordedStep)
    return RecordedStep.steps


def bare_steps(model: fastgpt_c.Model, steps: list[list[Span]], options: dict[str, Any]) -> Seconds:
    """The recorded steps, on caches of their own."""
    step = RaggedStep(model, options["max_batch"], options["n_threads"], "deterministic" in options)
    caches: dict[Any, Any] = {}
    seconds = Seconds()
    for spans in steps:
        texts = [ffi.new("int32_t[]", tokens) for _, _, tokens in spans]
        for row, ((recorded, n_past, tokens), text) in enumerate(zip(spans, texts, strict=True)):
            kv = caches.get(recorded) or caches.setdefault(recorded, new_cache(model))
            check(lib.fastgpt_kv_cache_truncate(kv, n_past))
            step.read(row, kv, text, len(tokens), ffi.NULL)
        seconds.begin()
        step.run(len(spans), sum(len(tokens) for _, _, tokens in spans))
        seconds.end()
    return seconds


def new_cache(model: fastgpt_c.Model) -> Any:
    return create(
        lib.fastgpt_kv_cache_create, model.handle, 0,
        free=lib.fastgpt_kv_cache_free, sizeof=lib.fastgpt_kv_cache_sizeof,
    )  # fmt: skip


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
    """Prints a line for each clock."""
    prompts = requests(args.prompts, args.max_new_tokens, seed=0, json_share=args.json)
    steps = recorded_steps(model, prompts, options)
    turns = [(timed_batch(model, prompts, options), bare_steps(model, steps, options)) for _ in range(args.rounds)]
    mode = "deterministic" if "deterministic" in options else "fast"
    run = turns[0][0]
    print(f"  {mode}: {run.n_steps} steps of {run.n_tokens / run.n_steps:.1f} tokens on average")
    for clock in ("wall", "cpu"):
        print(f"    {clock:4} {shares(turns, lambda seconds, clock=clock: getattr(seconds, clock))}")


def shares(turns: list[tuple[Run, Seconds]], of: Callable[[Seconds], float]) -> str:
    def median(value: Callable[[Run, float], float]) -> float:
        return statistics.median(value(run, of(bare)) for run, bare in turns)

    of_bare = median(lambda run, bare: bare / of(run.whole))
    stepping = median(lambda run, _: of(run.stepping) / of(run.whole))
    drawing = median(lambda run, _: of(run.drawing) / of(run.whole))
    rest = median(lambda run, _: 1 - (of(run.stepping) + of(run.drawing)) / of(run.whole))
    rest_of_step = median(lambda run, _: 1e6 * (of(run.whole) - of(run.stepping) - of(run.drawing)) / run.n_steps)
    rate = median(lambda run, _: run.n_tokens / of(run.whole))
    return (
        f"{rate:7.0f} tokens/s, {of_bare:6.1%} of bare steps; steps {stepping:6.1%}, drawing {drawing:6.1%}, "
        f"scheduler {rest:6.1%}, {rest_of_step:4.0f} us a step"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, help="a GGUF file (the demo model)")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--max-new-tokens", type=int, default=50)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--equal", type=int, default=60, help="prompts whose tokens are compared with lone runs")
    parser.add_argument("--json", type=float, default=0, metavar="SHARE", help="of the texts that are JSON of a schema")
    args = parser.parse_args()
    with fastgpt_c.load(args.model) as model:
        print(f"{model.name}, {model.type}, {args.prompts} prompts, {args.max_new_tokens} new tokens each, about")
        for name, sampling in {"greedy": {"temperature": 0}, "temperature 0.8, top_p 0.95": {"seed": 1}}.items():
            print(f"{name}, max_batch {args.max_batch}")
            options = {"max_batch": args.max_batch, "n_threads": args.threads, **sampling}
            for mode in ({}, {"deterministic": True}):
                measure(model, args, options | mode)
            share = equal_share(model, requests(args.equal, args.max_new_tokens, seed=7), options)
            print(f"  {share:.2%} of a fast batch's tokens equal those of a lone run")


if __name__ == "__main__":
    main()
