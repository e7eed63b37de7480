"""A step: new tokens of one or more sequences, through all layers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.edits import Edit, edit_array
from fastgpt_c.engine.hooks import HookedStep, Hooks
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, Tokens, checked_int, float_array, token_array
from fastgpt_c.native.interrupts import ending, new_guard
from fastgpt_c.native.lib import ffi, float_pointer


class Steppable(Protocol):
    """The part of a Session that a step needs."""

    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    n_ff: int
    deterministic: bool

    @property
    def n_past(self) -> int: ...

    def claim_for(self, guard: Any) -> Any:
        """Its fastgpt_kv_cache *, reserved for the guard until that ends."""

    def run_in_context(self, guard: Any, n_tokens: int) -> None:
        """Runs the step of guard, of n_tokens; raises the exception of its status."""

    def close_if_asked(self) -> None:
        """Called when the guard has ended: completes a close() that came during the step."""


@dataclass(frozen=True, eq=False)
class Span:
    """New tokens of one session for fastgpt_c.step and fastgpt_c.inspect, and what is different about them.

    session      a Session
    tokens       ids, at least one
    edits        changes of what the step computes for this session; they never touch another one
    start_layer  in [0, n_layer]: layers below are not computed for these tokens, and the session has no keys and values
                 of them there afterwards, so that its next steps must begin at that layer or above until it is
                 truncated.  Earlier positions are read as usual: fork them from a session that has them
    resid        [n_tokens][n_embd]: what resid_pre of start_layer is to be (for n_layer the last resid_post), such as
                 inspect has shown it; None with start_layer 0 = the embeddings of the tokens
    """

    session: Steppable
    tokens: Tokens
    edits: Sequence[Edit] = ()
    start_layer: int = 0
    resid: npt.ArrayLike | None = None

    @property
    def rank(self) -> tuple[int, bool]:
        """By which the library wants spans to be sorted."""
        return self.start_layer, self.resid is not None


Batch = Sequence["Span | tuple[Steppable, Tokens]"]


def step(batch: Batch, all_logits: bool = False, hooks: Hooks | None = None) -> Floats:
    """Appends tokens to several sessions of one model in one step, which shares every matrix product.

    batch       pairs (Session, tokens), or Spans, of sessions on one model, each with at least one token
    all_logits  logits after every token, not only after the last of each session
    hooks       {(site, layer): function}: function(values, point) is called with a float32 array of a site's values,
                [n_tokens][n_embd] and so on as Session.inspect has them, once for each session (and for each 512
                tokens of the step); it changes the array, or returns another one of its shape, or does neither.  point
                is a HookPoint.  It may be called in another thread, and cannot use the sessions of the step.  Each
                call costs some microseconds and waits for the interpreter: Edits cost hardly anything.  An exception
                of the function ends the step, and is raised here

    Returns float32 [n_sessions][n_vocab], or with all_logits [sum of n_tokens][n_vocab] in the order of the tokens.
    The first session's threads do the work; the step is deterministic if one of the sessions is.  Raises as
    Session.prefill does; then no session has changed.
    """
    spans = spans_of(batch)
    order = sorted(range(len(spans)), key=lambda i: spans[i].rank)
    spans = [spans[i] for i in order]
    arrays = token_arrays(spans)
    counts = list(map(len, arrays)) if all_logits else [1] * len(spans)
    logits = np.empty((sum(counts), spans[0].session.n_vocab), np.float32)
    run_step(spans, arrays, logits, all_logits=all_logits, hooks=hooks, order=order)
    if order == sorted(order):
        return logits
    rows = dict(zip(order, np.split(logits, np.cumsum(counts)[:-1]), strict=True))
    return np.concatenate([rows[i] for i in range(len(spans))])


def spans_of(batch: Batch) -> list[Span]:
    """The batch as Spans; raises UsageError if it is empty."""
    spans = [item if isinstance(item, Span) else Span(*item) for item in batch]
    if not spans:
        raise UsageError("a step needs at least one session")
    for span in spans:
        checked_int("start_layer", span.start_layer, 0, span.session.n_layer)
    return spans


def token_arrays(spans: Sequence[Span]) -> list[npt.NDArray[np.int32]]:
    """int32 tokens of each span of a step; raises UsageError for anything but tokens."""
    return [token_array(span.tokens) for span in spans]


def run_step(
    spans: Sequence[Span],
    arrays: Sequence[npt.NDArray[np.int32]],
    logits: Floats | None,
    *,
    all_logits: bool,
    hooks: Hooks | None = None,
    order: Sequence[int] | None = None,
    taps: Any = ffi.NULL,
) -> None:
    """Runs the step of spans, sorted by rank, on these token arrays; fills logits, and the arrays of taps, a
    fastgpt_taps *.  order has the place of each span in the caller's batch, for hooks."""
    guard, structs = new_guard(), ffi.new("fastgpt_span[]", len(spans))
    sessions = {id(span.session): span.session for span in spans}
    n_tokens = sum(map(len, arrays))
    changes = _Changes(spans, arrays, hooks or {}, order or range(len(spans)))
    try:
        with ending(guard):
            caches = {key: session.claim_for(guard) for key, session in sessions.items()}
            for struct, span, tokens in zip(structs, spans, arrays, strict=True):
                struct.kv, struct.tokens = caches[id(span.session)], ffi.from_buffer("int32_t[]", tokens)
                struct.n_tokens = len(tokens)
            guard.spans, guard.n_spans = structs, len(spans)
            guard.options.all_logits, guard.options.taps = all_logits, taps
            guard.options.deterministic = any(span.session.deterministic for span in spans)
            guard.logits = ffi.NULL if logits is None else float_pointer(logits)
            changes.fill(guard.options)
            try:
                spans[0].session.run_in_context(guard, n_tokens)
            finally:
                changes.raise_again()
            guard.keep = True
    finally:
        for session in sessions.values():
            session.close_if_asked()


class _Changes:
    """What a step changes, as the library takes it; holds whatever that points to."""

    def __init__(
        self, spans: Sequence[Span], arrays: Sequence[npt.NDArray[np.int32]], hooks: Hooks, order: Sequence[int]
    ) -> None:
        session = spans[0].session
        self._error = ffi.new("fastgpt_error *")
        self._n_edits = sum(len(span.edits) for span in spans)
        self._edits, self._starts, self._hooked = ffi.NULL, ffi.NULL, None
        if self._n_edits:
            self._edits, self._values = edit_array([span.edits for span in spans], session.n_head, session.n_embd)
        if any(span.start_layer or span.resid is not None for span in spans):
            self._starts = ffi.new("fastgpt_start[]", len(spans))
            self._resids = [_residuals(span, len(tokens)) for span, tokens in zip(spans, arrays, strict=True)]
            for start, span, resid in zip(self._starts, spans, self._resids, strict=True):
                start.layer = span.start_layer
                start.resid = ffi.NULL if resid is None else float_pointer(resid)
        if hooks:
            n_keys = max(span.session.n_past + len(tokens) for span, tokens in zip(spans, arrays, strict=True))
            shape = (session.n_head, session.n_embd)
            self._hooked = HookedStep(hooks, order, shape, sum(map(len, arrays)), n_keys)

    def fill(self, options: Any) -> None:
        """Writes them into a fastgpt_step_options."""
        options.error, options.starts = self._error, self._starts
        options.edits, options.n_edits = self._edits, self._n_edits
        if self._hooked:
            options.hooks, options.n_hooks = self._hooked.structs, len(self._hooked.structs)

    def raise_again(self) -> None:
        """Raises what a hook has raised."""
        if self._hooked and self._hooked.raised:
            raise self._hooked.raised


def _residuals(span: Span, n_tokens: int) -> Floats | None:
    if span.resid is None:
        return None
    resid, shape = float_array("resid", span.resid), (n_tokens, span.session.n_embd)
    if resid.shape != shape:
        raise UsageError(f"resid has the shape {resid.shape}, not [n_tokens][n_embd] = {shape}")
    return resid
