"""Continuous batching: which prompts a step works on, and how much of each it reads.

Between two steps, requests that have ended leave and others take their places.  A step reads one token of each text
that is being generated, and chunks of prompts beside those; nothing is padded.  A prefix that a prompt shares with an
earlier one is not read again, and is stored once for all requests in progress; while one reads it, the others wait.
(Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models".)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fastgpt_c.batching.kv_cache_pool import MIN_SHARED, Cache, CachePool
from fastgpt_c.batching.ragged_step import N_TOKENS_A_STEP, RaggedStep
from fastgpt_c.batching.request_state import RequestState
from fastgpt_c.engine.reader import common_prefix_length
from fastgpt_c.errors import UsageError
from fastgpt_c.generation.prompt import newest_half
from fastgpt_c.native.arguments import checked_int
from fastgpt_c.native.lib import ffi

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel
    from fastgpt_c.profiling.profile import Profile


MOST_ROWS = 4096  # each takes a row of logits

# A step reads so many tokens of prompts even where the growing texts alone fill it.
MIN_PROMPT_TOKENS = 64


class _Slot:
    """A request in progress: its cache, and the tokens to read into it before the next one is drawn."""

    def __init__(self, request: RequestState, cache: Cache, number: int) -> None:
        """number  tells which of two slots is older"""
        self.request, self.cache, self.number = request, cache, number
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

    def enter(self, step: RaggedStep, row: int) -> None:
        """Its next tokens, n_now of a prompt or one of a text, become those of a row of the step."""
        if self.n_unread:
            sampler = self.request.sampler.handle if self.draws else ffi.NULL
            step.read(row, self.cache.kv, self._buffer + self.n_past, self.n_now, sampler)
            self._row = -1
        elif self._row != row:
            step.go_on(row, self.cache.kv, self.request.tokens[-1], self.request.sampler.handle)
            self._row = row

    @property
    def draws(self) -> bool:
        """Whether a token is drawn in this step, after its n_now tokens."""
        return self.n_unread <= self.n_now

    def leave(self) -> bool:
        """After the step; whether a token was drawn."""
        self.n_past += self.n_now
        self.n_unread = max(self.n_unread - self.n_now, 0)
        return not self.n_unread

    def text_so_far(self) -> list[int]:
        """The tokens that the next one is drawn after."""
        return self.text + self.request.tokens[self._n_drawn_before :]

    def held(self) -> list[int]:
        """The tokens in the cache."""
        return self.text_so_far()[: self.n_past]


@dataclass
class Counts:
    """Of a scheduler since it was made.

    n_steps         and n_rows, the sequences in the latest of them
    tokens_in       of prompts that were read
    tokens_out      that were drawn
    prefix_queries  tokens of the prompts that have begun, and prefix_hits, how many of them were in a cache already
    """

    n_steps: int = 0
    n_rows: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0


class Source(Protocol):
    """Where requests wait for a slot."""

    def candidates(self) -> Iterator[RequestState]:
        """Those that may begin now, the one whose turn it is first.  The scheduler takes the first that finds room."""

    def take(self, request: RequestState) -> None:
        """The latest candidate waits no longer: it has got a slot, or has ended without one."""


class _InOrder:
    """The requests of an iterable, each only asked for when there may be room for it: nobody is passed."""

    def __init__(self, requests: Iterable[RequestState]) -> None:
        self._requests = iter(requests)
        self._next: RequestState | None = None

    def candidates(self) -> Iterator[RequestState]:
        self._next = self._next or next(self._requests, None)
        if self._next is not None:
            yield self._next

    def take(self, request: RequestState) -> None:
        assert request is self._next
        self._next = None


class Scheduler:
    """Runs requests, max_batch at a time.

    max_batch      sequences in one step
    max_tokens     room in all KV caches together; None = half of what max_batch sequences of n_ctx tokens would take
    deterministic  a request's tokens do not depend on its neighbours
    prefill_chunk  tokens of prompts that a step reads at most while texts grow beside them; None = N_TOKENS_A_STEP
    max_idle       tokens that caches hold at most for later prompts that begin alike; None = as many as there is room

    counts         what it has done

    For one thread.  Either run does everything, or the owner calls admit, advance and cancel.
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
        prefill_chunk: int | None = None,
        max_idle: int | None = None,
    ) -> None:
        self._n_ctx = model.n_ctx
        self.max_batch = checked_int("max_batch", max_batch, 1, MOST_ROWS)
        if max_tokens is None:
            max_tokens = model.n_ctx * (self.max_batch + 1) // 2
        self.max_tokens = checked_int("max_tokens_in_flight", max_tokens, 1, 2**62)
        self._prefill_chunk = None if prefill_chunk is None else checked_int("prefill_chunk", prefill_chunk, 1)
        if max_idle is not None:
            checked_int("prefix_cache", max_idle, 0, 2**62)
        self._new_caches = partial(CachePool, model, kv_type, self.max_tokens, max_idle)
        self.caches = self._new_caches()
        self._step = RaggedStep(model, self.max_batch, n_threads, deterministic)
        self._slots: list[_Slot] = []
        self.counts = Counts()
        self._n_begun = 0
        self._admitting: RequestState | None = None  # while its cache is made
        self._run: object = None  # identifies the run that has begun and not ended

    def run(self, requests: Iterable[RequestState]) -> Iterator[RequestState]:
        """Each request as soon as it has ended, well or not.  The next one is asked for when there is room for it."""
        if self._run is not None:  # it was abandoned or interrupted: what its caches hold is unknown
            self.abort()
        source, run = _InOrder(requests), object()
        self._run = run
        while True:
            yield from self.admit(source)
            if not self._slots:
                break
            yield from (request for request in self.advance() if request.ended)
            if self._run is not run:
                raise UsageError("another run of this batch has begun, which ended this one")
        self._run = None

    @property
    def n_at_work(self) -> int:
        """Requests that have a slot."""
        return len(self._slots)

    def abort(self) -> list[RequestState]:
        """Takes their slots from all requests, after an error of which the caches are unknown -> those requests, and
        the one that was about to begin."""
        requests = [slot.request for slot in self._slots]
        if self._admitting is not None:
            requests.append(self._admitting)
        self._slots, self._admitting, self.caches = [], None, self._new_caches()
        return requests

    def cancel(self, request: RequestState) -> bool:
        """Between two steps: ends a request that has a slot, which is free at once; False where it has none."""
        for row, slot in enumerate(self._slots):
            if slot.request is request:
                request.cancel()
                self._vacate(row)
                return True
        return False

    def profile(self, n_events: int) -> Profile:
        """Of the steps of run; see Session.profile."""
        from fastgpt_c.profiling.profile import Profile

        return Profile(self._step, n_events)

    def admit(self, source: Source) -> Iterator[RequestState]:
        """Gives slots to requests while the next step can read more; yields requests that need none."""
        while len(self._slots) < self.max_batch and self._can_read_more():
            for request in source.candidates():
                self._check_room(request)
                if request.ended:
                    source.take(request)
                    yield request
                    break
                if (cache := self._cache_for(request)) is not None:
                    source.take(request)
                    self._begin(request, cache)
                    break
            else:
                return

    def _begin(self, request: RequestState, cache: Cache) -> None:
        self._admitting = None
        request.start(len(cache.tokens))
        self.counts.prefix_queries += len(request.prompt)
        self.counts.prefix_hits += len(cache.tokens)
        self._n_begun += 1
        self._slots.append(_Slot(request, cache, self._n_begun))

    def _can_read_more(self) -> bool:
        """Whether the next step has room for tokens of a prompt that has no slot yet."""
        n_unread = sum(slot.n_unread for slot in self._slots)
        return n_unread < self._prompt_tokens_a_step()

    def _prompt_tokens_a_step(self) -> int:
        """How many tokens of prompts the next step may read."""
        n_growing = sum(not slot.n_unread for slot in self._slots)
        n_most = max(N_TOKENS_A_STEP - n_growing, MIN_PROMPT_TOKENS)
        return min(n_most, self._prefill_chunk) if self._prefill_chunk and n_growing else n_most

    def _cache_for(self, request: RequestState) -> Cache | None:
        """None while too much is in use, or while another slot is still reading the prefix that they share.

        Where the system has no memory for it, it is as if too much were in use, until nothing is in use at all: then
        MemoryError is raised."""
        self._admitting = request
        try:
            cache = self._shared_or_free_cache(request)
        except MemoryError:
            self.caches.drop_idle()
            if not self._slots:
                raise
            cache = None
        self._admitting = None
        return cache

    def _shared_or_free_cache(self, request: RequestState) -> Cache | None:
        if not self.caches.may_have_room(request.n_positions):
            return None
        if request.edits:  # what it reads is its own: no other request's keys and values fit
            return self.caches.take(request.prompt[:1], request.n_positions)
        n_shared, slot = self._closest(request.prompt)
        if slot is None or n_shared < self.caches.n_waiting(request.prompt, request.n_positions) + MIN_SHARED:
            return self.caches.take(request.prompt, request.n_positions)
        if slot.n_past < n_shared:
            return None
        return self.caches.fork(slot.cache, request.prompt[:n_shared], request.n_positions)

    def _closest(self, prompt: list[int]) -> tuple[int, _Slot | None]:
        """The longest common prefix of prompt with a slot's text, never all of prompt, and that slot."""
        n_best, best = 0, None
        for slot in self._slots:
            if (
                not slot.request.edits and slot.text[:MIN_SHARED] == prompt[:MIN_SHARED]
            ):  # quick, since most share no prefix
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

    def advance(self) -> list[RequestState]:
        """One step -> the requests that it drew a token for, and those that failed; those that have ended have given
        back their slots.  At least one request has a slot.

        Raises what a step raises, MemoryError among it; the caches are then undefined: call abort."""
        n_rows = self._fill_step()
        slots = self._slots[:n_rows]
        edits = [slot.request.edits for slot in slots]
        self._step.run(n_rows, sum(slot.n_now for slot in slots), edits if any(edits) else ())
        for row, slot in enumerate(slots):
            if slot.draws and slot.request.steers:
                slot.request.steer(slot.text_so_far, self._step.logits(row))
        tokens = self._step.draw(n_rows)
        self._count(slots)
        drawn = [row for row, slot in enumerate(slots) if slot.leave()]
        ended = [row for row in drawn if self._ends(row, slots[row], tokens[row])]
        for row in reversed(ended):
            self._vacate(row)
        return [slots[row].request for row in drawn]

    def _fill_step(self) -> int:
        """Each growing text reads one token, and the prompts share what a step may read of them, the oldest first ->
        the number of slots that read, which come first."""
        room = self._prompt_tokens_a_step()
        for slot in sorted(self._slots, key=lambda slot: slot.number):
            slot.n_now = min(slot.n_unread, room) if slot.n_unread else 1
            room -= slot.n_now if slot.n_unread else 0
        n_rows = sum(slot.n_now > 0 for slot in self._slots)
        if n_rows < len(self._slots):
            self._slots.sort(key=lambda slot: slot.n_now == 0)
        for row, slot in enumerate(self._slots[:n_rows]):
            slot.enter(self._step, row)
        return n_rows

    def _count(self, slots: list[_Slot]) -> None:
        """Counts a step of these slots, before they leave it."""
        self.counts.n_steps += 1
        self.counts.n_rows = len(slots)
        self.counts.tokens_in += sum(slot.n_now for slot in slots if slot.n_unread)
        self.counts.tokens_out += sum(slot.draws for slot in slots)

    def _ends(self, row: int, slot: _Slot, token: int) -> bool:
        """Records the token drawn in row; whether the request has ended."""
        request = slot.request
        if request.ended:  # its constraint or processor failed
            return True
        if token < 0:
            request.fail(request.refusal(self._step.logits(row)))
            return True
        if not request.accept(token) and slot.n_past == self._n_ctx:
            slot.read_anew(newest_half(request.prompt + request.tokens, self._n_ctx))
        return request.ended

    def _vacate(self, row: int) -> None:
        """The last slot moves to row."""
        slot = self._slots[row]
        self.caches.give_back(slot.cache, [] if slot.request.edits else slot.held())
        last = self._slots.pop()
        if row < len(self._slots):
            self._slots[row] = last
