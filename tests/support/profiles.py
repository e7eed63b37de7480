"""What the tests of profiles share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models import write_random_gguf

import fastgpt_c
from fastgpt_c.profiling import machine
from fastgpt_c.profiling.profile import Profile

ROOFLINE = machine.Roofline(2, 30e9, 100e9, 0.0, 400e9)


def write_source(folder: Path) -> Path:
    """An F32 model of 96 tokens and 600 positions, whose rows are whole blocks of every type."""
    return write_random_gguf(folder / "f32.gguf", n_layer=2, n_head=4, n_embd=64, n_ctx=600, n_vocab=96)


def profiled(session: fastgpt_c.Session, tokens: list[int], n: int, **options: Any) -> Profile:
    """tokens at once, then n of them again, one by one, each after a sample."""
    sampler = fastgpt_c.Sampler(session.n_vocab, temperature=0)
    with session.profile(**options) as p:
        logits = session.prefill(tokens)
        for token in tokens[:n]:
            session.sample(sampler, logits)
            logits = session.decode(token)
    return p
