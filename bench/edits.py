"""What edits cost: a batch of 32 sequences with a different edit each, beside the same batch without.

    python bench/edits.py MODEL.gguf [--threads N] [--rounds 7] [--tokens 1]

Each sequence holds 15 tokens and gets --tokens more in one step.  An edit is of one site in one layer: sequence i
has the i-th of the line's sites and of the layers, in turn.  A hook is one function at one site of one layer.
Steps with and without take turns; a line is the median of their ratios, round by round.  Times are CPU time, of all
threads together, which other processes hardly disturb.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import fastgpt_c
from fastgpt_c import SITES, Edit, Span

N_SEQUENCES, N_PAST = 32, 15
ROWS = {
    "resid_pre": ["resid_pre"],
    "z of one head": ["z"],
    "all sites that are rows in memory": [s.name for s in SITES.values() if s.has_layers and s.kind != "keys"
                                          and s.name not in ("attn_out", "ff_out")],
    "attn_out, scaled": ["attn_out"],
    "ff_out, scaled": ["ff_out"],
    "pattern of one head": ["pattern"],
}  # fmt: skip


def edits_of(model: fastgpt_c.Model, sites: list[str], rng: np.random.Generator) -> list[list[Edit]]:
    """One for each sequence."""
    found = []
    for i in range(N_SEQUENCES):
        site = SITES[sites[i % len(sites)]]
        head = i % model.n_head if site.kind in ("heads", "keys") else None
        value = float(rng.standard_normal()) if site.kind == "keys" or site.name.endswith("_out") else None
        if value is None:
            width = 4 * model.n_embd if site.kind == "ff" else model.n_embd // (model.n_head if head is not None else 1)
            found.append([Edit(i % model.n_layer, site.name, "set", rng.standard_normal(width), head, N_PAST, N_PAST)])
        else:
            found.append([Edit(i % model.n_layer, site.name, "scale", value, head, N_PAST, N_PAST)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with fastgpt_c.load(args.model, n_threads=args.threads) as model:
        tokens = rng.integers(0, model.n_vocab, args.tokens)
        sessions = [model.session(n_ctx=N_PAST + args.tokens) for _ in range(N_SEQUENCES)]
        fastgpt_c.step([(session, rng.integers(0, model.n_vocab, N_PAST)) for session in sessions])

        def seconds(edits: list[list[Edit]], hooks: fastgpt_c.engine.hooks.Hooks | None = None) -> float:
            begin = time.process_time()
            fastgpt_c.step([Span(s, tokens, e) for s, e in zip(sessions, edits, strict=True)], hooks=hooks)
            end = time.process_time() - begin
            for session in sessions:
                session.truncate(N_PAST)
            return end

        none: list[list[Edit]] = [[]] * N_SEQUENCES
        seconds(none)
        print(f"| edits of {N_SEQUENCES} sequences, {args.tokens} tokens each | without, ms | ratio |\n|---|---|---|")
        jobs: dict[str, Callable[[], float]] = {"nothing again": lambda: seconds(none)}
        for name, sites in ROWS.items():
            jobs[name] = partial(seconds, edits_of(model, sites, rng))
        jobs["a hook at resid_pre of one layer"] = lambda: seconds(none, {("resid_pre", 3): lambda values, point: None})
        for name, job in jobs.items():
            pairs = [(seconds(none), job()) for _ in range(args.rounds)]
            ratio = statistics.median(b / a for a, b in pairs)
            print(f"| {name} | {1e3 * statistics.median(a for a, _ in pairs):.1f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
