"""The folder of a job: a plan, parts and what is said of them.  Files in it appear whole, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from fastgpt_c.errors import UsageError
from fastgpt_c.io.atomic_files import flush_folder
from fastgpt_c.sharding.places import Store, input_file, is_address, naming, open_range

ASIDE = ".fastgpt-c-"  # begins the names of files that are not finished

# File systems without hard links say one of these.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class Folder(Protocol):
    """name        as it was given, with a slash at its end
    only_once   whether add fails for a name that exists, however many add it at once
    """

    name: str
    only_once: bool

    def names(self) -> Iterator[str]:
        """Of all files."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""

    def open(self, name: str) -> BinaryIO:
        """The content of a file, as a stream."""

    def add(self, name: str, content: Path | bytes) -> bool:
        """A new file with content, which is moved if it is a path of scratch; False where the name exists.  Without
        only_once, nobody asks whether it does where the content is a path."""

    def replace(self, name: str, content: bytes) -> None:
        """A file with content, in the place of another one."""

    def remove(self, name: str) -> None:
        """Removes a file, where there is one."""

    def scratch(self, name: str) -> Path:
        """A local path for what becomes a file of that name; two processes never have the same one at once, except
        that a process may find what another one, that died on this machine, wrote there."""


def open_folder(name: str, *, make: bool = False) -> Folder:
    """The folder OUT.  Raises UsageError where there is none and make is False, PlaceError."""
    return StoreFolder(name) if is_address(name) else LocalFolder(name, make)


class LocalFolder:
    """A folder of this machine, or one that several machines have mounted."""

    only_once = True

    def __init__(self, name: str, make: bool) -> None:
        self._path = Path(name).absolute()
        self.name = f"{str(name).rstrip('/')}/"
        with naming(self.name):
            if make:
                self._path.mkdir(parents=True, exist_ok=True)
        if not self._path.is_dir():
            raise UsageError(f"{self.name}: there is no such folder; fastgpt-c batch IN {self.name} makes a plan in it")

    def names(self) -> Iterator[str]:
        with naming(self.name), os.scandir(self._path) as entries:
            for entry in entries:
                yield entry.name

    def read(self, name: str) -> bytes | None:
        try:
            with naming(self.name + name):
                return (self._path / name).read_bytes()
        except Exception as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def open(self, name: str) -> BinaryIO:
        with naming(self.name + name):
            return (self._path / name).open("rb")

    def add(self, name: str, content: Path | bytes) -> bool:
        with naming(self.name + name):
            aside = self._written_aside(content) if isinstance(content, bytes) else content
            try:
                _flush(aside)
                is_new = _link(aside, self._path / name)
            finally:
                aside.unlink(missing_ok=True)
            flush_folder(self._path)
        return is_new

    def replace(self, name: str, content: bytes) -> None:
        with naming(self.name + name):
            aside = self._written_aside(content)
            try:
                _flush(aside)
                aside.replace(self._path / name)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
            flush_folder(self._path)

    def remove(self, name: str) -> None:
        with naming(self.name + name):
            (self._path / name).unlink(missing_ok=True)

    def scratch(self, name: str) -> Path:
        return self._path / f"{ASIDE}{name}"

    def _written_aside(self, content: bytes) -> Path:
        aside = self._path / f"{ASIDE}{secrets.token_hex(8)}.new"
        try:
            aside.write_bytes(content)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        return aside


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(aside: Path, target: Path) -> bool:
    """Gives a file a second name; False where that name exists.  Without hard links it is renamed, and of two that do
    so at once the later one counts."""
    try:
        os.link(aside, target, follow_symlinks=False)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    if target.exists():
        return False
    aside.rename(target)
    return True


class StoreFolder:
    """A prefix in a store.  pyarrow cannot make an upload depend on whether the name exists, so of two the later one
    counts; who needs more gives files names that their content determines."""

    only_once = False

    def __init__(self, name: str) -> None:
        self._store = Store(name)
        self._path = self._store.path.rstrip("/")
        self.name = self._store.address_of(self._path + "/")
        self._store.info(self._path)  # asks, before any work, whether we may
        self._scratch: Path | None = None

    def _address(self, name: str) -> str:
        return self._store.address_of(f"{self._path}/{name}")

    def names(self) -> Iterator[str]:
        return (info.base_name for info in self._store.list(self._path))

    def read(self, name: str) -> bytes | None:
        if not self._store.info(f"{self._path}/{name}").is_file:
            return None
        with self.open(name) as stream:
            return stream.read()

    def open(self, name: str) -> BinaryIO:
        address = self._address(name)
        return open_range(address, 0, input_file(address).size)

    def add(self, name: str, content: Path | bytes) -> bool:
        if isinstance(content, Path):  # what is there under a name of its content may be an upload that was interrupted
            self._store.write(f"{self._path}/{name}", content)
            content.unlink(missing_ok=True)
            return True
        if self._store.info(f"{self._path}/{name}").is_file:
            return False
        self.replace(name, content)
        return True

    def replace(self, name: str, content: bytes) -> None:
        self._store.write(f"{self._path}/{name}", content)

    def remove(self, name: str) -> None:
        path = f"{self._path}/{name}"
        if self._store.info(path).is_file:
            self._store.retried(lambda: self._store.files.delete_file(path))

    def scratch(self, name: str) -> Path:
        if self._scratch is None:
            import atexit
            import tempfile

            self._scratch = Path(tempfile.mkdtemp(prefix="fastgpt-c-"))
            atexit.register(shutil.rmtree, self._scratch, ignore_errors=True)
        return self._scratch / name
