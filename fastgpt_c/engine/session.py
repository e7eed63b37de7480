"""A session: one sequence of tokens, its KV cache, and the steps that extend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.edits import Edit
from fastgpt_c.engine.hooks import Hooks
from fastgpt_c.engine.inspection import Head, inspect
from fastgpt_c.engine.sampler import Sampler
from fastgpt_c.engine.step import Span, step
from fastgpt_c.errors import UsageError
from fastgpt_c.io.c_strings import c_path
from fastgpt_c.native.arguments import Floats, Tokens, checked, checked_int, float_array, room_of, shown
from fastgpt_c.native.dtypes import dequantize_kv_rows, kv_type_number, row_bytes, type_name
from fastgpt_c.native.interrupts import Steps, ending, new_guard
from fastgpt_c.native.lib import check, create, error_text, ffi, float_pointer, lib

if TYPE_CHECKING:
    from fastgpt_c.profiling.profile import Profile

# Rows of logits between two moments in which Ctrl-C gets its turn.
N_ROWS_UNINTERRUPTED = 16

Given = ParamSpec("Given")
Found = TypeVar("Found")


def exclusive(
    method: Callable[Concatenate[Session, Given], Found],
) -> Callable[Concatenate[Session, Given], Found]:
    """A method that reserves the session: meanwhile, calls by other threads or signal handlers raise UsageError.  What
    the method appends to the cache is kept only if it returns."""

    @wraps(method)
    def call_exclusively(self: Session, /, *args: Given.args, **kwargs: Given.kwargs) -> Found:
        guard = new_guard()
        try:
            with ending(guard):
                self.claim_for(guard)
                found = method(self, *args, **kwargs)
                guard.keep = True
        finally:
            self.close_if_asked()
        return found

    return call_exclusively


class Session:
    """One sequence of tokens and its KV cache.  Made by Model.session; close it, or use it in a "with" statement.

    One thread may use it at a time: a second one gets a UsageError at once, and so does a signal handler that uses it
    while a step runs.

    n_ctx      capacity, in positions
    n_past     positions that are filled
    n_threads  threads that its steps use; the logits do not depend on them
    kv_type    type of keys and values in the cache: "f32", "f16", "bf16" or "q8_0".  The 16-bit types halve the memory
               of the cache and the time to read it, "q8_0" takes a quarter, and each rounds keys and values
    deterministic
               whether its logits are the same bits however tokens are split into steps and whatever shares the steps,
               on one kind of CPU; slower where many tokens are read at once
    is_profiled
               whether a profile of its steps is running
    n_vocab, n_embd, n_layer, n_head, n_ff
               sizes of the model; layers and heads are counted from 0
    """

    def __init__(
        self, model: Any, pool: Any, n_ctx: int | None = None, kv_type: str = "auto", deterministic: bool = False
    ) -> None:
        """model, pool  fastgpt_model * and fastgpt_pool *"""
        checked("kv_type", kv_type)
        out, error = ffi.new("fastgpt_kv_cache **"), ffi.new("fastgpt_error *")
        number = kv_type_number(model, kv_type)
        check(lib.fastgpt_kv_cache_create_checked(model, room_of(n_ctx), number, out, error), error_text(error))
        kv = ffi.gc(out[0], lib.fastgpt_kv_cache_free, size=lib.fastgpt_kv_cache_sizeof(out[0]))
        self._begin(model, pool, kv, deterministic)

    @classmethod
    def load(
        cls, model: Any, pool: Any, path: str | Path, n_ctx: int | None = None, deterministic: bool = False
    ) -> Session:
        """What Model.load_session does; model and pool as in Session()."""
        out, error = ffi.new("fastgpt_kv_cache **"), ffi.new("fastgpt_error *")
        room = room_of(n_ctx)
        status = lib.fastgpt_kv_cache_load(model, c_path(path), room, out, error)
        check(status, error_text(error))
        kv = ffi.gc(out[0], lib.fastgpt_kv_cache_free, size=lib.fastgpt_kv_cache_sizeof(out[0]))
        session = cls.__new__(cls)
        session._begin(model, pool, kv, deterministic)
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
        self.n_head: int = lib.fastgpt_model_n_head(model)
        self.n_ff: int = lib.fastgpt_model_n_ff(model)
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

    def prefill(
        self,
        tokens: Tokens,
        all_logits: bool = False,
        *,
        edits: Sequence[Edit] = (),
        hooks: Hooks | None = None,
        start_layer: int = 0,
        resid: npt.ArrayLike | None = None,
    ) -> Floats:
        """Appends tokens -> float32 [n_vocab], the logits after the last of them; natural-log units, unnormalised.

        tokens      ids, at least one
        all_logits  returns [n_tokens][n_vocab], a row after each token
        edits, start_layer, resid
                    changes of what is computed, and a start in the middle of the layers: see Edit and Span
        hooks       {(site, layer): function} to change values by functions: see fastgpt_c.step

        The array belongs to the caller: no later step writes to it.  Raises ContextFullError, UsageError (no tokens, or
        one outside [0, n_vocab); an edit that does not fit), Cancelled, KeyboardInterrupt and whatever else signal
        handlers raise: the step is then stopped, and n_past is as it was, unless the step had just ended when the
        signal came.
        """
        rows = step([Span(self, tokens, edits, start_layer, resid)], all_logits=all_logits, hooks=hooks)
        return rows if all_logits else rows[0]

    def decode(self, token: int) -> Floats:
        """Appends one token -> float32 [n_vocab], the logits after it.  Raises as prefill does."""
        if self.deterministic or self.start_layer:
            return self.prefill([token])
        return self._decode(checked_int("token", token))

    @exclusive
    def _decode(self, token: int) -> Floats:
        logits = np.empty(self.n_vocab, np.float32)
        check(lib.fastgpt_decode(self._context, self._kv, token, float_pointer(logits)))
        return logits

    @exclusive
    def sample(self, sampler: Sampler, logits: npt.ArrayLike) -> int:
        """sampler.sample(logits) -> a token id; a profile of this session counts the time as op "sample"."""
        if not isinstance(sampler, Sampler):
            raise UsageError(f"sampler is {shown(sampler)}, not a Sampler")
        token = ffi.new("int32_t *")
        row = float_pointer(sampler.row(logits))
        check(lib.fastgpt_profile_sample(self._context, sampler.handle, row, token))
        return int(token[0])

    def inspect(
        self,
        tokens: Tokens,
        *names: str,
        sites: Sequence[str] = (),
        heads: Sequence[Head] = (),
        edits: Sequence[Edit] = (),
        hooks: Hooks | None = None,
        start_layer: int = 0,
        resid: npt.ArrayLike | None = None,
    ) -> dict[str, Floats]:
        """Appends tokens -> intermediate values of the step by name: "hidden", "resid_pre" and so on, see
        fastgpt_c.inspect; changed as prefill has it."""
        span = Span(self, tokens, edits, start_layer, resid)
        return inspect([span], *names, sites=sites, heads=heads, hooks=hooks)

    @exclusive
    def unembed(self, hidden: npt.ArrayLike) -> Floats:
        """hidden [..., n_embd] -> float32 [..., n_vocab], the logits of vectors of the residual stream after any layer:
        the output matrix times ln_f(hidden).  The bits of a row do not depend on the other rows."""
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
        """with session.profile() as p: times each op of the steps in the block; see Profile.

        n_events  how many events to keep, 40 bytes each; 0 = only the sums

        A step of several sessions counts for the first of them.
        """
        from fastgpt_c.profiling.profile import Profile

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
    def start_layer(self) -> int:
        """The layer from which on all positions have keys and values: 0, unless steps have skipped layers (Span)."""
        kv = self._kv
        if kv is None:
            raise UsageError("the session is closed")
        return int(lib.fastgpt_kv_cache_start_layer(kv))

    @property
    @exclusive
    def tokens(self) -> npt.NDArray[np.int32]:
        """int32 [n_past], a copy: the tokens at the filled positions."""
        tokens = np.empty(self.n_past, np.int32)
        ffi.memmove(ffi.from_buffer(tokens), lib.fastgpt_kv_cache_tokens(self._kv), tokens.nbytes)
        return tokens

    @exclusive
    def copy(self) -> Session:
        """An independent session with the same tokens, capacity and threads."""
        return self._sibling(lib.fastgpt_kv_cache_copy, self._kv)

    @exclusive
    def fork(self, n_prefix: int | None = None, n_ctx: int | None = None) -> Session:
        """A new session that shares this one's first n_prefix positions; both then diverge.

        n_prefix  None = all that are filled
        n_ctx     capacity of the new session, in positions; None = as many as this one

        The prefix is stored once for both, and for every later fork at or before its end, until the last of them is
        closed.  In a step, put forks of one prefix side by side: those with few tokens read it together.
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
        """Length of the prefix that is shared with other sessions, in positions; 0 = none."""
        return int(lib.fastgpt_kv_cache_n_prefix(self._kv))

    @property
    @exclusive
    def n_bytes(self) -> int:
        """Memory of its cache in bytes, without the prefix that it shares."""
        return int(lib.fastgpt_kv_cache_sizeof(self._kv))

    @property
    @exclusive
    def n_shared_bytes(self) -> int:
        """Memory of the shared prefix in bytes, which all that share it have in common."""
        return int(lib.fastgpt_kv_cache_prefix_sizeof(self._kv))

    @exclusive
    def save(self, path: str | Path) -> None:
        """Writes tokens, keys and values to a file for Model.load_session, complete or not at all.

        A file of that name is replaced, but not a model file; its owner alone may read it.  Links, pipes and devices
        are treated as in io/atomic_files.py.  The first save of a model reads all its weights once, for the fingerprint
        that ties file and model together.  Raises ModelFileError, UsageError (a model file, a NUL in the name),
        MemoryError.
        """
        from fastgpt_c.io.atomic_files import remove_what_was_left  # here, since few save

        error, name = ffi.new("fastgpt_error *"), c_path(path)
        remove_what_was_left(Path(path))
        status = lib.fastgpt_kv_cache_save(self._kv, self._model, name, error)
        check(status, error_text(error))

    @exclusive
    def truncate(self, n_past: int) -> None:
        """Forgets positions from n_past on; 0 empties the session.  Raises UsageError outside [0, n_past]."""
        status = lib.fastgpt_kv_cache_truncate(self._kv, checked_int("n_past", n_past))
        check(status, f"n_past {n_past} is outside [0, {self.n_past}]")

    def keys(self, layer: int) -> Floats:
        """float32 [n_past][n_embd], a copy of the keys of a layer in [0, n_layer), whatever the kv_type; head h has
        columns [h * d, (h + 1) * d), where d = n_embd / n_head."""
        return self._rows(lib.fastgpt_kv_cache_prefix_keys, lib.fastgpt_kv_cache_keys, layer)

    def values(self, layer: int) -> Floats:
        """The values of a layer, in the layout of keys."""
        return self._rows(lib.fastgpt_kv_cache_prefix_values, lib.fastgpt_kv_cache_values, layer)

    @exclusive
    def _rows(self, prefix: Callable[[Any, int], Any], tail: Callable[[Any, int], Any], layer: int) -> Floats:
        """The rows of both parts of the cache, in order."""
        if not 0 <= checked_int("layer", layer) < self.n_layer:
            raise UsageError(f"layer {layer} is outside [0, {self.n_layer})")
        if layer < self.start_layer:
            raise UsageError(f"layer {layer} was skipped at some positions: those from {self.start_layer} on are whole")
        n_bytes, n_prefix = row_bytes(self.kv_type, self.n_embd), lib.fastgpt_kv_cache_n_prefix(self._kv)
        data = bytearray(self.n_past * n_bytes)
        if n_prefix:
            ffi.memmove(data, prefix(self._kv, layer), n_prefix * n_bytes)
        rest = memoryview(data)[n_prefix * n_bytes :]
        ffi.memmove(rest, tail(self._kv, layer), len(rest))
        rows = np.frombuffer(data, np.uint8).reshape(self.n_past, n_bytes)
        return dequantize_kv_rows(rows, self.kv_type, self.n_embd)

    # ---- Life ----

    def close(self) -> None:
        """Gives the memory back; using the session afterwards raises UsageError.  Closing twice is harmless.

        While another thread uses the session, it is closed as soon as that has ended.
        """
        self._is_closed = True
        self.close_if_asked()

    def close_if_asked(self) -> None:
        """Completes a close() that came while the session was in use."""
        if not self._is_closed:
            return
        guard = new_guard()
        with ending(guard):
            if lib.guard_claim(guard, self._claim):
                self._claim.kv = ffi.NULL
                self._kv = self._context = self._pool = self._model = None

    def __repr__(self) -> str:
        if self._kv is None:
            return "Session(closed)"
        threads = f"{self.n_threads} thread{'s' * (self.n_threads != 1)}"
        deterministic = ", deterministic" if self.deterministic else ""
        return f"Session(n_past={self.n_past} of {self.n_ctx}, kv_type={self.kv_type!r}, {threads}{deterministic})"

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- For steps of several sessions, and for profiles ----

    def claim_for(self, guard: Any) -> Any:
        """Its fastgpt_kv_cache *; reserves the session for the guard until that ends.  Only in  with ending(guard):
        which always ends it."""
        if not lib.guard_claim(guard, self._claim):
            raise UsageError(
                "the session is in use by another thread, or by the step that a signal handler has interrupted; "
                "give each a session of its own"
            )
        if self._is_closed:
            raise UsageError("the session is closed")
        return self._kv

    def run_in_context(self, guard: Any, n_tokens: int) -> None:
        """Runs the step of guard, of n_tokens, which has claimed this session; raises the exception of its status."""
        guard.context = self._context
        status = self._steps.run(guard, n_tokens)
        error = guard.options.error
        check(status, error_text(error) if error != ffi.NULL else "")

    @contextmanager
    def handles(self) -> Iterator[tuple[Any, Any]]:
        """The fastgpt_model * and fastgpt_context *, reserved for the caller in the block."""
        guard = new_guard()
        try:
            with ending(guard):
                self.claim_for(guard)
                guard.keep = True
                yield self._model, self._context
        finally:
            self.close_if_asked()
