"""Finds each custom_id that two shards have, in memory that does not grow with their number.

Lines are spread by a hash of their id over files of this machine, so that all lines of an id are in one of them; each
file is then sorted by itself.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastgpt_c.batching.file_runner import nonblank_lines_of, request_of
from fastgpt_c.batching.openai_format import LineError
from fastgpt_c.errors import UsageError
from fastgpt_c.sharding.cut import Cuts
from fastgpt_c.sharding.folder import Folder
from fastgpt_c.sharding.places import InputFile, naming, open_range

N_PARTITIONS = 256
MOST_REPEATS = 10**7  # 16 bytes each are in memory at once
N_HASH = 16  # bytes; that two ids of 10^8 share them has a probability of 10^-23

_ROW = np.dtype([("high", ">u8"), ("low", ">u8"), ("line", "<i8")])


def repeats_name(index: int) -> str:
    """Of the file that says which lines of a shard have the custom_id of which line of an earlier shard."""
    return f"repeats-{index:05d}.json"


def write_repeats(folder: Folder, inputs: Sequence[InputFile], cuts: Cuts) -> dict[int, int]:
    """Writes for each shard which of its lines repeat a custom_id of an earlier shard -> how many, by shard.

    Takes 24 bytes a line in the folder for temporary files.  Raises UsageError where more than MOST_REPEATS lines do.
    """
    with tempfile.TemporaryDirectory(prefix="fastgpt-c-ids-") as name, naming(name):
        _spread(Path(name), inputs, cuts)
        lines, firsts = _repeats(Path(name))
    starts = np.array(cuts.first, np.int64)
    shards = np.searchsorted(starts, lines, "right") - 1
    across = firsts < starts[shards] if len(lines) else np.zeros(0, bool)
    lines, firsts, shards = lines[across], firsts[across], shards[across]
    counts = {}
    for shard in np.unique(shards):
        chosen = shards == shard
        repeats = dict(zip(lines[chosen].tolist(), firsts[chosen].tolist(), strict=True))
        folder.replace(repeats_name(int(shard)), json.dumps(repeats).encode())
        counts[int(shard)] = len(repeats)
    return counts


def read_repeats(folder: Folder, index: int) -> dict[int, int]:
    """Number of a line -> that of an earlier one with the same custom_id."""
    data = folder.read(repeats_name(index))
    if data is None:
        raise UsageError(f"{folder.name}{repeats_name(index)}: is missing; make the plan again in another folder")
    return {int(line): first for line, first in json.loads(data).items()}


def _ids(inputs: Sequence[InputFile], cuts: Cuts) -> Iterator[tuple[int, str]]:
    """(line, custom_id) of all lines that have one."""
    for index, begin, end, first in zip(cuts.file, cuts.begin, cuts.end, cuts.first, strict=True):
        with closing(open_range(inputs[index].path, begin, end)) as stream:
            for number, data in nonblank_lines_of(stream, first):
                try:
                    custom_id: str | None = request_of(number, data).custom_id
                except LineError as error:
                    custom_id = error.custom_id
                if custom_id is not None:
                    yield number, custom_id


def _spread(folder: Path, inputs: Sequence[InputFile], cuts: Cuts) -> None:
    with ExitStack() as stack:
        files = [stack.enter_context((folder / f"{i}").open("wb", 1 << 14)) for i in range(N_PARTITIONS)]
        for number, custom_id in _ids(inputs, cuts):
            digest = blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=N_HASH).digest()
            files[digest[0] % N_PARTITIONS].write(digest + number.to_bytes(8, "little"))


def _repeats(folder: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lines whose id an earlier line has, and that line: the first of all that have it."""
    lines, firsts, n = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for i in range(N_PARTITIONS):
        rows = np.fromfile(folder / f"{i}", _ROW)
        rows = rows[np.lexsort((rows["line"], rows["low"], rows["high"]))]
        same = (rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
        if not same.any():
            continue
        leader = np.maximum.accumulate(np.where(np.concatenate(([True], ~same)), np.arange(len(rows)), 0))
        repeated = np.flatnonzero(same) + 1
        lines.append(rows["line"][repeated].astype(np.int64))
        firsts.append(rows["line"][leader[repeated]].astype(np.int64))
        n += len(repeated)
        if n > MOST_REPEATS:
            raise UsageError(f"more than {MOST_REPEATS:,} lines repeat a custom_id; give each line one of its own")
    return np.concatenate(lines), np.concatenate(firsts)
