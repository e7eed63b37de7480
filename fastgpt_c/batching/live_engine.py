"""The scheduler in a thread of its own: jobs come and go at any time, and each step tells what became of them.

    engine = LiveEngine(model, on_step=lambda events: loop.call_soon_threadsafe(deliver, events))
    engine.start()
    engine.submit(Job(RequestState(tag, 0, model, prompt, lambda: options, streams=True), client="an API key"))

What asks for work and what does it share nothing but a queue of orders, carried out between two steps.  While there is
no work the thread sleeps.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from fastgpt_c.batching.fair_queue import FairQueue, Job
from fastgpt_c.batching.scheduler import Scheduler
from fastgpt_c.errors import FastGPTError, UsageError

if TYPE_CHECKING:
    from fastgpt_c.batching.request_state import RequestState
    from fastgpt_c.engine.log_probs import TokenLogProb
    from fastgpt_c.engine.model import LoadedModel
    from fastgpt_c.generation.completion import Completion

log = logging.getLogger(__name__)

# The measured rate is that of about so many of the latest seconds at work.
RATE_SECONDS = 10.0

# So often the times of ops are added up while steps run.
OP_SECONDS_PERIOD = 0.5


@dataclass(frozen=True, slots=True)
class Event:
    """What a step did for a job: a token, or the end.

    job      whose it is
    token    the id of a new token; None = the job has ended.  Jobs whose request streams get one for each of
             Completion.tokens, others none
    text     the piece of text that is certain now, often empty: whole characters, nothing of a stop string.  The texts
             of all events of a job that streams, the last one included, join to Completion.text
    logprob  of the token, where the options ask for it
    end      how it ended: its completion (finish_reason "cancelled" after a cancel), or why it failed
    """

    job: Job
    token: int | None = None
    text: str = ""
    logprob: TokenLogProb | None = None
    end: Completion | FastGPTError | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """What an engine does, when its latest step ended.

    n_rows             sequences in the latest step
    n_waiting          jobs without a slot, those of which the engine has not heard yet included
    n_at_work          jobs with a slot
    waiting_prompt_tokens, waiting_tokens
                       of jobs that wait: tokens of their prompts, and those plus what they may generate at most
    prefix_queries, prefix_hits
                       tokens of all prompts that have begun, and how many of them were in a KV cache already
    cache_used, cache_total
                       positions of KV caches in use, and that there are
    n_steps            steps since the start
    tokens_in, tokens_out
                       tokens of prompts that were read, and tokens that were drawn
    last_step          time.monotonic() when the latest step ended; when the engine started, before the first
    rate               tokens a second, read and drawn, in the latest seconds at work; 0 before the first step
    op_seconds         {(phase, op): seconds} of all steps, see profiling.records; while steps run, up to half a second
                       old
    """

    n_rows: int = 0
    n_waiting: int = 0
    n_at_work: int = 0
    waiting_prompt_tokens: int = 0
    waiting_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    cache_used: int = 0
    cache_total: int = 0
    n_steps: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    last_step: float = 0.0
    rate: float = 0.0
    op_seconds: Mapping[tuple[str, str], float] = field(default_factory=dict)


class LiveEngine:
    """Runs jobs as they come, max_batch at a time, in one thread.  Its methods are for any thread.

    max_batch      sequences in one step
    max_tokens_in_flight
                   room in all KV caches together; None = half of what max_batch sequences of n_ctx tokens would take
    deterministic, n_threads, kv_type
                   of all jobs, see Options
    prefill_chunk  tokens of prompts that a step reads at most while texts grow: what a new prompt may delay them
    prefix_cache   tokens that KV caches keep at most for later prompts that begin alike; None = all that no job needs
    on_step        called in the engine's thread with the events of a step, or of what happened between two; once for
                   all of them.  What it raises is logged, and the engine goes on

    Raises UsageError, MemoryError.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        max_batch: int = 32,
        max_tokens_in_flight: int | None = None,
        deterministic: bool = False,
        n_threads: int | None = None,
        kv_type: str = "auto",
        prefill_chunk: int | None = None,
        prefix_cache: int | None = None,
        on_step: Callable[[list[Event]], None],
    ) -> None:
        self._scheduler = Scheduler(
            model,
            max_batch=max_batch,
            max_tokens=max_tokens_in_flight,
            deterministic=deterministic,
            n_threads=n_threads,
            kv_type=kv_type,
            prefill_chunk=prefill_chunk,
            max_idle=prefix_cache,
        )
        self._on_step = on_step
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._queue = FairQueue()
        self._events: list[Event] = []  # that on_step has not been told
        self._rate = _Rate()
        self._last_step = 0.0
        self._profile = self._scheduler.profile(0)
        self._op_seconds: Mapping[tuple[str, str], float] = {}
        self._op_seconds_time = 0.0
        self._lock = threading.Lock()  # of _is_stopping and of what may be put into _orders
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="fastgpt-engine", daemon=True)

    # ---- For any thread ----

    def start(self) -> None:
        """Starts the thread, once."""
        self._last_step = time.monotonic()
        self._thread.start()

    def submit(self, job: Job) -> None:
        """The job waits for a slot from now on, once.  Raises UsageError when the engine is stopping."""
        with self._lock:
            if self._is_stopping:
                raise UsageError("the engine is stopping: it takes no more jobs")
            self._queue.backlog.add(job.request)
            self._orders.put(lambda: self._queue.push(job))

    def cancel(self, job: Job) -> None:
        """Ends the job before the next step, if it has not ended by then."""
        self._orders.put(lambda: self._cancel(job))

    def stop(self, *, wait: float | None = None) -> None:
        """Ends the thread after the step that runs; jobs end with an error.

        wait  seconds to wait for that; None = as long as it takes
        """
        with self._lock:
            self._is_stopping = True
            self._orders.put(lambda: None)  # wakes the thread
            if self._thread.ident is None:  # it never ran: it ends the jobs, and nothing else
                self._thread.start()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(wait)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stats(self) -> Stats:
        """See Stats."""
        backlog = self._queue.backlog
        return Stats(
            **vars(self._scheduler.counts),
            n_waiting=backlog.n_jobs,
            n_at_work=self._scheduler.n_at_work,
            waiting_prompt_tokens=backlog.n_prompt_tokens,
            waiting_tokens=backlog.n_tokens,
            cache_used=self._scheduler.caches.n_in_use,
            cache_total=self._scheduler.max_tokens,
            last_step=self._last_step,
            rate=self._rate.tokens_a_second,
            op_seconds=self._op_seconds,
        )

    # ---- In its own thread ----

    def _work(self) -> None:
        with self._profile:
            self._work_until_stopped()
        self._carry_out_orders(block=False)
        self._fail(self._queue.jobs(), UsageError("the engine was stopped"))
        self._deliver()

    def _work_until_stopped(self) -> None:
        while not self._is_stopping:
            try:
                self._carry_out_orders()
                self._move_on()
            except BaseException as error:  # a panic of Rust is no Exception
                self._give_up(error)
            self._add_up_op_seconds()
            self._deliver()

    def _add_up_op_seconds(self) -> None:
        now = time.monotonic()
        if self._queue.is_empty or now - self._op_seconds_time >= OP_SECONDS_PERIOD:
            self._op_seconds, self._op_seconds_time = self._profile.seconds_so_far(), now

    def _carry_out_orders(self, block: bool | None = None) -> None:
        """All that have come; waits for one where there is nothing else to do."""
        block = self._queue.is_empty if block is None else block
        try:
            order = self._orders.get(block)
            if block:
                self._last_step = time.monotonic()
            while True:
                order()
                order = self._orders.get_nowait()
        except Empty:
            pass

    def _cancel(self, job: Job) -> None:
        if job not in self._queue:
            return
        if not self._scheduler.cancel(job.request):
            job.request.cancel()
        self._end(job.request)

    def _move_on(self) -> None:
        """A step, if anybody has a slot then."""
        for request in self._scheduler.admit(self._queue):
            self._end(request)
        if not self._scheduler.n_at_work:
            return
        begin, counts = time.monotonic(), self._scheduler.counts
        n_before = counts.tokens_in + counts.tokens_out
        for request in self._scheduler.advance():
            self._tell(request)
        self._last_step = time.monotonic()
        self._rate.note(counts.tokens_in + counts.tokens_out - n_before, self._last_step - begin)

    def _tell(self, request: RequestState) -> None:
        """The events of a request for which a token was drawn."""
        if request.streams and (token := request.take_token()) is not None:
            job = self._queue.job_of(request)
            self._events.append(Event(job, token.token, token.text, token.logprob))
        if request.ended:
            self._end(request)

    def _end(self, request: RequestState) -> None:
        job, result = self._queue.end(request), request.result()
        self._events.append(Event(job, text=request.take_piece() if request.streams else "", end=result))

    def _give_up(self, error: BaseException) -> None:
        """After an error that leaves the caches unknown, the jobs at work end, and the engine goes on without them."""
        log.warning("a step of an engine has failed", exc_info=error)
        concerned = set(self._scheduler.abort())
        jobs = [job for job in self._queue.jobs() if job.has_begun or job.request in concerned]
        self._fail(jobs or self._queue.jobs(), _as_fastgpt_error(error))

    def _fail(self, jobs: list[Job], error: FastGPTError) -> None:
        for job in jobs:
            job.request.fail(error)
            self._end(job.request)

    def _deliver(self) -> None:
        events, self._events = self._events, []
        if not events:
            return
        try:
            self._on_step(events)
        except Exception:
            log.exception("on_step of an engine has failed")


def _as_fastgpt_error(error: BaseException) -> FastGPTError:
    if isinstance(error, FastGPTError):
        return error
    if isinstance(error, MemoryError):
        return FastGPTError("not enough memory for the KV cache of this text; try again, or ask for a shorter one")
    return FastGPTError(f"the engine failed: {type(error).__name__}: {error}")


class _Rate:
    """tokens_a_second of the latest RATE_SECONDS of work, the older of them counting less; 0 at first."""

    def __init__(self) -> None:
        self._n_tokens = self._seconds = self.tokens_a_second = 0.0

    def note(self, n_tokens: int, seconds: float) -> None:
        """A step has taken so long."""
        kept = math.exp(-seconds / RATE_SECONDS)
        self._n_tokens = self._n_tokens * kept + n_tokens
        self._seconds = self._seconds * kept + seconds
        self.tokens_a_second = self._n_tokens / max(self._seconds, 1e-9)
