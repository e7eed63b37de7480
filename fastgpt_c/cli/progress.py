"""How far a long command is: a bar by tqdm where that is installed, else a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts lines and tokens, and shows them on standard error if that is a terminal.

    n_total  lines in all, None where nobody knows yet; n_done of them were done before
    """

    def __init__(self, n_total: int | None, n_done: int) -> None:
        self._n_total, self._n_begin, self._n_done, self._n_tokens = n_total, n_done, n_done, 0
        self._begin = self._shown = time.monotonic()
        self._bar = _bar(n_total, n_done) if sys.stderr.isatty() else None

    def add(self, n_tokens: int) -> None:
        """One line more, with so many tokens."""
        self._n_done += 1
        self._n_tokens += n_tokens
        if self._bar is not None:
            self._bar.set_postfix_str(self._rate(), refresh=False)
            self._bar.update()
        elif sys.stderr.isatty() and time.monotonic() - self._shown > SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            print(f"{self._lines()}, {self._rate()}{self._rest()}", file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _rate(self) -> str:
        return f"{self._n_tokens / max(time.monotonic() - self._begin, 1e-9):.0f} tokens/s"

    def _lines(self) -> str:
        return f"{self._n_done}{'' if self._n_total is None else f' of {self._n_total}'} lines"

    def _rest(self) -> str:
        if self._n_total is None:
            return ""
        seconds = (time.monotonic() - self._begin) / max(self._n_done - self._n_begin, 1)
        minutes, seconds = divmod(round(seconds * (self._n_total - self._n_done)), 60)
        return f", {minutes}:{seconds:02} left"


def _bar(n_total: int | None, n_done: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=n_total, initial=n_done, unit="line")
