"""Between the event loop and the engine's thread: requests go there, and what each step did comes back, in one wake-up.

Everything here belongs to the event loop, but for the one call that the engine makes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastgpt_c.batching.fair_queue import Job
from fastgpt_c.batching.live_engine import Event, LiveEngine
from fastgpt_c.batching.request_state import RequestState
from fastgpt_c.server.errors import HTTPError, overloaded, unavailable
from fastgpt_c.server.metrics import Metrics
from fastgpt_c.server.settings import Settings

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

MOST_SECONDS_AWAY = 60  # clients heed no Retry-After beyond that


class Group:
    """The texts of one request, while they are made.

    n_left  texts that have not ended
    """

    def __init__(self, link: EngineLink, states: Sequence[RequestState], client: str) -> None:
        """states have had their errors looked at, and are those of this group alone."""
        self._link = link
        self._jobs = [Job(state, client) for state in states]
        self._events: deque[tuple[int, Event]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self.n_left = len(states)
        self.begun = time.monotonic()
        for i, job in enumerate(self._jobs):
            job.request.tag = (self, i)

    async def next(self) -> list[tuple[int, Event]]:
        """What has happened since, with the number of the text; waits for something to happen.  Raises what fail was
        given."""
        if not self._events and self._failure is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._failure is not None:
            raise self._failure
        events = list(self._events)
        self._events.clear()
        return events

    def put(self, number: int, event: Event) -> None:
        """Notes what happened to a text."""
        self.n_left -= event.token is None
        if self._failure is None:
            self._events.append((number, event))
            self._wake()

    def fail(self, error: Exception) -> None:
        """Ends it: whoever waits gets the error, and the engine forgets its texts."""
        if self._failure is None and self.n_left:
            self._failure = error
            self.cancel()
            self._wake()

    def cancel(self) -> None:
        """The engine forgets its texts before the next step."""
        if self.n_left:
            for job in self._jobs:
                self._link.engine.cancel(job)

    def submit(self) -> None:
        """Its texts wait for slots from now on."""
        for job in self._jobs:
            self._link.engine.submit(job)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EngineLink:
    """An engine, as the event loop sees it.

    engine   see batching.live_engine.LiveEngine
    """

    def __init__(
        self, model: LoadedModel, settings: Settings, metrics: Metrics, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._metrics, self._limits = metrics, settings.limits
        self._groups: set[Group] = set()
        self.engine = LiveEngine(
            model,
            max_batch=settings.max_batch,
            max_tokens_in_flight=settings.max_tokens_in_flight,
            deterministic=settings.deterministic,
            n_threads=settings.n_threads,
            kv_type=settings.kv_type,
            prefill_chunk=settings.prefill_chunk,
            prefix_cache=settings.prefix_cache,
            on_step=lambda events: _call_in(loop, self._deliver, events),
        )
        metrics.watch(self.engine)

    def submit(self, states: Sequence[RequestState], client: str) -> Group:
        """Gives the texts of a request to the engine.  Raises HTTPError 400 for what never fits, 429."""
        self.check_room(states)
        group = Group(self, states, client)
        self._groups.add(group)
        group.submit()
        return group

    def leave(self, group: Group) -> None:
        """Nobody asks for what comes of it any more."""
        group.cancel()
        self._groups.discard(group)

    def fail_all(self, error: HTTPError) -> None:
        """Ends the requests at work."""
        for group in list(self._groups):
            group.fail(error)

    def check_room(self, states: Sequence[RequestState] = ()) -> None:
        """Raises HTTPError where too much is waiting, or states can never have a slot."""
        stats = self.engine.stats()
        n_most = max((state.n_positions for state in states), default=0)
        if n_most > stats.cache_total:
            raise HTTPError(
                400, f"prompt and max_tokens need {n_most} positions, and all KV caches together have "
                f"{stats.cache_total}", code="context_length_exceeded",
            )  # fmt: skip
        max_tokens = self._limits.max_queue_tokens
        n_tokens = stats.waiting_tokens + sum(state.n_positions for state in states)
        is_full = stats.n_waiting >= self._limits.max_queue
        if is_full or (stats.n_waiting and max_tokens is not None and n_tokens > max_tokens):
            self._metrics.refused.inc()
            raise overloaded(
                f"{stats.n_waiting} texts are waiting already", seconds_away(stats.waiting_tokens, stats.rate)
            )

    def is_stuck(self, seconds: float) -> bool:
        """Whether there is work, and no step has ended for so long."""
        stats = self.engine.stats()
        return bool(stats.n_waiting or stats.n_at_work) and time.monotonic() - stats.last_step > seconds

    def stop(self) -> None:
        """Ends the engine, at once if its step is short."""
        self.fail_all(unavailable("the server is stopping", "shutting_down"))
        self.engine.stop(wait=5.0)

    def _deliver(self, events: list[Event]) -> None:
        self._metrics.note_events(events)
        for event in events:
            group, number = event.job.request.tag
            group.put(number, event)


def seconds_away(n_tokens: int, rate: float) -> int:
    """When so many tokens are likely to be done, at so many a second."""
    seconds = n_tokens / rate if rate > 0 else 1
    return min(max(math.ceil(seconds), 1), MOST_SECONDS_AWAY)


def _call_in(loop: asyncio.AbstractEventLoop, function: object, *arguments: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]
