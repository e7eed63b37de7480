"""A step: new tokens of one or more sequences, through all layers at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, Tokens, token_array
from fastgpt_c.native.interrupts import ending, new_guard
from fastgpt_c.native.lib import ffi, float_pointer


class Steppable(Protocol):
    """What a step needs of a Session."""

    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    deterministic: bool

    @property
    def n_past(self) -> int: ...

    def claim_for(self, guard: Any) -> Any:
        """Its fastgpt_kv_cache *, which is the guard's until that ends."""

    def run_in_context(self, guard: Any, n_tokens: int) -> None:
        """The step of guard, of n_tokens; raises what its status stands for."""

    def close_if_asked(self) -> None:
        """Once the guard has ended."""


def step(batch: Sequence[tuple[Steppable, Tokens]], all_logits: bool = False) -> Floats:
    """Appends tokens to several sessions of one model in one step, which shares every matrix product.

    -> float32 [n_sessions][n_vocab], a row after the last token of each; with all_logits
       [sum of n_tokens][n_vocab], in the order of the tokens.
    The first session's threads do the work; the step is deterministic if one of the sessions is.  Raises as
    Session.prefill does; then no session has changed.
    """
    arrays = token_arrays(batch)
    n_rows = sum(map(len, arrays)) if all_logits else len(batch)
    logits = np.empty((n_rows, batch[0][0].n_vocab), np.float32)
    run_step(batch, arrays, logits, all_logits=all_logits)
    return logits


def token_arrays(batch: Sequence[tuple[Steppable, Tokens]]) -> list[npt.NDArray[np.int32]]:
    """The tokens of each session of a step; raises UsageError where there is none, or for what are no tokens."""
    if not batch:
        raise UsageError("a step needs at least one session")
    return [token_array(tokens) for _, tokens in batch]


def run_step(
    batch: Sequence[tuple[Steppable, Any]],
    arrays: Sequence[npt.NDArray[np.int32]],
    logits: Floats | None,
    *,
    all_logits: bool,
    taps: Any = ffi.NULL,
) -> None:
    """The step of batch, whose tokens are arrays; fills logits, and what taps, a fastgpt_taps *, point to."""
    guard, spans = new_guard(), ffi.new("fastgpt_span[]", len(batch))
    sessions = {id(session): session for session, _ in batch}
    try:
        with ending(guard):
            caches = {key: session.claim_for(guard) for key, session in sessions.items()}
            for span, (session, _), tokens in zip(spans, batch, arrays, strict=True):
                span.kv, span.tokens = caches[id(session)], ffi.from_buffer("int32_t[]", tokens)
                span.n_tokens = len(tokens)
            guard.spans, guard.n_spans = spans, len(batch)
            guard.options.all_logits, guard.options.taps = all_logits, taps
            guard.options.deterministic = any(session.deterministic for session, _ in batch)
            guard.logits = ffi.NULL if logits is None else float_pointer(logits)
            batch[0][0].run_in_context(guard, sum(map(len, arrays)))
            guard.keep = True
    finally:
        for session in sessions.values():
            session.close_if_asked()
