"""The laws of a live engine: jobs come, stream and go at any time, and nobody notices the others."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastgpt_c
from fastgpt_c.batching import kv_cache_pool
from fastgpt_c.batching.fair_queue import MOST_PASSES, FairQueue, Job
from fastgpt_c.batching.live_engine import Event, LiveEngine
from fastgpt_c.batching.ragged_step import RaggedStep
from fastgpt_c.batching.request_state import RequestState
from fastgpt_c.errors import FastGPTError, UsageError

SECONDS = 600.0  # that no wait of these tests should take
ENDLESS: dict[str, Any] = {"max_new_tokens": 10**9, "on_overflow": "slide", "ignore_eos": True}


class Listener:
    """on_step of an engine: keeps all events, and can wait for jobs to end."""

    def __init__(self) -> None:
        self.events: dict[Job, list[Event]] = {}
        self.n_calls = 0
        self._changed = threading.Condition()

    def __call__(self, events: list[Event]) -> None:
        with self._changed:
            self.n_calls += 1
            for event in events:
                self.events.setdefault(event.job, []).append(event)
            self._changed.notify_all()

    def wait(self, is_so: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(is_so, SECONDS)

    def result(self, job: Job) -> fastgpt_c.Completion | FastGPTError:
        """Waits for the end of a job."""
        self.wait(lambda: job in self.events and self.events[job][-1].end is not None)
        end = self.events[job][-1].end
        assert end is not None
        return end

    def text(self, job: Job) -> str:
        return "".join(event.text for event in self.events[job])


@pytest.fixture
def listener() -> Listener:
    return Listener()


EngineMaker = Callable[..., LiveEngine]


@pytest.fixture
def engine_of(listener: Listener) -> Iterator[EngineMaker]:
    """Makes and starts engines that tell the listener, and stops them."""
    engines: list[LiveEngine] = []

    def make(model: fastgpt_c.Model, **settings: Any) -> LiveEngine:
        engines.append(LiveEngine(model, on_step=listener, **settings))
        engines[-1].start()
        return engines[-1]

    yield make
    for engine in engines:
        engine.stop(wait=SECONDS)
        assert not engine.is_alive


def job_of(model: fastgpt_c.Model, prompt: Any, *, client: str = "", streams: bool = True, **options: Any) -> Job:
    return Job(RequestState(None, 0, model, prompt, lambda: fastgpt_c.Options(**options), streams=streams), client)


def completed(result: fastgpt_c.Completion | FastGPTError) -> fastgpt_c.Completion:
    assert isinstance(result, fastgpt_c.Completion), result
    return result


def test_pieces_join_to_the_text(random_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker) -> None:
    """Each token comes once, in order, with its log-probability; pieces are whole characters, hold nothing of a stop
    string, and join to the text of a lone run.  A job that does not stream gets its end alone."""
    engine = engine_of(random_model, deterministic=True)
    rng = np.random.default_rng(1)
    for i in range(40):
        options = {
            "max_new_tokens": 18, "seed": i, "temperature": 3.0, "stop": ["t", "qu", "¢x"][: i % 4], "logprobs": i % 3,
            "deterministic": True,
        }  # fmt: skip
        prompt = rng.integers(0, 250, 4).tolist()
        job, silent = (job_of(random_model, prompt, streams=streams, **options) for streams in (True, False))
        engine.submit(job)
        engine.submit(silent)
        lone = random_model.generate(prompt, **options)
        assert completed(listener.result(job)).text == listener.text(job) == lone.text
        *tokens, end = listener.events[job]
        assert [event.token for event in tokens] == lone.tokens and end.token is None
        assert tuple(event.logprob for event in tokens) == lone.logprobs
        assert completed(listener.result(silent)).tokens == lone.tokens and len(listener.events[silent]) == 1


def test_a_cancelled_job_is_gone_after_a_step(
    long_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker
) -> None:
    """At work or waiting: it ends as "cancelled" with what it had, and its cache is free for others."""
    engine = engine_of(long_model, max_batch=1, max_tokens_in_flight=long_model.n_ctx)
    at_work = job_of(long_model, [1, 2], **ENDLESS)
    waits = job_of(long_model, [3], **ENDLESS)
    last = job_of(long_model, [4], max_new_tokens=3)
    for job in (at_work, waits, last):
        engine.submit(job)
    listener.wait(lambda: len(listener.events.get(at_work, ())) > 3)
    engine.cancel(waits)
    assert completed(listener.result(waits)).finish_reason == "cancelled"
    engine.cancel(at_work)
    ended = completed(listener.result(at_work))
    assert ended.finish_reason == "cancelled" and len(ended.tokens) > 2
    assert completed(listener.result(last)).finish_reason == "length"
    engine.cancel(last)  # nothing happens to what has ended
    assert engine.stats().cache_used == 0


def test_idle_means_asleep(alphabet_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker) -> None:
    """An engine without work takes no time of a processor, and goes on when a job comes."""
    engine = engine_of(alphabet_model)
    for _ in range(2):
        engine.submit(job := job_of(alphabet_model, "a", max_new_tokens=3))
        assert completed(listener.result(job)).text == "bcd"
        begin = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - begin < 0.1


def test_stop_ends_everything(long_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker) -> None:
    """Jobs at work and waiting end with an error, the thread ends, and no more jobs are taken."""
    engine = engine_of(long_model, max_batch=2, max_tokens_in_flight=3 * long_model.n_ctx)
    jobs = [job_of(long_model, [i], **ENDLESS) for i in range(5)]
    for job in jobs:
        engine.submit(job)
    listener.wait(lambda: len(listener.events) >= 2)
    engine.stop(wait=SECONDS)
    assert not engine.is_alive
    for job in jobs:
        assert "stopped" in str(listener.result(job))
    with pytest.raises(UsageError, match="stopping"):
        engine.submit(job_of(long_model, [1]))


# ---- Many jobs that come and go ------------------------------------------------------------------------------

N_JOBS = int(os.environ.get("FASTGPT_TEST_JOBS", "1000"))
N_DIFFERENT = 25


def random_options(rng: np.random.Generator, n_ctx: int) -> tuple[list[int], dict[str, Any]]:
    """A prompt, half of them with one of two common beginnings, and its options."""
    stem = np.random.default_rng(rng.integers(0, 2)).integers(0, 97, 300)[: rng.integers(0, 300)]
    prompt = [*stem.tolist(), *rng.integers(0, 97, rng.integers(1, 40)).tolist()]
    return prompt, {
        "max_new_tokens": int(rng.integers(0, 25)),
        "temperature": float(rng.choice([0, 1, 2])),
        "repetition_penalty": float(rng.choice([1, 1.3])),
        "logprobs": [None, 0, 2][rng.integers(0, 3)],
        "seed": int(rng.integers(0, 2**40)),
        "deterministic": True,
    }


class Canceller(Listener):
    """Cancels jobs after the token that it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.after: dict[Job, int] = {}
        self.engine: LiveEngine | None = None

    def __call__(self, events: list[Event]) -> None:
        super().__call__(events)
        assert self.engine is not None
        for event in events:
            if len(self.events[event.job]) == self.after.get(event.job):
                self.engine.cancel(event.job)


def test_nobody_notices_the_others(long_model: fastgpt_c.Model) -> None:
    """1,000 jobs of five clients, a third cancelled while they wait, are read, or stream: the texts of the others are
    those of lone runs, the pieces of the cancelled ones begin them; each job ends once, with its last event; and all
    slots, caches and references are given back."""
    rng = np.random.default_rng(5)
    different = [random_options(rng, long_model.n_ctx) for _ in range(N_DIFFERENT)]
    alone = [long_model.generate(prompt, **options) for prompt, options in different]
    listener = Canceller()
    engine = listener.engine = LiveEngine(
        long_model, max_batch=8, max_tokens_in_flight=2000, deterministic=True, prefill_chunk=64, on_step=listener
    )
    engine.start()
    jobs: list[tuple[Job, int]] = []
    for i in range(N_JOBS):
        which = int(rng.integers(0, N_DIFFERENT))
        prompt, options = different[which]
        job = job_of(long_model, prompt, client=f"client {rng.integers(0, 5)}", streams=rng.random() < 0.8, **options)
        jobs.append((job, which))
        chance = rng.random()
        if chance < 0.1:
            listener.after[job] = int(rng.integers(1, 10))
        engine.submit(job)
        if chance > 0.9:
            engine.cancel(job)
        elif chance > 0.8:
            engine.cancel(jobs[max(0, i - int(rng.integers(0, 30)))][0])
        if i % 50 == 49:  # so that there are moments with few jobs, too
            listener.result(jobs[i - int(rng.integers(0, 50))][0])
    results = [(listener.result(job), job, which) for job, which in jobs]
    stats = engine.stats()
    caches = engine._scheduler.caches
    engine.stop(wait=SECONDS)
    n_cancelled = 0
    for result, job, which in results:
        lone = alone[which]
        assert sum(event.end is not None for event in listener.events[job]) == 1
        done = completed(result)
        n_cancelled += done.finish_reason == "cancelled"
        if done.finish_reason == "cancelled":
            assert done.tokens == lone.tokens[: len(done.tokens)]
        else:
            assert (done.tokens, done.finish_reason, done.logprobs) == (lone.tokens, lone.finish_reason, lone.logprobs)
        if job.request.streams:
            assert [event.token for event in listener.events[job][:-1]] == done.tokens
    assert N_JOBS // 10 < n_cancelled < N_JOBS // 2
    assert (stats.n_waiting, stats.n_at_work, stats.waiting_tokens, stats.cache_used) == (0, 0, 0, 0)
    assert stats.prefix_hits > 0 and stats.tokens_in + stats.prefix_hits <= stats.prefix_queries
    assert caches._n_left + sum(cache.n_ctx for cache in caches._waiting) == 2000
    gone = [weakref.ref(job.request) for job, _ in jobs]
    listener.events.clear()
    listener.after.clear()
    del jobs, results, job, result
    gc.collect()
    assert not any(ref() for ref in gone)


# ---- Who is next ---------------------------------------------------------------------------------------------


class FakeRequest:
    """What a queue needs to know of a request."""

    def __init__(self, n_prompt: int, n_new: int) -> None:
        self.prompt, self.n_positions = [0] * n_prompt, n_prompt + n_new
        self.tokens: list[int] = []


def fake_job(client: str, n_prompt: int = 5, n_new: int = 5) -> Job:
    return Job(FakeRequest(n_prompt, n_new), client)  # type: ignore[arg-type]


def pushed(queue: FairQueue, *jobs: Job) -> list[Job]:
    for job in jobs:
        queue.backlog.add(job.request)
        queue.push(job)
    return list(jobs)


def admitted(queue: FairQueue, room: int = 10**9) -> Job | None:
    """The first job that fits into room, as a scheduler takes it; it ends at once, with all its tokens."""
    for request in queue.candidates():
        if request.n_positions <= room:
            queue.take(request)
            request.tokens = [0] * (request.n_positions - len(request.prompt))
            return queue.end(request)
    return None


def test_first_come_within_a_client() -> None:
    """Whatever their sizes; what never had a turn may leave, too."""
    queue = FairQueue()
    jobs = pushed(queue, *(fake_job("a", n) for n in (50, 1, 30, 2, 7)))
    queue.end(jobs[2].request)
    assert [admitted(queue) for _ in range(4)] == [jobs[0], jobs[1], jobs[3], jobs[4]]
    assert queue.is_empty and (queue.backlog.n_jobs, queue.backlog.n_tokens, queue.backlog.n_prompt_tokens) == (0, 0, 0)
    assert not queue._clients


def test_clients_get_equal_shares() -> None:
    """In tokens, not in jobs: at no time is a client with work waiting more than its largest job behind another."""
    queue = FairQueue()
    sizes = {"many small": 4, "few large": 90, "middle": 30}
    for client, n in sizes.items():
        pushed(queue, *(fake_job(client, n, n) for _ in range(300)))
    done = dict.fromkeys(sizes, 0)
    for _ in range(200):
        job = admitted(queue)
        assert job is not None
        done[job.client] += job.request.n_positions
        assert max(done.values()) - min(done.values()) <= 2 * 90


def test_a_newcomer_is_next() -> None:
    """A thousand jobs of one client do not come before the first of another; nor does having been away count."""
    queue = FairQueue()
    pushed(queue, *(fake_job("busy") for _ in range(1000)))
    for _ in range(500):
        admitted(queue)
    (late,) = pushed(queue, fake_job("late"))
    assert late in (admitted(queue), admitted(queue))
    pushed(queue, *(fake_job("late") for _ in range(1000)))
    clients = [job.client for _ in range(100) if (job := admitted(queue))]
    assert 45 <= clients.count("late") <= 55


def test_what_finds_no_room_is_passed_so_often() -> None:
    """A large job neither stops the others' small ones, nor waits while more than MOST_PASSES of them pass it; and then
    it is the only candidate, until it has its room."""
    queue = FairQueue()
    (large,) = pushed(queue, fake_job("large", 100))
    pushed(queue, *(fake_job("small", 1, 1) for _ in range(100)))
    passed = [admitted(queue, room=50) for _ in range(40)]
    assert [job.client for job in passed if job] == ["small"] * MOST_PASSES
    assert passed[MOST_PASSES:] == [None] * (40 - MOST_PASSES)
    assert admitted(queue) is large
    assert admitted(queue, room=50) is not None


def test_a_large_job_gets_its_room(long_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker) -> None:
    """In an engine, too, where small jobs of others never end to come."""
    engine = engine_of(long_model, max_batch=4, max_tokens_in_flight=long_model.n_ctx)
    small = [job_of(long_model, [1], client="small", max_new_tokens=3) for _ in range(60)]
    large = job_of(long_model, [2], client="large", max_new_tokens=long_model.n_ctx - 1)
    for job in [*small[:4], large, *small[4:]]:
        engine.submit(job)
    assert len(completed(listener.result(large)).tokens) == long_model.n_ctx - 1
    for job in small:
        listener.result(job)
    ends = [job for job, events in listener.events.items() if events[-1].end is not None]
    assert len(ends) == 61


# ---- Errors --------------------------------------------------------------------------------------------------


def test_an_error_of_a_step_ends_what_was_in_it(
    long_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is; those that wait go on, with the texts that they have alone."""
    run, errors = RaggedStep.run, [MemoryError(), FastGPTError("broken"), RuntimeError("a bug")]

    def failing(self: RaggedStep, *what: Any) -> None:
        if errors and threading.current_thread().name == "fastgpt-engine":
            raise errors.pop()
        run(self, *what)

    monkeypatch.setattr(RaggedStep, "run", failing)
    engine = engine_of(long_model, max_batch=1)
    jobs = [job_of(long_model, [1, 2, i], max_new_tokens=4, temperature=0) for i in range(5)]
    for job in jobs:
        engine.submit(job)
    results = [listener.result(job) for job in jobs]
    for result, words in zip(results, ("a bug", "broken", "not enough memory"), strict=False):
        assert isinstance(result, FastGPTError) and words in str(result)
    for i in (3, 4):
        assert completed(results[i]).tokens == long_model.generate([1, 2, i], max_new_tokens=4, temperature=0).tokens
    assert engine.stats().cache_used == 0


def test_no_memory_for_a_cache(
    long_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job for which there is none waits while others are at work, whose caches may be enough; alone it ends with an
    error that says so, and the next one goes on."""
    create, n_left = kv_cache_pool.create, 1

    def scarce(*arguments: Any, **others: Any) -> Any:
        nonlocal n_left
        if n_left == 0:
            raise MemoryError
        n_left -= 1
        return create(*arguments, **others)

    monkeypatch.setattr(kv_cache_pool, "create", scarce)
    engine = engine_of(long_model, max_batch=4, prefix_cache=0)
    first, second, third = (job_of(long_model, [i], max_new_tokens=20) for i in (1, 2, 3))
    engine.submit(first)
    engine.submit(second)
    assert len(completed(listener.result(first)).tokens) == 20
    assert "not enough memory" in str(listener.result(second))
    n_left = 1
    engine.submit(third)
    assert len(completed(listener.result(third)).tokens) == 20


def test_a_listener_that_fails_stops_nothing(alphabet_model: fastgpt_c.Model, caplog: pytest.LogCaptureFixture) -> None:
    """Its error is in the log; later events come."""
    listener = Listener()

    def failing(events: list[Event]) -> None:
        listener(events)
        raise ValueError("mine")

    engine = LiveEngine(alphabet_model, on_step=failing)
    engine.start()
    engine.submit(job := job_of(alphabet_model, "a", max_new_tokens=5))
    assert completed(listener.result(job)).text == listener.text(job) == "bcdef"
    engine.stop(wait=SECONDS)
    assert "mine" in caplog.text


def test_what_can_never_begin_ends_at_once(
    long_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker
) -> None:
    """Too long for all caches together, of a bad option, or without a token to draw."""
    engine = engine_of(long_model, max_tokens_in_flight=100)
    for options, words in (({"max_new_tokens": 101}, "max_tokens_in_flight"), ({"temperature": -1.0}, "temperature")):
        engine.submit(job := job_of(long_model, [1], **options))
        assert words in str(listener.result(job))
    engine.submit(job := job_of(long_model, [1], max_new_tokens=0))
    assert completed(listener.result(job)).tokens == []
    assert engine.stats().n_steps == engine.stats().n_waiting == 0


# ---- Caches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prefix_cache", "n_reused"), [(None, 9), (0, 0), (69, 9), (68, 0)])
def test_prefix_cache(
    long_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker, prefix_cache: int | None, n_reused: int
) -> None:
    """Its size says how many tokens idle caches may have together; one has a sixteenth of n_ctx."""
    engine = engine_of(long_model, prefix_cache=prefix_cache)
    for n in (0, n_reused):
        engine.submit(job := job_of(long_model, list(range(10)), max_new_tokens=2))
        assert completed(listener.result(job)).n_reused == n
    assert (engine.stats().prefix_queries, engine.stats().prefix_hits) == (20, n_reused)


def test_stop_before_the_start(alphabet_model: fastgpt_c.Model, listener: Listener) -> None:
    """Jobs of an engine that never ran end, too."""
    engine = LiveEngine(alphabet_model, on_step=listener)
    engine.submit(job := job_of(alphabet_model, "a"))
    engine.stop(wait=SECONDS)
    assert "stopped" in str(listener.result(job))


def test_choices_read_their_prompt_once(
    long_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker
) -> None:
    """Many jobs of one prompt share what is read of it, up to a multiple of 16 tokens."""
    engine = engine_of(long_model, max_batch=8)
    prompt = np.random.default_rng(0).integers(0, 97, 400).tolist()
    jobs = [job_of(long_model, prompt, max_new_tokens=5, seed=seed) for seed in range(8)]
    for job in jobs:
        engine.submit(job)
    for job in jobs:
        completed(listener.result(job))
    assert 400 <= engine.stats().tokens_in <= 400 + 7 * 16


def test_times_of_ops_add_up(alphabet_model: fastgpt_c.Model, listener: Listener, engine_of: EngineMaker) -> None:
    """When a job has ended they are those of all its steps, by phase: no more than the time that has passed."""
    begin = time.monotonic()
    engine = engine_of(alphabet_model)
    assert engine.stats().op_seconds == {}
    before = 0.0
    for _ in range(2):
        job = job_of(alphabet_model, "abc", max_new_tokens=5)
        engine.submit(job)
        completed(listener.result(job))
        seconds = engine.stats().op_seconds
        assert {("prefill", "qkv"), ("decode", "lm_head"), ("decode", "sample")} <= seconds.keys()
        assert before < sum(seconds.values()) < time.monotonic() - begin
        before = sum(seconds.values())
