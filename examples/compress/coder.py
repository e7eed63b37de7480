"""Arithmetic coding with integers (Witten, Neal and Cleary 1987, "Arithmetic coding for data compression").

A symbol with frequencies [first, first + size) of total narrows an interval of 64-bit numbers in that proportion; bits
on which both ends agree are written.  It takes log2(total / size) bits, all in all two more for a text.
"""

from __future__ import annotations

HALF, QUARTER = 1 << 63, 1 << 62
MOST_TOTAL = QUARTER  # a symbol must not vanish between low and high


class Interval:
    """[low, high], and what both sides of the coder do to it."""

    def __init__(self) -> None:
        self.low, self.high = 0, 2 * HALF - 1

    def narrow(self, first: int, size: int, total: int) -> None:
        width = self.high - self.low + 1
        self.high = self.low + width * (first + size) // total - 1
        self.low += width * first // total

    def grow(self) -> int | None:
        """Doubles the interval where it is less than a quarter or does not cross the middle -> what was taken from both
        ends: 0, QUARTER or HALF.  None where it is wide enough."""
        if self.high < HALF:
            taken = 0
        elif self.low >= HALF:
            taken = HALF
        elif self.low >= QUARTER and self.high < 3 * QUARTER:
            taken = QUARTER
        else:
            return None
        self.low, self.high = 2 * (self.low - taken), 2 * (self.high - taken) + 1
        return taken


class Encoder:
    def __init__(self) -> None:
        self._interval = Interval()
        self._bits: list[int] = []
        self._n_pending = 0  # bits that are the opposite of the next one

    def encode(self, first: int, size: int, total: int) -> None:
        self._interval.narrow(first, size, total)
        while (taken := self._interval.grow()) is not None:
            if taken == QUARTER:
                self._n_pending += 1
            else:
                self._put(int(taken == HALF))

    def finish(self) -> bytes:
        """All that was encoded."""
        self._n_pending += 1
        self._put(int(self._interval.low >= QUARTER))
        bits = "".join(map(str, self._bits))
        bits += "0" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")

    def _put(self, bit: int) -> None:
        self._bits += [bit] + [1 - bit] * self._n_pending
        self._n_pending = 0


class Decoder:
    """The way back; behind the end of data it reads zeros."""

    def __init__(self, data: bytes) -> None:
        self._interval = Interval()
        self._bits = (byte >> shift & 1 for byte in data for shift in range(7, -1, -1))
        self._value = 0
        for _ in range(64):
            self._value = 2 * self._value + next(self._bits, 0)

    def target(self, total: int) -> int:
        """In [0, total): within the frequencies of the next symbol."""
        interval = self._interval
        return ((self._value - interval.low + 1) * total - 1) // (interval.high - interval.low + 1)

    def skip(self, first: int, size: int, total: int) -> None:
        """Goes on behind that symbol."""
        self._interval.narrow(first, size, total)
        while (taken := self._interval.grow()) is not None:
            self._value = 2 * (self._value - taken) + next(self._bits, 0)
