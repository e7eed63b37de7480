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
    """The part of a Session that a step needs."""

    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    deterministic: bool

    @property
    def n_past(self) -> int: ...

    def claim_for(self, guard: Any) -> Any:
        """Its fastgpt_kv_cache *, reserved for the guard until that ends."""

    def run_in_context(self, guard: Any, n_tokens: int) -> None:
        """Runs the step of guard, of n_tokens; raises the exception of its status."""

    def close_if_asked(self) -> None:
        """Called when the guard has ended: completes a close() that came during the step."""


def step(batch: Sequence[tuple[Steppable, Tokens]], all_logits: bool = False) -> Floats:
    """Appends tokens to several sessions of one model in one step, which shares every matrix product.

    batch       pairs (Session, tokens), of sessions on one model, each with at least one token
    all_logits  logits after every token, not only after the last of each session

    Returns float32 [n_sessions][n_vocab], or with all_logits [sum of n_tokens][n_vocab] in the order of the tokens.
    The first session's threads do the work; the step is deterministic if one of the sessions is.  Raises as
    Session.prefill does; then no session has changed.
    """
    arrays = token_arrays(batch)
    n_rows = sum(map(len, arrays)) if all_logits else len(batch)
    logits = np.empty((n_rows, batch[0][0].n_vocab), np.float32)
    run_step(batch, arrays, logits, all_logits=all_logits)
    return logits


def token_arrays(batch: Sequence[tuple[Steppable, Tokens]]) -> list[npt.NDArray[np.int32]]:
    """int32 tokens of each session of a step; raises UsageError for an empty batch, or anything but tokens."""
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
    """Runs the step of batch on these token arrays; fills logits, and the arrays of taps, a fastgpt_taps *."""
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
