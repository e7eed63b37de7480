"""A step: new tokens of one or more sequences, through all layers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, Tokens, token_array
from fastgpt_c.native.lib import ffi, float_pointer, lib


class Steppable(Protocol):
    """What a step needs of a Session."""

    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    deterministic: bool

    @property
    def n_past(self) -> int: ...

    def held_for_step(self) -> AbstractContextManager[Any]:
        """Its fastgpt_kv_cache *, for the caller alone; an error in the block leaves the cache as it was before."""

    def run_in_context(self, call: Callable[[Any], int], n_tokens: int) -> None:
        """call(fastgpt_context *), a step of n_tokens; raises what its status stands for."""


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
    options = ffi.new("fastgpt_step_options *", {"struct_size": ffi.sizeof("fastgpt_step_options"), "taps": taps})
    options.all_logits = all_logits
    options.deterministic = any(session.deterministic for session, _ in batch)
    n_tokens = sum(map(len, arrays))
    with ExitStack() as stack:
        sessions = {id(session): session for session, _ in batch}
        caches = {key: stack.enter_context(session.held_for_step()) for key, session in sessions.items()}
        spans = ffi.new("fastgpt_span[]", len(batch))
        for span, (session, _), tokens in zip(spans, batch, arrays, strict=True):
            span.kv, span.tokens, span.n_tokens = caches[id(session)], ffi.from_buffer("int32_t[]", tokens), len(tokens)
        pointer = ffi.NULL if logits is None else float_pointer(logits)
        lead = batch[0][0]
        lead.run_in_context(
            lambda context: int(lib.fastgpt_step(context, spans, len(batch), options, pointer)), n_tokens
        )
