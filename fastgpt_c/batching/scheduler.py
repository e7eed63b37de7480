"""Continuous batching: which prompts a step works on, and how much of each it reads.

Between two steps, requests that have ended leave and others take their places.  A step reads one token of each text
that is being generated, and chunks of prompts beside those; nothing is padded.  A prefix that a prompt shares with an
earlier one is not read again, and is stored once for all requests in progress; while one reads it, the others wait.
(Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models".)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fastgpt_c.batching.kv_cache_pool import MIN_SHARED, Cache, CachePool
from fastgpt_c.batching.ragged_step import N_TOKENS_A_STEP, RaggedStep
from fastgpt_c.batching.request_state import RequestState
from fastgpt_c.engine.reader import common_prefix_length
from fastgpt_c.errors import UsageError
from fastgpt_c.generation.prompt import newest_half
from fastgpt_c.generation.token_selector import refusal
from fastgpt_c.native.arguments import checked_int
from fastgpt_c.native.lib import ffi

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel
    from fastgpt_c.profiling.profile import Profile


MOST_ROWS = 4096  # each takes a row of logits


class _Slot:
    """A request in progress: its cache, and the tokens to read into it before the next one is drawn."""

    def __init__(self, request: RequestState, cache: Cache) -> None:
        self.request, self.cache = request, cache
        self.n_now = 0  # tokens that the current step reads
        self._begin(request.prompt, len(cache.tokens))

    def read_anew(self, tokens: list[int]) -> None:
        """Empties the cache, to read these tokens."""
        self.cache.truncate(0)
        self._begin(tokens, 0)

    def _begin(self, tokens: list[int], n_past: int) -> None:
        self._n_drawn_before = len(self.request.tokens)
        self.text = tokens  # what the cache holds once all is read; the tokens drawn from now on follow it
        self._buffer = ffi.from_buffer("int32_t[]", np.array(tokens, np.int32))
        self.n_past, self.n_unread = n_past, len(tokens) - n_past
        self._row = -1  # of the step in which it only continues, -1 = none

    def enter(self, step: RaggedStep, row: int, n_now: int) -> None:
        """Its next n_now tokens become those of a row of the step."""
        self.n_now = n_now
        if self.n_unread:
            sampler = self.request.sampler.handle if n_now == self.n_unread else ffi.NULL
            step.read(row, self.cache.kv, self._buffer + self.n_past, n_now, sampler)
        elif self._row != row:
            step.go_on(row, self.cache.kv, self.request.tokens[-1], self.request.sampler.handle)
            self._row = row

    def leave(self) -> bool:
        """After the step; whether a token was drawn."""
        self.n_past += self.n_now
        self.n_unread = max(self.n_unread - self.n_now, 0)
        return not self.n_unread

    def held(self) -> list[int]:
        """The tokens in the cache."""
        return (self.text + self.request.tokens[self._n_drawn_before :])[: self.n_past]


class Scheduler:
    """Runs requests, max_batch at a time.

    max_batch      sequences in one step
    max_tokens     room in all KV caches together; None = half of what max_batch sequences of n_ctx tokens would take
    deterministic  a request's tokens do not depend on its neighbours

    For one thread, and for one run at a time.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        max_batch: int,
        max_tokens: int | None,
        deterministic: bool,
        n_threads: int | None,
        kv_type: str,
    ) -> None:
        self._n_ctx = model.n_ctx
        self.max_batch = checked_int("max_batch", max_batch, 1, MOST_ROWS)
        if max_tokens is None:
            max_tokens = model.n_ctx * (self.max_batch + 1) // 2
        self.max_tokens = checked_int("max_tokens_in_flight", max_tokens, 1, 2**62)
        self._new_caches = partial(CachePool, model, kv_type, self.max_tokens)
        self._caches = self._new_caches()
        self._step = RaggedStep(model, self.max_batch, n_threads, deterministic)
        self._slots: list[_Slot] = []
        self._next: RequestState | None = None  # has no cache yet
        self._run: object = None  # identifies the run that has begun and not ended

    def run(self, requests: Iterable[RequestState]) -> Iterator[RequestState]:
        """Each request as soon as it has ended, well or not.  The next one is asked for when there is room for it."""
        if self._run is not None:  # it was abandoned or interrupted: what its caches hold is unknown
            self._slots, self._next, self._caches = [], None, self._new_caches()
        source, run = iter(requests), object()
        self._run = run
        while True:
            yield from self._admit(source)
            if not self._slots:
                break
            yield from self._advance()
            if self._run is not run:
                raise UsageError("another run of this batch has begun, which ended this one")
        self._run = None

    def profile(self, n_events: int) -> Profile:
        """Of the steps of run; see Session.profile."""
        from fastgpt_c.profiling.profile import Profile

        return Profile(self._step, n_events)

    def _admit(self, source: Iterator[RequestState]) -> Iterator[RequestState]:
        """Gives slots to requests while the next step can read more; yields requests that need none."""
        room = N_TOKENS_A_STEP - sum(slot.n_unread or 1 for slot in self._slots)
        while len(self._slots) < self.max_batch and room > 0:
            request = self._next or next(source, None)
            if request is None:
                return
            self._check_room(request)
            if request.ended:
                yield request
                continue
            cache = self._cache_for(request)
            self._next = request if cache is None else None
            if cache is None:
                return
            request.start(len(cache.tokens))
            self._slots.append(_Slot(request, cache))
            room -= self._slots[-1].n_unread

    def _cache_for(self, request: RequestState) -> Cache | None:
        """None while too much is in use, or while another slot is still reading the prefix that they share."""
        n_shared, slot = self._closest(request.prompt)
        if slot is None or n_shared < self._caches.n_waiting(request.prompt, request.n_positions) + MIN_SHARED:
            return self._caches.take(request.prompt, request.n_positions)
        if slot.n_past < n_shared:
            return None
        return self._caches.fork(slot.cache, request.prompt[:n_shared], request.n_positions)

    def _closest(self, prompt: list[int]) -> tuple[int, _Slot | None]:
        """The longest common prefix of prompt with a slot's text, never all of prompt, and that slot."""
        n_best, best = 0, None
        for slot in self._slots:
            if slot.text[:MIN_SHARED] == prompt[:MIN_SHARED]:  # quick, since most share no prefix
                n = min(common_prefix_length(slot.text, prompt), len(prompt) - 1)
                n_best, best = max((n_best, best), (n, slot), key=lambda pair: pair[0])
        return n_best, best

    def _check_room(self, request: RequestState) -> None:
        if not request.ended and request.n_positions > self.max_tokens:
            request.fail(
                UsageError(
                    f"{len(request.prompt)} prompt tokens and the new ones need a KV cache for "
                    f"{request.n_positions} tokens; max_tokens_in_flight is {self.max_tokens}"
                )
            )

    def _advance(self) -> Iterator[RequestState]:
        """One step; yields the requests that it ends."""
        tokens = self._step.run(len(self._slots), self._fill_step())
        ended = [row for row, slot in enumerate(self._slots) if slot.leave() and self._ends(row, slot, tokens[row])]
        requests = [self._slots[row].request for row in ended]
        for row in reversed(ended):
            self._vacate(row)
        yield from requests

    def _fill_step(self) -> int:
        """Each slot reads one token, and those with prompts share the rest of N_TOKENS_A_STEP; returns the sum."""
        room = max(N_TOKENS_A_STEP - len(self._slots), 0)
        for row, slot in enumerate(self._slots):
            n_more = min(slot.n_unread - 1, room) if slot.n_unread else 0
            room -= n_more
            slot.enter(self._step, row, 1 + n_more)
        return sum(slot.n_now for slot in self._slots)

    def _ends(self, row: int, slot: _Slot, token: int) -> bool:
        """Records the token drawn in row; whether the request has ended."""
        request = slot.request
        if token < 0:
            request.fail(refusal(self._step.logits(row), request.bans))
            return True
        if request.n_top is not None:
            request.note_logprob(token, self._step.logits(row))
        if not request.accept(token) and slot.n_past == self._n_ctx:
            slot.read_anew(newest_half(request.prompt + request.tokens, self._n_ctx))
        return request.ended

    def _vacate(self, row: int) -> None:
        """The last slot moves to row."""
        slot = self._slots[row]
        self._caches.give_back(slot.cache, slot.held())
        last = self._slots.pop()
        if row < len(self._slots):
            self._slots[row] = last
