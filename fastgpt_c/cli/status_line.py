"""One line on a terminal that says how far a long job is."""

from __future__ import annotations

import sys
import time

_SECONDS_BETWEEN = 0.2


class StatusLine:
    """Shows "45%, 1,234 tokens/s, 12 s left" where standard error is a terminal, and takes it off at the end."""

    def __init__(self, unit: str) -> None:
        self._unit, self._begin, self._shown = unit, time.monotonic(), 0.0
        self._on = sys.stderr.isatty()

    def show(self, done: float, n_done: int, note: str = "") -> None:
        """done in [0, 1], n_done units of work in all so far."""
        now = time.monotonic()
        if not self._on or now - self._shown < _SECONDS_BETWEEN:
            return
        self._shown, seconds = now, now - self._begin
        left = f", {seconds / done - seconds:.0f} s left" if done > 0 else ""
        print(
            f"\r\033[K{done:4.0%}, {n_done / seconds:,.0f} {self._unit}/s{left}{note}",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._on and self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
