"""A program that raises from signal handlers at random moments of each kind of work, and looks at what is left.

    python signal_moments.py MODEL.gguf N_MOMENTS SEED [KIND...]

MODEL has no tokenizer and room for 256 tokens at least; without KIND it is all kinds of work.  Each moment has one to
four signals, SIGALRM and SIGTERM, close behind each other.  Prints how many moments struck; fails by its exit code, or
by a crash.
"""

from __future__ import annotations

import faulthandler
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastgpt_c
from fastgpt_c import Options, Reader
from fastgpt_c.batching.requests import Batch
from fastgpt_c.native import interrupts

MOST_SIGNALS = 4  # of a moment
N_TOKENS = 200
OPTIONS: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0, "deterministic": True, "on_overflow": "truncate"}


class Moment(BaseException):
    """A handler raised it; as KeyboardInterrupt and SystemExit it is no Exception."""


class Signals:
    """Handlers that raise for as many signals as a moment has."""

    def __init__(self) -> None:
        self.n_left = self.n_raised = 0
        for number in (signal.SIGALRM, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: object) -> None:
        if self.n_left > 0:
            self.n_left -= 1
            self.n_raised += 1
            if number == signal.SIGALRM and self.n_left:
                signal.raise_signal(signal.SIGTERM)  # is handled, and raises, while this one is on its way
            raise Moment

    def during(self, work: Callable[[], object], delay: float, n_signals: int) -> None:
        """Does work while n_signals come, the first after a delay, the others as fast as they can."""

        def watched(n_levels: int) -> None:
            try:  # not contextlib's suppress, in whose own functions signals may come, too
                if n_levels:
                    watched(n_levels - 1)
                else:
                    signal.setitimer(signal.ITIMER_REAL, max(delay, 1e-6), 2e-4)
                    work()
                self.n_left = 0
            except Moment:
                pass

        self.n_left = n_signals
        watched(MOST_SIGNALS)
        self.n_left = 0
        signal.setitimer(signal.ITIMER_REAL, 0)


class Work:
    """Kinds of work: each is a function that does it, and one that says whether what is left is sound."""

    def __init__(self, model: fastgpt_c.Model, rng: random.Random) -> None:
        self.model = model
        self.tokens = [rng.randrange(model.n_vocab) for _ in range(N_TOKENS)]
        self.session, self.other = model.session(), model.session()
        self.reader = Reader(model.session(deterministic=True))
        options = Options(**OPTIONS)
        self.batch = Batch(model, options, max_batch=3, max_tokens_in_flight=None)
        self.expected: dict[str, Any] = {}

    def kinds(self) -> dict[str, Callable[[], Any]]:
        return {
            "prefill": self.prefill,
            "step of two": self.step,
            "decode": self.decode,
            "generate": lambda: self.model.generate(self.tokens, **OPTIONS).tokens,
            "stream": lambda: self.stream(prompt_lookup=0),
            "speculative": lambda: self.stream(prompt_lookup=3),
            "batch": self.run_batch,
            "score": lambda: self.model.score(self.tokens, top_k=2).logprobs[1:],
            "beam search": lambda: [beam.tokens for beam in self.model.beam_search(
                self.tokens[:50], num_beams=3, max_new_tokens=4
            )],
        }  # fmt: skip

    def prefill(self) -> Any:
        self._empty(self.session)
        return self.session.prefill(self.tokens)

    def step(self) -> Any:
        self._empty(self.session)
        self._empty(self.other)
        return fastgpt_c.step([(self.session, self.tokens[:90]), (self.other, self.tokens[90:])])

    def decode(self) -> Any:
        self._empty(self.session)
        return [self.session.decode(token) for token in self.tokens[:20]][-1]

    def stream(self, prompt_lookup: int) -> Any:
        stream = self.model.stream(self.tokens, reader=self.reader, prompt_lookup=prompt_lookup, **OPTIONS)
        return [stream.finish().tokens, self.reader.logits_after(self.tokens)]

    def run_batch(self) -> Any:
        prompts = [self.tokens[i:] for i in (0, 50, 100, 150)]
        jobs = sorted(self.batch.run(enumerate(prompts)), key=lambda job: job.tag)
        return [job.tokens for job in jobs if job.error is None]

    def _empty(self, session: fastgpt_c.Session) -> None:
        """As a server does before the next request: the cache holds what whole steps put there, or nothing."""
        held = session.tokens.tolist()
        begins = [self.tokens, self.tokens[90:]]
        assert any(held == begin[: len(held)] for begin in begins), f"strange tokens: {held}"
        assert len(held) in (0, 90, 110, N_TOKENS) or len(held) <= 20, f"part of a step: n_past is {len(held)}"
        session.truncate(0)


def same(a: Any, b: Any) -> bool:
    """To the bit."""
    if isinstance(a, np.ndarray):
        return a.tobytes() == b.tobytes()
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def main(path: str, n_moments: int, seed: int, names: list[str]) -> None:
    rng, signals = random.Random(seed), Signals()
    work = Work(fastgpt_c.load(Path(path), n_threads=rng.choice((1, 2))), rng)
    for name, do in work.kinds().items():
        if names and name not in names:
            continue
        expected, n_struck, n_tried = do(), 0, 0
        begin = time.perf_counter()
        assert same(do(), expected), f"{name} differs without a signal"
        seconds = time.perf_counter() - begin
        while n_struck < n_moments and n_tried < 10 * n_moments:
            n_tried += 1
            interrupts.SECONDS_UNINTERRUPTED = rng.choice((0, 0, 0.1))  # with a thread of the step's own, or without
            n_before = signals.n_raised
            signals.during(do, seconds * rng.uniform(0, 1.1), rng.choice((1, 1, 2, MOST_SIGNALS)))
            n_struck += signals.n_raised > n_before
            assert same(do(), expected), f"{name} differs after moment {n_tried}"
        print(f"{name}: {n_struck} moments, the same as ever after each", flush=True)


if __name__ == "__main__":
    faulthandler.enable()
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
