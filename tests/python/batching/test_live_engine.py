"""The laws of a live engine: jobs come, stream and go at any time, and nobody notices the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastgpt_c
from fastgpt_c.batching.fair_queue import Job
from fastgpt_c.batching.live_engine import Event, LiveEngine
from fastgpt_c.batching.request_state import RequestState
from fastgpt_c.errors import FastGPTError, UsageError

SECONDS = 60.0  # that no wait of these tests should take
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
