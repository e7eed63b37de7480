"""What it costs to choose a token: the sampler alone, with a logits processor in Python, and under a constraint.

    python bench/choosing.py

Random logits, one thread; the least of many calls, in microseconds.  Samplers and processors have GPT-2's 50257 tokens,
the constraint the demo model's 4096.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import fastgpt_c
from fastgpt_c.generation.constraints import constraint_on
from fastgpt_c.generation.token_selector import TokenSelector

N_VOCAB, N_CALLS = 50257, 200

SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "top_p 0.95": {},
    "top_k 40": {"top_k": 40},
    "top_n_sigma 1": {"top_n_sigma": 1.0, "top_p": 1},
    "typical_p 0.2": {"typical_p": 0.2, "top_p": 1},
    "mirostat_tau 3": {"mirostat_tau": 3.0, "top_p": 1},
}


def least(call: Callable[[], object]) -> float:
    """Microseconds."""
    seconds = []
    for _ in range(N_CALLS):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return min(seconds) * 1e6


class Vocabulary:
    """As much of a model as a TokenSelector looks at."""

    n_vocab, eos_token, eos_tokens = N_VOCAB, None, ()


def no_change(tokens: Sequence[int], logits: np.ndarray) -> None:
    """What a call alone costs."""


def one_pass(tokens: Sequence[int], logits: np.ndarray) -> None:
    """One NumPy operation on all logits."""
    logits += 1.0


def main() -> None:
    logits = np.random.default_rng(0).normal(0.0, 3.0, N_VOCAB).astype(np.float32)
    for name, fields in SAMPLINGS.items():
        sampler = fastgpt_c.Sampler(N_VOCAB, seed=1, **fields)
        print(f"{name:28}{least(lambda sampler=sampler: sampler.sample(logits)):8.0f}")
    for name, processor in {"no processor": None, "empty processor": no_change, "x + 1": one_pass}.items():
        options = fastgpt_c.Options(temperature=0, logits_processor=processor)
        selector = TokenSelector(Vocabulary(), options, [])  # type: ignore[arg-type]
        choose = partial(selector.select, [], logits, fastgpt_c.Sampler.sample)
        print(f"greedy, {name:20}{least(choose):8.0f}")
    with fastgpt_c.load() as model:
        story = iter(model.encode("Once upon a time there was a little girl. " * 100))
        constraint = constraint_on(model, "(?s).*", None, None)
        assert constraint is not None

        def advance() -> None:
            constraint.mask()
            constraint.accept(next(story))

        print(f"{'regex (?s).*, a token':28}{least(advance):8.0f}")


if __name__ == "__main__":
    main()
