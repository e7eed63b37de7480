"""Where input and output are: folders and files of this machine, or of a store (s3://, gs://) through pyarrow.fs.

Credentials are the environment's, as pyarrow finds them; an address that contains some is refused, since addresses
stand in plans and messages.
"""

from __future__ import annotations

import io
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from fastgpt_c.errors import FastGPTError, UsageError, missing_extra

SCHEMES = ("s3", "gs")
N_TRIES = 6  # of a call to a store, beside those of its own client
FIRST_PAUSE = 0.1  # seconds; doubles with each try
BUFFER = 1 << 20
STORE_BUFFER = 8 << 20  # a request has a latency

# What no second try changes.
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
FINAL_WORDS = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_BUCKET", "NO_SUCH_KEY")

Result = TypeVar("Result")


class PlaceError(FastGPTError):
    """A file or a store cannot be read or written now: the fault of a machine or a network, not of the work."""


@dataclass(frozen=True)
class InputFile:
    """A file of requests.

    path   absolute, or an address of a store
    size   bytes
    etag   changes when the content does: the store's, or of a local file the time of its last change
    """

    path: str
    size: int
    etag: str


def is_address(text: str) -> bool:
    """Whether text names something in a store."""
    return "://" in text


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Turns an OSError in the block into a PlaceError that begins with the name."""
    try:
        yield
    except OSError as error:
        words = " ".join((error.strerror or str(error) or type(error).__name__).split())
        raise PlaceError(f"{name}: {words}") from error


class Store:
    """The file system behind an address, and the path in it.  Each call is tried again while the store is ill."""

    def __init__(self, address: str) -> None:
        """Raises UsageError for an address that is none or has credentials in it, MissingExtraError, PlaceError."""
        parts = urlsplit(address)
        self.address = address
        if parts.scheme not in SCHEMES:
            raise UsageError(f"{parts.scheme}://...: places are files, s3://BUCKET/PATH and gs://BUCKET/PATH")
        has_secret = parts.password is not None or "secret" in parts.query.lower() or "key=" in parts.query.lower()
        if has_secret or (parts.username is not None and parts.username != "anonymous"):
            raise UsageError(
                f"{parts.scheme}://{parts.hostname}...: leave credentials out of the address, which stands in plans "
                "and messages; give them in the environment"
            )
        self._scheme, self._query = parts.scheme, parts.query
        self.files, self.path = self.retried(lambda: _file_system(address))

    def retried(self, call: Callable[[], Result]) -> Result:
        """What call returns; raises PlaceError with the store's words."""
        with naming(self.address):
            for attempt in range(N_TRIES):
                try:
                    return call()
                except FINAL:
                    raise
                except OSError as error:
                    if attempt == N_TRIES - 1 or any(word in str(error) for word in FINAL_WORDS):
                        raise
                    time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1))
        raise AssertionError("unreachable")

    def address_of(self, path: str) -> str:
        """The address of a path of the same file system."""
        return f"{self._scheme}://{path}{f'?{self._query}' if self._query else ''}"

    def info(self, path: str) -> Any:
        return self.retried(lambda: self.files.get_file_info(path))

    def list(self, folder: str, recursive: bool = False) -> list[Any]:
        """The files in a folder, which may be absent."""
        from pyarrow import fs

        selector = fs.FileSelector(folder, allow_not_found=True, recursive=recursive)
        return [info for info in self.retried(lambda: self.files.get_file_info(selector)) if info.is_file]

    def write(self, path: str, source: Path | bytes) -> None:
        """The object appears whole, when its upload ends."""

        def upload() -> None:
            content = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
            with content as stream, self.uploading(path) as out:
                while block := stream.read(STORE_BUFFER):
                    out.write(block)

        self.retried(upload)

    @contextmanager
    def uploading(self, path: str) -> Iterator[BinaryIO]:
        """What the block writes becomes the object.  pyarrow cannot abandon an upload, so if the block fails, the
        object appears and is removed."""
        out = self.files.open_output_stream(path)
        try:
            yield out
        except BaseException:
            with suppress(Exception):
                out.close()
                self.files.delete_file(path)
            raise
        out.close()


def _file_system(address: str) -> tuple[Any, str]:
    try:
        from pyarrow import fs
    except ImportError as error:
        raise missing_extra("remote", f"{urlsplit(address).scheme}://") from error
    if address.startswith("s3:"):  # what is small is one request, where it would be three
        address += f"{'&' if '?' in address else '?'}allow_delayed_open=true"
    try:
        files, path = fs.FileSystem.from_uri(address)
    except ValueError as error:  # pyarrow.ArrowInvalid: an unknown option of the address
        raise UsageError(f"{address}: {error}") from error
    return files, path


# ---- Input -----------------------------------------------------------------------------------------------


def find_inputs(name: str) -> list[InputFile]:
    """The files that a file, a folder (its *.jsonl) or a pattern means, in the order of their names.  Raises UsageError
    where there are none, PlaceError."""
    paths = _paths_in_store(Store(name)) if is_address(name) else _local_paths(name)
    if not paths:
        raise UsageError(f"{name}: there are no files of requests; a folder needs some that end in .jsonl")
    return [input_file(path) for path in sorted(paths)]


def _local_paths(name: str) -> list[str]:
    path = Path(name)
    if path.is_dir():
        return [str(one.absolute()) for one in path.glob("*.jsonl") if one.is_file()]
    if path.exists() or not _is_pattern(name):
        return [str(path.absolute())]
    root, pattern = (Path(path.anchor), str(path.relative_to(path.anchor))) if path.anchor else (Path(), name)
    return [str(one.absolute()) for one in root.glob(pattern) if one.is_file()]


def _paths_in_store(store: Store) -> list[str]:
    path = store.path
    if _is_pattern(path):
        fixed = path[: min(path.find(char) for char in "*?[" if char in path)].rpartition("/")[0]
        n_parts = path.count("/")
        found = store.list(fixed, recursive="/" in path[len(fixed) + 1 :])
        matching = [one.path for one in found if PurePosixPath(one.path).match(path) and one.path.count("/") == n_parts]
        return [store.address_of(one) for one in matching]
    if store.info(path).is_file:
        return [store.address]
    return [store.address_of(one.path) for one in store.list(path) if one.path.endswith(".jsonl")]


def _is_pattern(name: str) -> bool:
    return any(char in name for char in "*?[")


def input_file(path: str) -> InputFile:
    """The file as it is now."""
    if not is_address(path):
        with naming(path):
            found = Path(path).stat()
            if not Path(path).is_file():
                raise UsageError(f"{path}: is not a file, which can be read again")
            return InputFile(path, found.st_size, f"{found.st_mtime_ns:x}")
    store = Store(path)

    def look() -> InputFile:
        with store.files.open_input_file(store.path) as file:
            metadata = {key.lower(): value for key, value in (file.metadata() or {}).items()}
            etag = metadata.get("etag") or metadata.get("last-modified") or b""
            return InputFile(path, file.size(), etag.decode().strip('"') if isinstance(etag, bytes) else str(etag))

    return store.retried(look)


def open_range(path: str, begin: int, end: int) -> BinaryIO:
    """The bytes of a file from begin to end, as a stream."""
    if is_address(path):
        return io.BufferedReader(_StoreRange(Store(path), begin, end), STORE_BUFFER)
    with naming(path):
        return io.BufferedReader(_LocalRange(path, begin, end), BUFFER)


class _Range(io.RawIOBase):
    """Reads up to an end; a file that is shorter by now is an error, since a plan says how long it was."""

    def __init__(self, path: str, begin: int, end: int) -> None:
        self._path, self._at, self._end = path, begin, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._end - self._at]
        if not view:
            return 0
        n = self._fill(view)
        if n == 0:
            raise changed(self._path)
        self._at += n
        return n

    def _fill(self, view: memoryview) -> int:
        raise NotImplementedError


class _LocalRange(_Range):
    def __init__(self, path: str, begin: int, end: int) -> None:
        super().__init__(path, begin, end)
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _fill(self, view: memoryview) -> int:
        with naming(self._path):
            return os.preadv(self._file, [view], self._at)

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()


class _StoreRange(_Range):
    def __init__(self, store: Store, begin: int, end: int) -> None:
        super().__init__(store.address, begin, end)
        self._store = store
        self._file = store.retried(lambda: store.files.open_input_file(store.path))

    def _fill(self, view: memoryview) -> int:
        data = self._store.retried(lambda: self._file.read_at(len(view), self._at))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def changed(path: str) -> FastGPTError:
    """The error for an input that is not what it was when the plan was made."""
    return FastGPTError(f"{path}: has changed since the plan was made; make a new plan in another folder")
