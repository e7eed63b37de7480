"""Files that are either whole or not there."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastgpt_c.errors import FastGPTError

# A temporary file of that age is locked, or its process was killed.
NEW_SECONDS = 60


@contextmanager
def atomically(target: Path) -> Iterator[Path]:
    """A temporary sibling of target, which takes its place after the block and vanishes if that fails.

    If the process is killed, the sibling stays until the next call in that folder.  It is locked as long as it lives.
    """
    _remove_what_was_left(target.parent)
    part = target.parent / f".fastgpt-c-{secrets.token_hex(8)}.part"
    try:
        with part.open("xb") as lock:
            with suppress(OSError):  # a file system without locks, where nothing is taken away, either
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield part
            _flush_to_disk(part, os.O_RDWR)
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _flush_to_disk(target.parent, os.O_RDONLY)


def write_text(target: Path, text: str) -> None:
    """text in UTF-8, in place of whatever file target was.  Raises FastGPTError where it cannot be written, or where
    target is a folder or a device."""
    try:
        if target.exists() and not target.is_file():
            raise FastGPTError(f"{target}: is a folder or a device; give the name of the file to write")
        with atomically(target) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FastGPTError(f"{target}: cannot be written: {error.strerror or error}") from error


def _remove_what_was_left(folder: Path) -> None:
    """Temporary files of processes that were killed: nobody holds the lock.  A new one may not be locked yet."""
    for part in folder.glob(".fastgpt-c-*.part"):
        with suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - part.stat().st_mtime > NEW_SECONDS:
                part.unlink()


def _flush_to_disk(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
