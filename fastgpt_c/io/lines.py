"""Numbered lines of files whose lines may have any length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

SLICE = 1 << 20  # bytes of a line that is too long, as it is read past


def numbered_lines(stream: BinaryIO, most_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of every line; of one longer than most_bytes its first most_bytes + 1 bytes."""
    number = 0
    while line := stream.readline(most_bytes + 1):
        number += 1
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(SLICE)
        yield number, line
