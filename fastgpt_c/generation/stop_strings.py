"""Where a text ends that comes piece by piece: at its first stop string."""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Text in, text out up to the first stop string; holds back what may be the beginning of one.

    The first is the one that is complete first, and of those the longest: how the text is cut into pieces is all one.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What can be shown for sure."""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.found = True
            self._held = ""
            return text[: min(found)[1]]
        n_held = max((_n_possible(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def finish(self) -> str:
        """What was held back, now that no more text comes."""
        rest, self._held = self._held, ""
        return rest


def _n_possible(text: str, stop: str) -> int:
    """Length of the longest end of text that stop begins with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
