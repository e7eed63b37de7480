"""What a shared prefix saves: many prompts with one beginning.

    python bench/prefix.py [MODEL] [--threads N] [--prompts 32] [--prefix 400] [--own 20] [--new 20] [--rounds 3]

MODEL is a GGUF file, the demo model if not given.  Each prompt is the common prefix, --own tokens of its own and --new
generated ones; all prompts run in one batch.  In turns, round by round, seconds of
    prefix    one prefill of the prefix
    own       the prompts' own tokens and the new ones, as if there were no prefix
    shared    one prefill, a fork for each prompt, then their tokens
    copied    one prefill, a copy for each prompt, then their tokens: stored and read again for each
and the same by generate_batch, which finds out itself what the prompts have in common, and draws the new tokens:
    batch own     the prompts' own tokens as prompts of a batch
    batch shared  whole prompts
The ratio shared / (prefix + own) is the price of having the prefix at all: attention over it.  It leaves nothing out:
"own" knows of no prefix, so all that its presence costs later tokens counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

import fastgpt_c

# What takes the prefix, and the same work without it.
BESIDE = {"shared": "own", "copied": "own", "batch shared": "batch own"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--deterministic", action="store_true")
    for name, n in (("prompts", 32), ("prefix", 400), ("own", 20), ("new", 20), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=n)
    args = parser.parse_args()
    with fastgpt_c.load(args.model, n_threads=args.threads) as model:
        bench = Bench(model, args)
        rounds = [
            {name: seconds(work, args.threads) for name, work in bench.works().items()} for _ in range(args.rounds)
        ]
        print(report(rounds, bench))


class Bench:
    """The work of one round, and what the caches of the last one took."""

    def __init__(self, model: fastgpt_c.Model, args: argparse.Namespace) -> None:
        rng = np.random.default_rng(1)
        self.model, self.args = model, args
        self.prefix = rng.integers(0, model.n_vocab, args.prefix)
        self.own = rng.integers(0, model.n_vocab, (args.prompts, args.own + args.new))
        self.n_ctx = args.prefix + args.own + args.new
        self.n_bytes: dict[str, int] = {}

    def works(self) -> dict[str, Callable[[], None]]:
        return {
            "prefix": lambda: self._read_prefix().close(),
            "own": lambda: self._run([self._session() for _ in self.own]),
            "shared": self._shared,
            "copied": self._copied,
            "batch own": lambda: self._generate([]),
            "batch shared": lambda: self._generate(self.prefix.tolist()),
        }

    def _session(self) -> fastgpt_c.Session:
        return self.model.session(n_ctx=self.n_ctx, deterministic=self.args.deterministic)

    def _read_prefix(self) -> fastgpt_c.Session:
        session = self._session()
        session.prefill(self.prefix)
        return session

    def _shared(self) -> None:
        with self._read_prefix() as base:
            forks = [base.fork() for _ in self.own]
        self.n_bytes["shared"] = forks[0].n_shared_bytes + sum(fork.n_bytes for fork in forks)
        self._run(forks)

    def _copied(self) -> None:
        with self._read_prefix() as base:
            copies = [base.copy() for _ in self.own]
        self.n_bytes["copied"] = sum(copy.n_bytes for copy in copies)
        self._run(copies)

    def _run(self, sessions: list[fastgpt_c.Session]) -> None:
        """Their own tokens at once, then the new ones step by step."""
        cuts = [0, *range(self.args.own, self.own.shape[1] + 1)]
        for first, end in pairwise(cuts):
            fastgpt_c.step([(session, own[first:end]) for session, own in zip(sessions, self.own, strict=True)])
        for session in sessions:
            session.close()

    def _generate(self, prefix: list[int]) -> None:
        """The prompts by one batch, each with all its new tokens."""
        eos = self.model.eos_token
        completions = self.model.generate_batch(
            [prefix + own[: self.args.own].tolist() for own in self.own],
            max_new_tokens=self.args.new,
            temperature=0,
            logit_bias=None if eos is None else {eos: -np.inf},
            max_batch=self.args.prompts,
            deterministic=self.args.deterministic,
            n_threads=self.args.threads,
        )
        if any(len(completion.tokens) != self.args.new for completion in completions):
            raise AssertionError("a text ended early")


def seconds(work: Callable[[], None], n_threads: int | None) -> float:
    """With one thread its own seconds, which other processes hardly disturb."""
    clock = time.process_time if n_threads == 1 else time.perf_counter
    begin = clock()
    work()
    return clock() - begin


def report(rounds: list[dict[str, float]], bench: Bench) -> str:
    model, args = bench.model, bench.args
    ratios = [{name: r[name] / (r["prefix"] + r[own]) for name, own in BESIDE.items()} for r in rounds]
    head = f"{model.name or model.path.name}, {model.type}: {args.prompts} prompts, {args.prefix} tokens in common, "
    lines = [head + f"{args.own} of their own, {args.new} new ones"]
    for name in rounds[0]:
        line = f"{name:12}{statistics.median(r[name] for r in rounds) * 1e3:10.1f} ms"
        if name in ratios[0]:
            ratio = statistics.median(r[name] for r in ratios)
            line += f"{ratio:8.2f} x (prefix + {BESIDE[name]})"
        if name in bench.n_bytes:
            line += f"{bench.n_bytes[name] / 1e6:10.1f} MB of caches"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
