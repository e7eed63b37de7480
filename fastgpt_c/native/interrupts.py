"""Ctrl-C while the library computes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from fastgpt_c.native.lib import lib

# Seconds after which the main thread looks for a signal that came just before it began to wait.
PATIENCE = 0.1

# Steps that may take longer can be stopped by Ctrl-C; doing so costs a thread, 0.1 ms or more.
SECONDS_UNINTERRUPTED = 0.1


class Steps:
    """Runs the steps of one context.  How long one may take is told from the latest one before it that succeeded."""

    def __init__(self) -> None:
        self._n_tokens, self._seconds = 1, SECONDS_UNINTERRUPTED  # of that one; pessimistic about the first

    def run(self, work: Callable[[], int], n_tokens: int, stop: Callable[[], None]) -> int:
        """work(), a step of n_tokens; in the main thread Ctrl-C calls stop if it may take long."""
        begin = time.perf_counter()
        is_long = self._seconds * max(1.0, n_tokens / self._n_tokens) >= SECONDS_UNINTERRUPTED
        in_main = threading.current_thread() is threading.main_thread()
        status = interruptibly(work, stop) if is_long and in_main else work()
        if status == lib.FASTGPT_OK:
            self._n_tokens, self._seconds = n_tokens, time.perf_counter() - begin
        return status


def interruptibly(work: Callable[[], int], stop: Callable[[], None]) -> int:
    """Runs work in another thread while the main one waits for it and for Ctrl-C, which calls stop.

    Python's own handler of SIGINT, or whatever else the program has set, gets its turn when work has ended.
    For the main thread only.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        return work()
    interrupts: list[tuple[int, FrameType | None]] = []

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append((number, frame))
        stop()

    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    signal.signal(signal.SIGINT, on_interrupt)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(PATIENCE)
    except BaseException:  # of another signal's handler
        stop()
        thread.join()
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
    if interrupts:
        handler(*interrupts[-1])
    return results[0]
