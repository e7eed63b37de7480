"""All parts -> one file, in the order of the input."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.io import atomic_files
from fastgpt_c.sharding.commit import Done, base_name, index_of, read_done, read_failed
from fastgpt_c.sharding.folder import ASIDE, Folder
from fastgpt_c.sharding.places import Store, is_address, naming
from fastgpt_c.sharding.plan import Plan

BLOCK = 1 << 20
MOST_NAMED = 5  # shards in a message


@dataclass(frozen=True)
class Merged:
    """Of all parts: records, errors among them, tokens generated."""

    lines: int = 0
    errors: int = 0
    tokens: int = 0


def done_shards(folder: Folder, plan: Plan) -> bytearray:
    """A byte for each shard, 1 where it is done."""
    flags = bytearray(len(plan))
    for name in folder.names():
        index = index_of(name, ".done")
        if index is not None and index < len(flags):
            flags[index] = 1
    return flags


def merge(folder: Folder, plan: Plan, target: str) -> Merged:
    """Writes all records to a file, an object of a store, or a stream ("-" is standard output), and removes what killed
    processes left in the folder.

    Raises FastGPTError where shards are missing, and names them; where a part is not what its .done says; UsageError
    where target is an input or stands in the folder; PlaceError.
    """
    _check_target(folder, plan, target)
    _check_complete(folder, plan)
    with _opened(target) as out:
        merged, parts = Merged(), set()
        for index in range(len(plan)):
            done = _append(folder, index, out)
            merged = Merged(merged.lines + done.lines, merged.errors + done.errors, merged.tokens + done.tokens)
            if not folder.only_once:
                parts.add(done.part)
    with suppress(FastGPTError, OSError):
        _sweep(folder, parts)
    return merged


def _append(folder: Folder, index: int, out: BinaryIO) -> Done:
    done = read_done(folder, index)
    if done is None:
        raise FastGPTError(f"{folder.name}{base_name(index)}.done: was removed")
    digest = hashlib.sha256()
    with closing(folder.open(done.part)) as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            out.write(block)
    if digest.hexdigest() != done.sha256:
        raise FastGPTError(
            f"{folder.name}{done.part}: is not what its .done says: its SHA-256 is another; remove both, and run shard "
            f"{index} again"
        )
    return done


def _check_complete(folder: Folder, plan: Plan) -> None:
    flags = done_shards(folder, plan)
    missing = [index for index, flag in enumerate(flags) if not flag]
    if not missing:
        return
    failed = [(index, reason) for index in missing[:MOST_NAMED] if (reason := read_failed(folder, index)) is not None]
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    why = "".join(f"; shard {index} failed: {reason}" for index, reason in failed)
    raise FastGPTError(
        f"{folder.name}: {len(missing)} of {len(flags)} shards are missing: "
        f"{', '.join(map(str, missing[:MOST_NAMED]))}{more}{why}"
    )


@contextmanager
def _opened(target: str) -> Iterator[BinaryIO]:
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif is_address(target):
        store = Store(target)
        with naming(target), store.uploading(store.path) as out:
            yield out
    else:
        path = Path(target)
        with atomic_files.naming(path), atomic_files.atomically(path) as part, part.open("wb") as file:
            yield file


def _check_target(folder: Folder, plan: Plan, target: str) -> None:
    """Refuses an input, a model, and a file among the parts, where a second merge would find it."""
    if target == "-":
        return
    if not is_address(target):
        local = [Path(file.path) for file in plan.inputs if not is_address(file.path)]
        atomic_files.check_output(Path(target), *local)
        target = str(Path(target).absolute())
    place = folder.name if is_address(folder.name) else f"{Path(folder.name).absolute()}/"
    if target in [file.path for file in plan.inputs]:
        raise UsageError(f"{target}: is a file that is read, too; give the name of another one to write")
    if target.startswith(place) and "/" not in target[len(place) :]:
        raise UsageError(f"{target}: is in the folder of the parts; give the name of a file elsewhere")


def _sweep(folder: Folder, parts: set[str]) -> None:
    """Removes what is not finished, of shards that others have finished by now, and parts that no .done names."""
    names = list(folder.names())
    for name in names:
        is_other_part = not folder.only_once and name.endswith(".jsonl") and name not in parts
        is_failure = index_of(name, ".failed") is not None
        if name.startswith(ASIDE) or is_other_part or is_failure:
            folder.remove(name)
