"""How far a job on a Ray cluster is: a line on a terminal, or lines of JSON."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from fastgpt_c.cli import common

if TYPE_CHECKING:
    from fastgpt_c.sharding.ray_driver import Counts

SECONDS_BETWEEN_RECORDS = 5.0


class RayProgress:
    """Shows the counts of a job on standard error if that is a terminal; as_json: as records on standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json, self._begin, self._recorded = as_json, time.monotonic(), float("-inf")
        self._is_shown = False
        self._last: Counts | None = None

    def show(self, counts: Counts) -> None:
        self._last = counts
        if self._as_json and time.monotonic() - self._recorded > SECONDS_BETWEEN_RECORDS:
            self._record(counts)
        if sys.stderr.isatty() and not self._as_json:
            self._is_shown = True
            print(f"\r\033[K{self._line(counts)}", end="", file=sys.stderr, flush=True)

    def failed(self, index: int, reason: str) -> None:
        """A shard, which will not be tried again by this call."""
        self._clear()
        print(f"fastgpt-c: shard {index} failed: {common.one_line(reason)}", file=sys.stderr)

    def close(self) -> None:
        self._clear()
        if self._as_json and self._last is not None:
            self._record(self._last)

    def _record(self, counts: Counts) -> None:
        self._recorded = time.monotonic()
        common.print_json(asdict(counts) | {"seconds": round(self._seconds(), 3), "seconds_left": self._left(counts)})

    def _line(self, counts: Counts) -> str:
        seconds, left = self._seconds(), self._left(counts)
        minutes, rest = divmod(left or 0, 60)
        return (
            f"shards: {counts.n_done:,} of {counts.n_shards:,} done, {counts.n_at_work} in flight, "
            f"{counts.n_failed} failed; {counts.n_nodes} nodes; {counts.n_lines / seconds:,.0f} lines/s, "
            f"{counts.n_tokens / seconds:,.0f} tokens/s{'' if left is None else f', {minutes}:{rest:02} left'}"
        )

    def _seconds(self) -> float:
        return max(time.monotonic() - self._begin, 1e-9)

    def _left(self, counts: Counts) -> int | None:
        n_run = counts.n_done - counts.n_before
        n_left = counts.n_shards - counts.n_done - counts.n_failed
        return round(self._seconds() / n_run * n_left) if n_run else None

    def _clear(self) -> None:
        if self._is_shown:
            self._is_shown = False
            print("\r\033[K", end="", file=sys.stderr, flush=True)
