"""Steps that signals can stop, and that have ended before Python continues, whatever signal handlers raise."""

from __future__ import annotations

import threading
import time
from typing import Any

from fastgpt_c.native.lib import ffi, lib

# While the main thread waits for a step, Python's signal handlers run this often.
MILLISECONDS_A_WAIT = 20

# Steps that may take longer run in a thread, so that signals can stop them; that costs some tens of microseconds.
SECONDS_UNINTERRUPTED = 0.1


def new_guard() -> Any:
    """A guard *, which  with ending(guard):  ends; see csrc/extension/guard.h."""
    return ffi.new("guard *")


def ending(guard: Any) -> Any:
    """What ends a guard when a "with" statement, or the last reference to it, is done.  Give it no name."""
    return ffi.gc(guard, lib.guard_end)


class Steps:
    """Runs the steps of one context, and estimates how long the next one takes from the last that succeeded."""

    def __init__(self) -> None:
        self._n_tokens, self._seconds = (
            1,
            SECONDS_UNINTERRUPTED,
        )  # of the last step; before the first, as if it were long

    def run(self, guard: Any, n_tokens: int) -> int:
        """The step of guard, of n_tokens -> its status.  For use in  with ending(guard):  alone.

        In the main thread, where signal handlers run, a step that may take long runs in a thread of its own, if one
        can be started.
        """
        begin = time.perf_counter()
        in_main = threading.current_thread() is threading.main_thread()
        if self.may_be_long(n_tokens) and in_main and lib.guard_start(guard):
            while not lib.guard_wait(guard, MILLISECONDS_A_WAIT):
                pass
        else:
            lib.guard_step(guard)
        if guard.status == lib.FASTGPT_OK:
            self.note(n_tokens, time.perf_counter() - begin)
        return int(guard.status)

    def may_be_long(self, n_tokens: int) -> bool:
        """Whether a step of so many tokens may take longer than SECONDS_UNINTERRUPTED."""
        return self._seconds * max(1.0, n_tokens / self._n_tokens) >= SECONDS_UNINTERRUPTED

    def note(self, n_tokens: int, seconds: float) -> None:
        """Records how long a step of n_tokens took."""
        self._n_tokens, self._seconds = n_tokens, seconds
