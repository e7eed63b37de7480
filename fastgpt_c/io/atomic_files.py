"""Atomic writes: a file is complete or absent.  And the rules for where files may be written.

A link is followed, and the file at its end replaced.  Pipes, character devices and /dev/stdout are written through,
once the content is complete.  Folders, sockets and block devices are refused, and so is a file that the same command
reads.  csrc/os_posix.c keeps the same rules for saved sessions.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.io.c_strings import c_path

# An older temporary file is locked, or its process was killed.
NEW_SECONDS = 60

MAX_LINKS = 40

# Names of the open files of a process: the targets of links such as /dev/stdout.
OPEN_FILE = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,8})")

REFUSED = ((stat.S_ISDIR, "folder"), (stat.S_ISSOCK, "socket"), (stat.S_ISBLK, "block device"))


def check_output(target: Path, *inputs: Path | int, may_replace_model: bool = False) -> None:
    """Checks before any work that target may be written.

    inputs  what the same command reads: paths, or descriptors of open files

    Raises UsageError where target is one of inputs, by any name or link, or a model file; FastGPTError where no file
    can be written there.
    """
    c_path(target)
    with naming(target):
        _check_place(target)
    if any(same_file(target, source) for source in inputs):
        raise UsageError(f"{target}: is a file that is read, too; give the name of another one to write")
    if is_model(target) and not may_replace_model:
        raise UsageError(f"{target}: is a model file; give the name of another file to write")


def _check_place(target: Path) -> None:
    end = _end_of_links(target)
    mode = _mode(end)
    for is_kind, kind in REFUSED:
        if is_kind(mode) and not _open_file(end):
            raise FastGPTError(f"{target}: is a {kind}; give the name of the file to write")
    if not mode and not end.parent.is_dir():
        raise FastGPTError(f"{target}: there is no folder {end.parent}")


def same_file(a: Path | int, b: Path | int) -> bool:
    """Whether both are the same regular file, by any name or link; or would be, where none exists yet."""
    try:
        found = _stat(a)
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, _stat(b))
    except OSError:
        return isinstance(a, Path) and isinstance(b, Path) and os.path.realpath(a) == os.path.realpath(b)


def _stat(file: Path | int) -> os.stat_result:
    return os.fstat(file) if isinstance(file, int) else file.stat()


def is_model(path: Path) -> bool:
    """Whether it is a GGUF file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def is_stream(target: Path) -> bool:
    """Whether target is written through: a pipe, a character device, or an open file such as /dev/stdout."""
    end = _end_of_links(target)
    return bool(_open_file(end)) or stat.S_ISFIFO(_mode(end)) or stat.S_ISCHR(_mode(end))


@contextmanager
def atomically(target: Path) -> Iterator[Path]:
    """A temporary file beside target, which replaces it after the block, and is removed if the block fails.  For a
    stream it is in the system's temporary folder, and is copied to the stream.

    If the process is killed, the file remains until the next call in that folder.  It is locked while it is in use.
    """
    end, to_stream = _end_of_links(target), is_stream(target)
    folder = Path(tempfile.gettempdir()) if to_stream else end.parent
    _sweep(folder)
    part = folder / f".fastgpt-c-{secrets.token_hex(8)}.part"
    try:
        with part.open("xb") as lock:
            with suppress(OSError):  # a file system without locks, on which _sweep removes nothing, either
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if to_stream:
                part.chmod(0o600)
            yield part
            if to_stream:
                _copy(part, end)
                part.unlink()
            else:
                _flush_to_disk(part)
                part.replace(end)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if not to_stream:
        flush_folder(end.parent)


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Turns an OSError in the block into a FastGPTError with the name of target."""
    try:
        yield
    except OSError as error:
        raise FastGPTError(f"{target}: cannot be written: {error.strerror or error}") from error


def write_text(target: Path, text: str) -> None:
    """Replaces target by text in UTF-8.  Raises what check_output raises, and FastGPTError where it cannot be
    written."""
    check_output(target)
    with naming(target), atomically(target) as part:
        part.write_text(text, encoding="utf-8")


def remove_what_was_left(target: Path) -> None:
    """Removes temporary files of killed processes beside target, where possible."""
    with suppress(OSError, FastGPTError):
        _sweep(_end_of_links(target).parent)


def flush_folder(folder: Path) -> None:
    """Makes new and renamed files in folder durable; where a folder cannot be synced, that is left to the system."""
    with suppress(OSError):
        _flush_to_disk(folder)


def _sweep(folder: Path) -> None:
    """Removes temporary files of killed processes: no one holds their lock.  New ones may not be locked yet."""
    with suppress(OSError):
        for part in list(folder.glob(".fastgpt-c-*.part")):
            with suppress(OSError):
                _remove_if_left(part)


def _remove_if_left(part: Path) -> None:
    file = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if time.time() - os.fstat(file).st_mtime > NEW_SECONDS:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
    finally:
        os.close(file)


def _end_of_links(target: Path) -> Path:
    """The end of a chain of links, which need not exist; a link to an open file is an end."""
    end = target
    for _ in range(MAX_LINKS):
        if _open_file(end) or not end.is_symlink():
            return end
        end = end.parent / end.readlink()
    raise FastGPTError(f"{target}: cannot be written: {os.strerror(errno.ELOOP)}")


def _open_file(end: Path) -> re.Match[str] | None:
    return OPEN_FILE.fullmatch(str(end))


def _mode(end: Path) -> int:
    """st_mode of a file; 0 = absent, or not accessible."""
    try:
        return end.stat().st_mode
    except OSError:
        return 0


def _copy(part: Path, stream: Path) -> None:
    opened = _open_file(stream)
    out = os.dup(int(opened[1])) if opened else os.open(stream, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    with part.open("rb") as source, os.fdopen(out, "wb") as sink:
        shutil.copyfileobj(source, sink)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
