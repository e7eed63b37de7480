"""What contrastive search costs: a greedy text and those of top_k candidates a token, in turns.

    python bench/contrastive.py                     the demo model
    python bench/contrastive.py -m MODEL.gguf

The least of several rounds, after a short prompt and after one that fills half of the context.  The first ratio is to
the greedy text; the second to nothing but steps of top_k forks, one token each, so it is the price of forking, hidden
states and choosing.  "repeats" are the 4-grams of the new text that came before in it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import fastgpt_c

STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play in the park. One day, she saw a big dog. "
    "The dog was very friendly, and it wagged its tail. "
)
TOP_KS = (2, 4, 8)
N_ROUNDS = 5


def n_repeats(tokens: Sequence[int]) -> int:
    grams = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return len(grams) - len(set(grams))


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def step_seconds(model: fastgpt_c.Model, prompt: list[int], top_k: int, n_new: int) -> float:
    """Of one step halfway through the text, of as many forks."""
    with model.session() as session:
        session.prefill(prompt + [0] * (n_new // 2))
        forks = [session.fork() for _ in range(top_k)]
        return seconds(lambda: fastgpt_c.step([(fork, [0]) for fork in forks]))


def compare(model: fastgpt_c.Model, prompt: list[int], n_new: int) -> None:
    """Prints a line for each way."""
    options: dict[str, Any] = {"max_new_tokens": n_new, "logit_bias": {model.eos_token or 0: -1e9}}
    ways = {0: {"temperature": 0}} | {k: {"penalty_alpha": 0.6, "top_k": k} for k in TOP_KS}
    runs: dict[int, list[fastgpt_c.Completion]] = {k: [] for k in ways}
    steps: dict[int, list[float]] = {k: [] for k in TOP_KS}
    for _ in range(N_ROUNDS):
        for k, way in ways.items():
            runs[k].append(model.generate(prompt, **options, **way))
            if k:
                steps[k].append(step_seconds(model, prompt, k, n_new))
    each = {k: min(run.decode_seconds for run in done) / (n_new - 1) for k, done in runs.items()}
    for k, done in runs.items():
        name = f"top_k {k}" if k else "greedy"
        step = f"{each[k] / min(steps[k]):6.2f} steps" if k else " " * 12
        print(f"  {name:8}{each[k] * 1e3:8.2f} ms a token{each[k] / each[0]:6.2f}{step}"
              f"{n_repeats(done[-1].tokens):5} repeats")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", help="the demo model if not given")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-n", type=int, default=100, help="tokens a text (100)")
    args = parser.parse_args()
    with fastgpt_c.load(args.model, n_threads=args.threads) as model:
        short = model.encode(STORY)
        for prompt in (short, (short * model.n_ctx)[: model.n_ctx // 2]):
            print(f"{len(prompt)} tokens and {args.n} new ones")
            compare(model, prompt, args.n)


if __name__ == "__main__":
    main()
