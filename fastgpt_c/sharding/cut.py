"""Cuts files at line ends, and counts lines: at the speed of memory, whatever the lines are."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from fastgpt_c.errors import UsageError
from fastgpt_c.sharding.places import InputFile, changed, input_file, is_address, open_range

BLOCK = 1 << 20  # bytes that are searched together: they stay in a cache
N_AHEAD = 8  # ranges of an object that are fetched at once
AHEAD_BYTES = 8 << 20

# How compressed files begin.
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


@dataclass
class Cuts:
    """Shards by number, in four columns.

    file   index of its input
    begin, end
           bytes of that file
    first  number of its first line, counted from 1 through all inputs
    n_lines
           in all inputs
    """

    file: array[int] = field(default_factory=lambda: array("q"))
    begin: array[int] = field(default_factory=lambda: array("q"))
    end: array[int] = field(default_factory=lambda: array("q"))
    first: array[int] = field(default_factory=lambda: array("q"))
    n_lines: int = 0

    def __len__(self) -> int:
        return len(self.file)

    def add(self, file: int, begin: int, end: int, first: int) -> None:
        for column, value in ((self.file, file), (self.begin, begin), (self.end, end), (self.first, first)):
            column.append(value)


def cut(inputs: Sequence[InputFile], shard_bytes: int, on_bytes: Callable[[int], None]) -> Cuts:
    """Shards of at least shard_bytes and one line, none of which has lines of two files.

    on_bytes is called with the number of bytes read since its last call.  Raises UsageError for a compressed file,
    PlaceError, FastGPTError for a file that changes meanwhile.
    """
    cuts = Cuts()
    for index, file in enumerate(inputs):
        _cut_file(cuts, index, file, shard_bytes, on_bytes)
        if input_file(file.path) != file:
            raise changed(file.path)
    return cuts


def _cut_file(cuts: Cuts, index: int, file: InputFile, shard_bytes: int, on_bytes: Callable[[int], None]) -> None:
    at = begin = 0
    first, n_lines = cuts.n_lines + 1, 0  # of the shard that is being cut
    last = b"\n"
    for block in _blocks(file):
        if at == 0:
            _check_plain(file.path, block)
        done = 0  # bytes of block that belong to earlier shards
        while (end := _end_of_shard(block, begin + shard_bytes - at, done)) >= 0:
            n_lines += _n_newlines(block[done:end])
            cuts.add(index, begin, at + end, first)
            begin, done, first, n_lines = at + end, end, first + n_lines, 0
        n_lines += _n_newlines(block[done:])
        at += len(block)
        last = bytes(block[-1:])
        on_bytes(len(block))
    if begin < at:
        n_lines += last != b"\n"
        cuts.add(index, begin, at, first)
    cuts.n_lines = first + n_lines - 1


def _end_of_shard(block: bytes, wanted: int, done: int) -> int:
    """Where in block the first line ends that reaches byte `wanted` of it; -1 = not in this block."""
    if wanted > len(block):
        return -1
    return block.find(b"\n", max(wanted - 1, done)) + 1 or -1


def _n_newlines(block: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))


def _check_plain(path: str, block: bytes) -> None:
    for magic, name in COMPRESSED.items():
        if block.startswith(magic):
            raise UsageError(f"{path}: is compressed ({name}), and cannot be cut at line ends; unpack it first")


def _blocks(file: InputFile) -> Iterator[bytes]:
    if not is_address(file.path):
        with closing(open_range(file.path, 0, file.size)) as stream:
            while block := stream.read(BLOCK):
                yield block
        return
    yield from _blocks_ahead(file)


def _blocks_ahead(file: InputFile) -> Iterator[bytes]:
    """A store is far away: several ranges at once, in their order."""
    from concurrent.futures import ThreadPoolExecutor

    def fetch(begin: int) -> bytes:
        with closing(open_range(file.path, begin, min(begin + AHEAD_BYTES, file.size))) as stream:
            return stream.read()

    begins = range(0, file.size, AHEAD_BYTES)
    with ThreadPoolExecutor(N_AHEAD) as pool:
        coming = [pool.submit(fetch, begin) for begin in begins[:N_AHEAD]]
        for number in range(len(begins)):
            data = coming.pop(0).result()
            if number + N_AHEAD < len(begins):
                coming.append(pool.submit(fetch, begins[number + N_AHEAD]))
            for at in range(0, len(data), BLOCK):
                yield data[at : at + BLOCK]
