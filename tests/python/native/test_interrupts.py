"""Which steps Ctrl-C can stop: those that may take long, told from the latest step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from fastgpt_c.native.interrupts import SECONDS_UNINTERRUPTED, Steps
from fastgpt_c.native.lib import lib


@pytest.fixture(autouse=True)
def python_handles_sigint() -> Iterator[None]:
    """Also where the tests run in the background of a shell, which has it ignored: then no step need be stopped."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ran_in(steps: Steps, n_tokens: int, seconds: float = 0, status: int = lib.FASTGPT_OK) -> threading.Thread:
    """The thread that a step of so many tokens ran in, which gave that status."""
    threads = []

    def work() -> int:
        threads.append(threading.current_thread())
        time.sleep(seconds)
        return status

    assert steps.run(work, n_tokens, stop=lambda: None) == status
    return threads[0]


def test_a_step_runs_in_a_thread_of_its_own_until_one_was_short() -> None:
    steps, main = Steps(), threading.main_thread()
    assert ran_in(steps, 1) is not main
    assert ran_in(steps, 1) is main


def test_a_step_of_many_more_tokens_may_take_long() -> None:
    steps, main = Steps(), threading.main_thread()
    ran_in(steps, 1, seconds=SECONDS_UNINTERRUPTED / 10)
    assert ran_in(steps, 1000) is not main


def test_after_a_long_step_one_of_fewer_tokens_may_be_long_too() -> None:
    steps, main = Steps(), threading.main_thread()
    ran_in(steps, 10, seconds=SECONDS_UNINTERRUPTED)
    assert ran_in(steps, 1) is not main
    assert ran_in(steps, 1) is main


def test_a_step_that_failed_tells_nothing() -> None:
    steps, main = Steps(), threading.main_thread()
    assert ran_in(steps, 512, status=lib.FASTGPT_ERR_TOKEN_RANGE) is not main
    assert ran_in(steps, 512) is not main


def test_where_sigint_is_ignored_no_step_is_moved() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert ran_in(Steps(), 1) is threading.main_thread()


def test_outside_the_main_thread_no_step_is_moved() -> None:
    seen = []

    def other() -> None:
        seen.append(ran_in(Steps(), 1) is threading.current_thread())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [True]


def test_an_error_of_the_work_reaches_the_caller() -> None:
    steps = Steps()
    ran_in(steps, 1)

    def work() -> int:
        raise MemoryError("none left")

    with pytest.raises(MemoryError, match="none left"):
        steps.run(work, 1, stop=lambda: None)
