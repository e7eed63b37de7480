"""A step of many sequences as one call to the library, and a second call that draws the next token of each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgpt_c.engine.edits import Edit, edit_array
from fastgpt_c.native.arguments import Floats
from fastgpt_c.native.interrupts import Steps, ending, new_guard
from fastgpt_c.native.lib import check, create, ffi, float_pointer, lib

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

# A step reads up to so many tokens: as many as a context computes together.
N_TOKENS_A_STEP = 512


class RaggedStep:
    """A table with a row for each sequence: a cache, new tokens, a sampler, and the logits of the latest step.

    The drawn token of a row is stored where the row's next step reads it.  So a row that only continues, token after
    token, is set once and costs Python no more work.
    """

    def __init__(self, model: LoadedModel, n_rows: int, n_threads: int | None, deterministic: bool) -> None:
        # C borrows the weights and the threads: keep them alive.
        self._model, self._pool = model.handle, model.pool(n_threads)
        self.n_threads: int = lib.fastgpt_pool_n_threads(self._pool)
        self._context = create(
            lib.fastgpt_context_create, self._model, self._pool, max(N_TOKENS_A_STEP, n_rows),
            free=lib.fastgpt_context_free, sizeof=lib.fastgpt_context_sizeof,
        )  # fmt: skip
        self._n_head, self._n_embd = model.n_head, model.n_embd
        self.is_profiled = False
        self._deterministic = deterministic
        self._spans = ffi.new("fastgpt_span[]", n_rows)
        self._samplers = ffi.new("fastgpt_sampler *[]", n_rows)
        self._drawn = ffi.new("int32_t[]", n_rows)
        self._logits = np.empty((n_rows, model.n_vocab), np.float32)
        self._steps = Steps()

    def read(self, row: int, kv: Any, tokens: Any, n_tokens: int, sampler: Any) -> None:
        """In its next step row reads n_tokens from tokens, an int32_t * that outlives the step, and then draws a token;
        sampler NULL = draws none."""
        span = self._spans[row]
        span.kv, span.tokens, span.n_tokens = kv, tokens, n_tokens
        self._samplers[row] = sampler

    def go_on(self, row: int, kv: Any, token: int, sampler: Any) -> None:
        """In each of its next steps row reads one token: first this one, then the one drawn before."""
        self._drawn[row] = token
        self.read(row, kv, self._drawn + row, 1, sampler)

    def run(self, n_rows: int, n_tokens: int, edits: Sequence[Sequence[Edit]] = ()) -> None:
        """Runs the model over the n_tokens new tokens of the first n_rows rows, each with its own edits, if any row has
        some.  Raises KeyboardInterrupt; the caches of the rows are then undefined."""
        guard = new_guard()
        structs, values = edit_array(edits, self._n_head, self._n_embd)  # values lives until the step has ended
        with ending(guard):
            if values:
                guard.options.edits, guard.options.n_edits = structs, len(values)
            guard.context, guard.spans, guard.n_spans = self._context, self._spans, n_rows
            guard.options.deterministic, guard.logits = self._deterministic, float_pointer(self._logits)
            check(self._steps.run(guard, n_tokens))

    def draw(self, n_rows: int) -> list[int]:
        """The token that is drawn for each of these rows from the logits of the step that has run: -1 where its sampler
        refuses them, undefined where it is NULL."""
        logits = float_pointer(self._logits)
        check(lib.fastgpt_profile_sample_rows(self._context, self._samplers, n_rows, logits, self._drawn))
        return ffi.unpack(self._drawn, n_rows)  # type: ignore[no-any-return]

    def logits(self, row: int) -> Floats:
        """[n_vocab] of the latest step, until the next one; what is written there before draw is drawn from."""
        logits: Floats = self._logits[row]
        return logits

    def handles(self) -> AbstractContextManager[tuple[Any, Any]]:
        """The fastgpt_model * and fastgpt_context *, for a Profile; a batch belongs to one thread."""
        return nullcontext((self._model, self._context))
