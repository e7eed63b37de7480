"""A session: one sequence of tokens, its KV cache, and the steps that extend it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from fastgpt_c._lib import check, create, error_text, ffi, float_pointer, lib
from fastgpt_c.arguments import Refused, as_integer, checked, shown
from fastgpt_c.errors import UsageError
from fastgpt_c.interrupts import Steps, ending, new_guard
from fastgpt_c.number_types import dequantize_rows, row_bytes, type_name, type_number

if TYPE_CHECKING:
    from fastgpt_c.inside import Head
    from fastgpt_c.model import Model
    from fastgpt_c.profiling import Profile
    from fastgpt_c.sampling import Sampler

Tokens = Sequence[int] | npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

# Rows of logits between two moments in which Ctrl-C gets its turn.
N_ROWS_UNINTERRUPTED = 16

Given = ParamSpec("Given")
Found = TypeVar("Found")


def exclusive(
    method: Callable[Concatenate[Session, Given], Found],
) -> Callable[Concatenate[Session, Given], Found]:
    """A method that has the session for itself: what another thread, or a signal handler, does with it meanwhile is
    refused.  What the method appends to the cache stays only if it returns."""

    @wraps(method)
    def run(self: Session, /, *args: Given.args, **kwargs: Given.kwargs) -> Found:
        guard = new_guard()
        try:
            with ending(guard):
                self._claim_for(guard)
                found = method(self, *args, **kwargs)
                guard.keep = True
        finally:
            self._close_if_asked()
        return found

    return run


class Session:
    """Made by Model.session.  One thread may use it at a time: a second one gets a UsageError at once, and so does a
    signal handler that strikes while a step runs.

    n_ctx      positions that it has room for
    n_past     positions that are filled
    n_threads  threads that its steps use; the result does not depend on them
    kv_type    "f32", "f16" or "bf16": what the cache holds.  The 16-bit types take half the memory and time of a long
               past, and round keys and values
    deterministic  whether its logits are the same bits however its tokens are cut into steps and whatever shares them,
               on one kind of CPU; slower where many tokens are read at once
    is_profiled  whether a profile of its steps has begun and not ended
    """

    def __init__(
        self,
        model: Model,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        kv_type: str = "f32",
        deterministic: bool = False,
    ) -> None:
        checked("kv_type", kv_type)
        kv = create(
            lib.fastgpt_kv_cache_create_typed, model.handle, room_of(n_ctx), type_number(kv_type),
            free=lib.fastgpt_kv_cache_free, sizeof=lib.fastgpt_kv_cache_sizeof,
        )  # fmt: skip
        self._begin(model.handle, model.pool(n_threads), kv, deterministic)

    @classmethod
    def load(
        cls,
        model: Model,
        path: str | Path,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        deterministic: bool = False,
    ) -> Session:
        """What Model.load_session does."""
        out, error = ffi.new("fastgpt_kv_cache **"), ffi.new("fastgpt_error *")
        room = room_of(n_ctx)
        status = lib.fastgpt_kv_cache_load(model.handle, os.fsencode(path), room, out, error)
        check(status, error_text(error))
        kv = ffi.gc(out[0], lib.fastgpt_kv_cache_free, size=lib.fastgpt_kv_cache_sizeof(out[0]))
        session = cls.__new__(cls)
        session._begin(model.handle, model.pool(n_threads), kv, deterministic)
        if deterministic:
            session.truncate(lib.fastgpt_kv_cache_n_deterministic(kv))
        return session

    def _begin(self, model: Any, pool: Any, kv: Any, deterministic: bool) -> None:
        # C borrows the weights and the threads: keep them alive.
        self._model, self._pool, self._kv = model, pool, kv
        self.deterministic = deterministic
        self.n_vocab: int = lib.fastgpt_model_n_vocab(model)
        self.n_embd: int = lib.fastgpt_model_n_embd(model)
        self.n_layer: int = lib.fastgpt_model_n_layer(model)
        self.n_ctx: int = lib.fastgpt_kv_cache_n_ctx(kv)
        self.kv_type = type_name(lib.fastgpt_kv_cache_type(kv))
        self.n_threads: int = lib.fastgpt_pool_n_threads(pool)
        self._context = create(
            lib.fastgpt_context_create, model, pool, 0,
            free=lib.fastgpt_context_free, sizeof=lib.fastgpt_context_sizeof,
        )  # fmt: skip
        self._steps = Steps()
        self.is_profiled = False
        self._claim = ffi.new("claim *", {"kv": kv})
        self._is_closed = False

    # ---- Steps ----

    def prefill(self, tokens: Tokens, all_logits: bool = False) -> Floats:
        """Appends tokens -> float32 [n_vocab], the logits after the last of them; natural-log units, unnormalised.

        all_logits: [n_tokens][n_vocab], a row after each token.  The array is the caller's own.
        Raises ContextFullError, UsageError (no tokens, or one outside [0, n_vocab)), Cancelled, KeyboardInterrupt and
        whatever else signal handlers raise: the step is stopped then, and n_past is as it was, but where the signal
        came when it had just ended.
        """
        rows = step([(self, tokens)], all_logits=all_logits)
        return rows if all_logits else rows[0]

    def decode(self, token: int) -> Floats:
        """Appends one token -> float32 [n_vocab], the logits after it.  Raises as prefill does."""
        return self.prefill([token]) if self.deterministic else self._decode(checked_int("token", token))

    @exclusive
    def _decode(self, token: int) -> Floats:
        logits = np.empty(self.n_vocab, np.float32)
        check(lib.fastgpt_decode(self._context, self._kv, token, float_pointer(logits)))
        return logits

    @exclusive
    def sample(self, sampler: Sampler, logits: npt.ArrayLike) -> int:
        """sampler.sample(logits), which a profile of this session counts as op "sample"."""
        from fastgpt_c.sampling import Sampler  # here, since it imports this

        if not isinstance(sampler, Sampler):
            raise UsageError(f"sampler is {shown(sampler)}, not a Sampler")
        token = ffi.new("int32_t *")
        row = float_pointer(sampler.row(logits))
        check(lib.fastgpt_profile_sample(self._context, sampler.handle, row, token))
        return int(token[0])

    def inspect(self, tokens: Tokens, *names: str, heads: Sequence[Head] = ()) -> dict[str, Floats]:
        """Appends tokens, and gives what the step had inside by names: "hidden" and so on, see fastgpt_c.inspect."""
        from fastgpt_c.inside import inspect

        return inspect([(self, tokens)], *names, heads=heads)

    @exclusive
    def unembed(self, hidden: npt.ArrayLike) -> Floats:
        """hidden [..., n_embd] -> float32 [..., n_vocab], the logits that vectors of the residual stream stand for: the
        output matrix times ln_f(hidden), for "hidden" of any layer.  A row's bits do not depend on the other rows."""
        x = float_array("hidden", hidden)
        if x.shape[-1:] != (self.n_embd,):
            raise UsageError(f"the vectors must have n_embd = {self.n_embd} numbers, not the shape {x.shape}")
        logits = np.empty((*x.shape[:-1], self.n_vocab), np.float32)
        rows, out = x.reshape(-1, self.n_embd), logits.reshape(-1, self.n_vocab)
        for i in range(0, len(rows), N_ROWS_UNINTERRUPTED):
            some = rows[i : i + N_ROWS_UNINTERRUPTED]
            check(lib.fastgpt_unembed(self._context, float_pointer(some), len(some), float_pointer(out[i:])))
        return logits

    def cancel(self) -> None:
        """Makes the step that runs now, in another thread, raise Cancelled; if none runs, the next one does."""
        context = self._context
        if context is None:
            raise UsageError("the session is closed")
        lib.fastgpt_cancel(context)

    def profile(self, n_events: int = 200_000) -> Profile:
        """with session.profile() as p: times each op of the steps in the block; see profiling.Profile.  n_events is how
        many events it keeps, 40 bytes each; 0 = sums alone.  A step of several sessions counts in the first one's."""
        from fastgpt_c.profiling import Profile

        return Profile(self, n_events)

    # ---- The cache ----

    @property
    def n_past(self) -> int:
        """Positions that are filled."""
        kv = self._kv
        if kv is None:
            raise UsageError("the session is closed")
        return int(lib.fastgpt_kv_cache_n_past(kv))

    @property
    @exclusive
    def tokens(self) -> npt.NDArray[np.int32]:
        """int32 [n_past], a copy: what stands at the positions that are filled."""
        tokens = np.empty(self.n_past, np.int32)
        ffi.memmove(ffi.from_buffer(tokens), lib.fastgpt_kv_cache_tokens(self._kv), tokens.nbytes)
        return tokens

    @exclusive
    def copy(self) -> Session:
        """Another session with the same tokens, room and threads, which from now on goes its own way."""
        return self._sibling(lib.fastgpt_kv_cache_copy, self._kv)

    @exclusive
    def fork(self, n_prefix: int | None = None, n_ctx: int | None = None) -> Session:
        """Another session that begins with the first n_prefix tokens of this one (None = all), with room for n_ctx
        tokens (None = as many as this one).

        What they have in common is stored once for both, and for every later fork at or before that place, until the
        last of them is gone.  In a step, put forks of one prefix side by side: those of few tokens read it together.
        Raises UsageError, MemoryError.
        """
        n = self.n_past if n_prefix is None else checked_int("n_prefix", n_prefix)
        if not 0 <= n <= self.n_past:
            raise UsageError(f"n_prefix is {n}, not in [0, {self.n_past}]")
        return self._sibling(lib.fastgpt_kv_cache_fork, self._kv, n, room_of(n_ctx))

    def _sibling(self, create_cache: Any, *arguments: Any) -> Session:
        """A session of the same model and threads around a new cache."""
        kv = create(create_cache, *arguments, free=lib.fastgpt_kv_cache_free, sizeof=lib.fastgpt_kv_cache_sizeof)
        session = Session.__new__(Session)
        session._begin(self._model, self._pool, kv, self.deterministic)
        return session

    @property
    @exclusive
    def n_prefix(self) -> int:
        """Of the n_past positions, how many from the first on are stored with other sessions."""
        return int(lib.fastgpt_kv_cache_n_prefix(self._kv))

    @property
    @exclusive
    def n_bytes(self) -> int:
        """What its cache takes, without the positions that it shares."""
        return int(lib.fastgpt_kv_cache_sizeof(self._kv))

    @property
    @exclusive
    def n_shared_bytes(self) -> int:
        """What the positions take that it shares, counted once for all that share them."""
        return int(lib.fastgpt_kv_cache_prefix_sizeof(self._kv))

    @exclusive
    def save(self, path: str | Path) -> None:
        """Writes tokens, keys and values to a file for Model.load_session, complete or not at all.

        A file of that name is replaced; its owner alone may read it.  The first save of a model reads all its weights
        once, for the fingerprint that ties file and model together.  Raises ModelFileError, MemoryError.
        """
        error = ffi.new("fastgpt_error *")
        status = lib.fastgpt_kv_cache_save(self._kv, self._model, os.fsencode(path), error)
        check(status, error_text(error))

    @exclusive
    def truncate(self, n_past: int) -> None:
        """Forgets positions from n_past on; 0 empties the session.  Raises UsageError outside [0, n_past]."""
        status = lib.fastgpt_kv_cache_truncate(self._kv, checked_int("n_past", n_past))
        check(status, f"n_past {n_past} is outside [0, {self.n_past}]")

    def keys(self, layer: int) -> Floats:
        """float32 [n_past][n_embd], a copy, whatever the kv_type; head h has columns [h * d, (h + 1) * d), where
        d = n_embd / n_head."""
        return self._rows(lib.fastgpt_kv_cache_prefix_keys, lib.fastgpt_kv_cache_keys, layer)

    def values(self, layer: int) -> Floats:
        """As keys."""
        return self._rows(lib.fastgpt_kv_cache_prefix_values, lib.fastgpt_kv_cache_values, layer)

    @exclusive
    def _rows(self, prefix: Callable[[Any, int], Any], tail: Callable[[Any, int], Any], layer: int) -> Floats:
        """The rows of both parts of the cache, in order."""
        if not 0 <= checked_int("layer", layer) < self.n_layer:
            raise UsageError(f"layer {layer} is outside [0, {self.n_layer})")
        n_bytes, n_prefix = row_bytes(self.kv_type, self.n_embd), lib.fastgpt_kv_cache_n_prefix(self._kv)
        data = bytearray(self.n_past * n_bytes)
        if n_prefix:
            ffi.memmove(data, prefix(self._kv, layer), n_prefix * n_bytes)
        rest = memoryview(data)[n_prefix * n_bytes :]
        ffi.memmove(rest, tail(self._kv, layer), len(rest))
        rows = np.frombuffer(data, np.uint8).reshape(self.n_past, n_bytes)
        return dequantize_rows(rows, self.kv_type, self.n_embd)

    # ---- Life ----

    def close(self) -> None:
        """Gives the memory back; using the session afterwards raises UsageError.  Closing twice is harmless.

        While another thread uses the session, it is closed as soon as that has ended.
        """
        self._is_closed = True
        self._close_if_asked()

    def _close_if_asked(self) -> None:
        if not self._is_closed:
            return
        guard = new_guard()
        with ending(guard):
            if lib.guard_claim(guard, self._claim):
                self._claim.kv = ffi.NULL
                self._kv = self._context = self._pool = self._model = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _claim_for(self, guard: Any) -> None:
        """The session is the guard's from now on; only in  with ending(guard):  or it may stay so."""
        if not lib.guard_claim(guard, self._claim):
            raise UsageError(
                "the session is in use by another thread, or by the step that a signal handler has interrupted; "
                "give each a session of its own"
            )
        if self._is_closed:
            raise UsageError("the session is closed")

    @exclusive
    def start_profile(self, n_events: int) -> Any:
        """For profiling.Profile: the context whose steps are timed from now on."""
        return started_profile(self._context, self.is_profiled, n_events)


def step(batch: Sequence[tuple[Session, Tokens]], all_logits: bool = False) -> Floats:
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


def token_arrays(batch: Sequence[tuple[Session, Tokens]]) -> list[npt.NDArray[np.int32]]:
    """The tokens of each session of a step; raises UsageError where there is none, or for what are no tokens."""
    if not batch:
        raise UsageError("a step needs at least one session")
    return [token_array(tokens) for _, tokens in batch]


def run_step(
    batch: Sequence[tuple[Session, Any]],
    arrays: Sequence[npt.NDArray[np.int32]],
    logits: Floats | None,
    *,
    all_logits: bool,
    taps: Any = ffi.NULL,
) -> None:
    """The step of batch, whose tokens are arrays; fills logits, and what taps, a fastgpt_taps *, point to."""
    guard, lead = new_guard(), batch[0][0]
    spans = ffi.new("fastgpt_span[]", len(batch))
    sessions = list({id(session): session for session, _ in batch}.values())
    try:
        with ending(guard):
            for session in sessions:
                session._claim_for(guard)
            for span, (session, _), tokens in zip(spans, batch, arrays, strict=True):
                span.kv, span.tokens, span.n_tokens = session._kv, ffi.from_buffer("int32_t[]", tokens), len(tokens)
            guard.context, guard.spans, guard.n_spans = lead._context, spans, len(batch)
            guard.options.all_logits, guard.options.taps = all_logits, taps
            guard.options.deterministic = any(session.deterministic for session in sessions)
            guard.logits = ffi.NULL if logits is None else float_pointer(logits)
            check(lead._steps.run(guard, sum(map(len, arrays))))
            guard.keep = True
    finally:
        for session in sessions:
            session._close_if_asked()


def started_profile(context: Any, is_profiled: bool, n_events: int) -> Any:
    """The context, whose steps are timed from now on."""
    if is_profiled:
        raise UsageError("a profile of these steps has begun already")
    check(lib.fastgpt_profile_start(context, n_events))
    return context


def checked_int(name: str, value: int, least: int = -(2**31), most: int = 2**31 - 1) -> int:
    """value as a C int32_t; raises UsageError where it is none, or outside [least, most]."""
    try:
        number = as_integer(value)
    except Refused:
        raise UsageError(f"{name} is {shown(value)}, not an integer") from None
    if not least <= number <= most:
        raise UsageError(f"{name} is {number}, not in [{least}, {most}]")
    return number


def room_of(n_ctx: int | None) -> int:
    """As fastgpt_kv_cache_create takes it, 0 for None: the model's own."""
    return checked_int("n_ctx", 0 if n_ctx is None else n_ctx)


def checked_n_threads(n_threads: int | None) -> int:
    """As fastgpt_pool_create takes it, 0 for None: the usable cores."""
    return checked("n_threads", n_threads) or 0


def float_array(name: str, values: npt.ArrayLike) -> Floats:
    """As a contiguous float32 array, without a copy where it is one; raises UsageError for what are no numbers."""
    try:
        return np.ascontiguousarray(values, np.float32)
    except (ValueError, TypeError, OverflowError):
        raise UsageError(f"{name} is {shown(values)}, not an array of numbers") from None


def token_array(tokens: Tokens) -> npt.NDArray[np.int32]:
    """Tokens as a contiguous int32 array [n_tokens]; raises UsageError for anything but a row of integers."""
    try:
        array = np.asarray(tokens)
    except (ValueError, TypeError, OverflowError):  # rows of different lengths, and the like
        raise UsageError(f"tokens are {shown(tokens)}, not a row of integers") from None
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UsageError(f"tokens must be a row of integers, not {array.dtype} of shape {array.shape}")
    limits = np.iinfo(np.int32)
    if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
        raise UsageError("a token is outside [0, n_vocab)")
    return np.ascontiguousarray(array, np.int32)
