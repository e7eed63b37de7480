"""What Ctrl-C does before there is anything to put in order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
