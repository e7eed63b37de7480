"""Ctrl-C while the library computes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

# Seconds after which the main thread looks for a signal that came just before it began to wait.
PATIENCE = 0.1


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
