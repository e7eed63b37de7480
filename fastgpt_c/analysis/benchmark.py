"""How long a model's steps take, and the bytes that they move and the operations that they compute."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from fastgpt_c.engine.model import LoadedModel
from fastgpt_c.engine.session import Session
from fastgpt_c.engine.step import step
from fastgpt_c.errors import UsageError
from fastgpt_c.native.dtypes import row_bytes
from fastgpt_c.native.lib import lib

BATCH_N_PAST = 16  # positions of each sequence before the step of a batch
STEPS_PER_ROUND = 8  # of a decode: one alone is too short for the clock


@dataclass(frozen=True)
class Row:
    """One kind of step.

    work          "prefill" (n_tokens new tokens of one sequence), "decode" or "batch" (one of each of n_sequences)
    n_past        positions of each sequence before the step
    seconds       of a step, the median of several rounds; best_seconds the least of them
    n_bytes       weights, keys and values that the step must read
    n_operations  of its products; a multiply-add is two
    """

    work: str
    n_threads: int
    n_tokens: int
    n_sequences: int
    n_past: int
    seconds: float
    best_seconds: float
    n_bytes: int
    n_operations: int

    @property
    def tokens_per_second(self) -> float:
        """New tokens of all sequences."""
        return self.n_tokens / self.seconds


@dataclass(frozen=True)
class Plan:
    """What to measure: lengths of prefills, positions before decodes, sizes of batches; each may be empty."""

    prefill: Sequence[int]
    decode: Sequence[int]
    batch: Sequence[int]
    rounds: int

    def check(self, n_ctx: int) -> None:
        """Raises UsageError where a model of n_ctx positions cannot do it."""
        if self.rounds < 1:
            raise UsageError(f"rounds is {self.rounds}, but at least one is needed")
        limits = {"prefill": (1, n_ctx), "decode": (0, n_ctx - STEPS_PER_ROUND), "batch": (1, 1024)}
        for name, (least, most) in limits.items():
            for value in getattr(self, name):
                if not least <= value <= most:
                    raise UsageError(f"{name} {value} is outside [{least}, {most}] for this model")


def measure(model: LoadedModel, n_threads: int, plan: Plan) -> Iterator[Row]:
    """Measures what plan lists, a row at a time, each after a round that is not counted.  Raises as Plan.check does."""
    plan.check(model.n_ctx)
    with model.session(n_threads=n_threads) as session:
        for n in plan.prefill:
            yield _prefill(model, session, n, plan.rounds)
        for n_past in plan.decode:
            yield _decode(model, session, n_past, plan.rounds)
    for n in plan.batch:
        yield _batch(model, n_threads, n, plan.rounds)


def _prefill(model: LoadedModel, session: Session, n: int, rounds: int) -> Row:
    tokens = some_tokens(model.n_vocab, n)

    def time_prefill() -> float:
        session.truncate(0)
        return _timed(lambda: session.prefill(tokens))

    return _row(model, session, "prefill", [time_prefill() for _ in range(rounds + 1)], n_tokens=n)


def _decode(model: LoadedModel, session: Session, n_past: int, rounds: int) -> Row:
    session.truncate(0)
    if n_past:
        session.prefill(some_tokens(model.n_vocab, n_past))
    tokens = some_tokens(model.n_vocab, STEPS_PER_ROUND)

    def time_decode() -> float:
        session.truncate(n_past)
        return _timed(lambda: [session.decode(token) for token in tokens]) / len(tokens)

    return _row(model, session, "decode", [time_decode() for _ in range(rounds + 1)], n_past=n_past)


def _batch(model: LoadedModel, n_threads: int, n: int, rounds: int) -> Row:
    n_past = min(BATCH_N_PAST, model.n_ctx - 1)
    prompt, token = some_tokens(model.n_vocab, n_past), some_tokens(model.n_vocab, 1)
    with ExitStack() as stack:
        sessions = [stack.enter_context(model.session(n_past + 1, n_threads)) for _ in range(n)]
        for session in sessions:
            session.prefill(prompt)

        def time_step() -> float:
            for session in sessions:
                session.truncate(n_past)
            return _timed(lambda: step([(session, token) for session in sessions]))

        seconds = [time_step() for _ in range(rounds + 1)]
        return _row(model, sessions[0], "batch", seconds, n_sequences=n, n_past=n_past)


def some_tokens(n_vocab: int, n: int) -> list[int]:
    """n tokens, spread over the vocabulary; always the same."""
    return [(7919 * i + 12345) % n_vocab for i in range(n)]


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _row(
    model: LoadedModel,
    session: Session,
    work: str,
    seconds: list[float],
    n_tokens: int = 1,
    n_sequences: int = 1,
    n_past: int = 0,
) -> Row:
    counted = seconds[1:]
    n_new = n_tokens * n_sequences
    cached = n_sequences * n_past * 2 * model.n_layer * row_bytes(session.kv_type, model.n_embd)
    return Row(
        work=work,
        n_threads=session.n_threads,
        n_tokens=n_new,
        n_sequences=n_sequences,
        n_past=n_past,
        seconds=statistics.median(counted),
        best_seconds=min(counted),
        n_bytes=lib.fastgpt_model_step_bytes(model.handle) + cached,
        n_operations=operations(model, n_tokens, n_sequences, n_past),
    )


def operations(model: LoadedModel, n_tokens: int, n_sequences: int = 1, n_past: int = 0) -> int:
    """Of the products of a step: n_tokens new ones of each sequence, and logits for the last of them."""
    n_embd, n_layer = model.n_embd, model.n_layer
    layers = n_tokens * n_layer * (4 * n_embd * n_embd + 2 * n_embd * model.n_ff)
    seen = n_tokens * n_past + n_tokens * (n_tokens + 1) // 2
    attention = 2 * n_layer * n_embd * seen
    return 2 * n_sequences * (layers + attention + n_embd * model.n_vocab)
