"""Which steps signals can stop: those that may take long, told from the latest step.  And where no thread is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import write_random_gguf

import fastgpt_c
from fastgpt_c.native import interrupts
from fastgpt_c.native.interrupts import SECONDS_UNINTERRUPTED, Steps, ending, new_guard
from fastgpt_c.native.lib import ffi, lib


def test_a_step_is_taken_for_long_until_one_was_short() -> None:
    steps = Steps()
    assert steps.may_be_long(1)
    steps.note(1, SECONDS_UNINTERRUPTED / 10)
    assert not steps.may_be_long(1)


def test_a_step_of_many_more_tokens_may_take_long() -> None:
    steps = Steps()
    steps.note(1, SECONDS_UNINTERRUPTED / 10)
    assert steps.may_be_long(1000)


def test_after_a_long_step_one_of_fewer_tokens_may_be_long_too() -> None:
    steps = Steps()
    steps.note(10, SECONDS_UNINTERRUPTED)
    assert steps.may_be_long(1)


class WatchedLibrary:
    """lib, which notes whether steps get a thread of their own; or has none for them."""

    def __init__(self, has_threads: bool = True) -> None:
        self.in_thread: list[bool] = []
        self._has_threads = has_threads

    def __getattr__(self, name: str) -> Any:
        return getattr(lib, name)

    def guard_start(self, guard: Any) -> bool:
        self.in_thread.append(self._has_threads and lib.guard_start(guard))
        return self.in_thread[-1]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> WatchedLibrary:
    library = WatchedLibrary()
    monkeypatch.setattr(interrupts, "lib", library)
    return library


def test_a_step_that_failed_tells_nothing(alphabet_model: fastgpt_c.Model, watched: WatchedLibrary) -> None:
    """The next one gets its thread all the same."""
    with alphabet_model.session() as session:
        for _ in range(2):
            with pytest.raises(fastgpt_c.UsageError):
                session.prefill([-1])
    assert watched.in_thread == [True, True]


def test_outside_the_main_thread_no_step_is_moved(alphabet_model: fastgpt_c.Model, watched: WatchedLibrary) -> None:
    found = []
    with alphabet_model.session() as session:
        thread = threading.Thread(target=lambda: found.append(session.prefill([1, 2])))
        thread.start()
        thread.join()
    assert len(found) == 1
    assert not watched.in_thread


def test_without_a_thread_to_be_had_the_calling_one_does_the_work(
    alphabet_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RLIMIT_NPROC and sandboxes allow a process its one thread alone: the logits are those of any other."""
    tokens = list(range(8))
    with alphabet_model.session(n_threads=1) as session:
        expected = session.prefill(tokens)
    library = WatchedLibrary(has_threads=False)
    monkeypatch.setattr(interrupts, "lib", library)
    with alphabet_model.session(n_threads=1) as session:
        np.testing.assert_array_equal(session.prefill(tokens), expected)
    assert library.in_thread == [False]


# Runs with one thread after it may start no more; then with two, which it may not have.
NO_MORE_THREADS = """
import os, resource, sys, fastgpt_c
one, two = (fastgpt_c.load(sys.argv[1], n_threads=n) for n in (1, 2))
def work(model):
    tokens = [i % model.n_vocab for i in range(20)]
    model.generate(tokens, max_new_tokens=2)
    model.generate_batch([tokens], max_new_tokens=2)
    model.score(tokens)
    model.beam_search(tokens, max_new_tokens=2)
work(one)  # imports what it needs
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.getuid() == 0:
    os.setresuid(12345, 12345, 12345)  # the limit is not for root
work(one)
try:
    work(two)
except fastgpt_c.FastGPTError as error:
    print(error)
"""


def test_where_no_thread_may_be_started_one_is_enough(tmp_path: Path) -> None:
    """All work of a model with one thread; more threads than are to be had are refused by that name."""
    path = write_random_gguf(tmp_path / "model.gguf", n_layer=1, n_head=2, n_embd=16, n_ctx=64, n_vocab=50)
    result = subprocess.run([sys.executable, "-c", NO_MORE_THREADS, str(path)], capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stderr
    assert "refused to start a thread" in result.stdout


def test_a_guard_that_is_dropped_lets_go(alphabet_model: fastgpt_c.Model) -> None:
    """Where Python is kept from calling __exit__, by an exception on its way there, the last reference ends it."""
    with alphabet_model.session() as session:
        guard = new_guard()
        end = ending(guard)
        session.claim_for(guard)
        with pytest.raises(fastgpt_c.UsageError, match="in use"):
            session.prefill([1])
        del end
        assert session.prefill([1]).shape == (session.n_vocab,)


def test_what_a_guard_is_not_told_to_keep_is_taken_back(alphabet_model: fastgpt_c.Model) -> None:
    with alphabet_model.session() as session:
        session.prefill([1, 2, 3])
        guard = new_guard()
        with ending(guard):
            session.claim_for(guard)
            assert lib.fastgpt_decode(session._context, session._kv, 4, ffi.NULL) == lib.FASTGPT_OK
            assert session.n_past == 4
        assert session.n_past == 3


def test_a_session_that_is_closed_while_in_use_is_closed_afterwards(alphabet_model: fastgpt_c.Model) -> None:
    """close() in a signal handler, or in another thread, frees nothing under the step that runs."""
    session = alphabet_model.session()
    session.prefill([1, 2, 3])
    guard = new_guard()
    with ending(guard):
        session.claim_for(guard)
        session.close()
        assert session.n_past == 3
    with pytest.raises(fastgpt_c.UsageError, match="closed"):
        session.prefill([1])
    session.close()
    with pytest.raises(fastgpt_c.UsageError, match="closed"):
        session.n_past  # noqa: B018


def test_a_signal_handler_may_not_use_the_session_of_the_step_that_it_interrupts(
    slow_model: fastgpt_c.Model,
) -> None:
    """It is told so at once, and the step goes on to give what it always gives."""
    tokens = np.arange(slow_model.n_ctx) % slow_model.n_vocab
    refused = []

    def handler(*_: object) -> None:
        for use in (lambda: session.truncate(0), lambda: session.tokens, lambda: session.prefill([1])):
            with pytest.raises(fastgpt_c.UsageError, match="in use") as error:
                use()
            refused.append(error)
        session.close()

    with slow_model.session() as fresh:
        expected = fresh.prefill(tokens)
    session = slow_model.session()
    usual = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        np.testing.assert_array_equal(session.prefill(tokens), expected)
    finally:
        signal.signal(signal.SIGALRM, usual)
    assert len(refused) == 3
    with pytest.raises(fastgpt_c.UsageError, match="closed"):
        session.prefill([1])
