"""Where Python alone would lose a Ctrl-C: while it imports, and as it begins to wait for a line."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

INTERRUPTED = 130  # as a shell counts processes that Ctrl-C ended


@contextmanager
def ending_at_once() -> Iterator[None]:
    """For imports: in the middle of one a KeyboardInterrupt may get lost, or come out as an error of another kind."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def line_of(terminal: TextIO) -> str:
    """terminal.readline(), which Ctrl-C ends whenever it comes.  For the main thread.

    Python looks for signals before the system call that reads, and when that is interrupted.  A signal in between, or
    one that another thread takes, would be noticed only after the line; so this waits for the line or the signal.
    """
    signalled, on_signal = os.pipe()
    os.set_blocking(on_signal, False)
    before = signal.set_wakeup_fd(on_signal, warn_on_full_buffer=False)
    try:
        select.select([terminal.fileno(), signalled], [], [])
    finally:
        signal.set_wakeup_fd(before)
        os.close(signalled)
        os.close(on_signal)
    return terminal.readline()
