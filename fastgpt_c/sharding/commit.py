"""How a shard's records come into the folder: whole, once, and with a .done that tells what they are.

    part-00017.jsonl        the records, in the order of the lines
    part-00017.done         {"part": its name, "lines", "errors", "tokens", "sha256", "seconds"}
    part-00017.failed       {"reason": ...}: it failed by itself, and not by its machine

In a folder of files a part is a new name of a finished file, and who comes second finds the name taken; a .done that a
killed process did not write is made from the part.  A store may let the second one win, so there the name of a part
tells its content, part-00017-4e1f...jsonl, and whichever .done counts names a part that is whole.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fastgpt_c.batching.file_runner import key_of_record
from fastgpt_c.errors import FastGPTError
from fastgpt_c.sharding.folder import Folder
from fastgpt_c.sharding.places import naming


@dataclass(frozen=True)
class Done:
    """part     name of the file
    lines    records in it, and as many lines of input that are not blank
    errors   of them
    tokens   generated
    sha256   of its bytes
    seconds  that the shard took
    """

    part: str
    lines: int
    errors: int
    tokens: int
    sha256: str
    seconds: float


def base_name(index: int) -> str:
    """Begins the names of all files of a shard."""
    return f"part-{index:05d}"


def index_of(name: str, suffix: str) -> int | None:
    """The shard whose file this is, None for other files."""
    digits = name.removeprefix("part-").removesuffix(suffix)
    return int(digits) if name == f"part-{digits}{suffix}" and digits.isascii() and digits.isdigit() else None


def read_done(folder: Folder, index: int) -> Done | None:
    """None for a shard that is not done."""
    data = folder.read(f"{base_name(index)}.done")
    if data is None:
        return None
    try:
        return Done(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise FastGPTError(f"{folder.name}{base_name(index)}.done: is damaged; remove it, and run the shard") from error


def read_failed(folder: Folder, index: int) -> str | None:
    """Why a shard failed, None if it did not."""
    data = folder.read(f"{base_name(index)}.failed")
    return None if data is None else str(json.loads(data)["reason"])


def write_failed(folder: Folder, index: int, reason: str) -> None:
    folder.replace(f"{base_name(index)}.failed", json.dumps({"reason": reason}).encode() + b"\n")


def commit(folder: Folder, index: int, records: Path, keys: Sequence[int | str], seconds: float) -> Done:
    """Makes the records (a file, in any order) a part, in the order of keys, unless another process has -> what is done
    in the end.  Raises PlaceError, and FastGPTError where a record is missing."""
    ordered = folder.scratch(f"{base_name(index)}.{secrets.token_hex(8)}.new")
    try:
        with naming(str(ordered)):
            part = _write_in_order(records, keys, ordered)
        name = f"{base_name(index)}.jsonl" if folder.only_once else f"{base_name(index)}-{part.sha256[:16]}.jsonl"
        if not folder.add(name, ordered) and folder.only_once:
            return adopt(folder, index, seconds)
    finally:
        ordered.unlink(missing_ok=True)
    return _say_done(folder, index, part.done(name, seconds))


def adopt(folder: Folder, index: int, seconds: float) -> Done:
    """What is done of a part that exists; writes its .done where that is missing."""
    if (done := read_done(folder, index)) is not None:
        return done
    name = f"{base_name(index)}.jsonl"
    counter = _Counter()
    with folder.open(name) as stream, naming(folder.name + name):
        for line in stream:
            counter.add(line)
    return _say_done(folder, index, counter.done(name, seconds))


def has_part(folder: Folder, index: int) -> bool:
    """Whether a part is there that may still lack its .done."""
    if not folder.only_once:
        return False
    try:
        folder.open(f"{base_name(index)}.jsonl").close()
    except FastGPTError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
    return True


def _say_done(folder: Folder, index: int, done: Done) -> Done:
    folder.add(f"{base_name(index)}.done", json.dumps(asdict(done)).encode() + b"\n")
    return read_done(folder, index) or done


class _Counter:
    """Counts the records that it is given, and their tokens."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._lines = self._errors = self._tokens = 0

    def add(self, record: bytes) -> None:
        self._hash.update(record)
        value: Any = json.loads(record)
        self._lines += 1
        self._errors += value["error"] is not None
        if value["response"] is not None:
            self._tokens += value["response"]["body"]["usage"]["completion_tokens"]

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def done(self, name: str, seconds: float) -> Done:
        return Done(name, self._lines, self._errors, self._tokens, self.sha256, round(seconds, 3))


def _write_in_order(records: Path, keys: Sequence[int | str], target: Path) -> _Counter:
    counter = _Counter()
    with records.open("rb") as source, target.open("xb") as out:
        places = dict(_places(source))
        for key in keys:
            if key not in places:
                raise FastGPTError(f"{records}: has no record of {key!r}, which was written; run the shard again")
            begin, n_bytes = places[key]
            source.seek(begin)
            record = source.read(n_bytes)
            counter.add(record)
            out.write(record)
    return counter


def _places(source: BinaryIO) -> Iterator[tuple[int | str, tuple[int, int]]]:
    """What each record is known by, its first byte and its length."""
    at = 0
    for line in source:
        key = key_of_record(json.loads(line))
        if key is not None:
            yield key, (at, len(line))
        at += len(line)
