"""A file of requests -> a file of records; continues where an earlier run was cut off."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fastgpt_c.batching.openai_format import (
    RECORD_BEGIN,
    Line,
    LineError,
    completion_record,
    error_record,
    parse,
    seed_of,
)
from fastgpt_c.batching.requests import Batch, Request
from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.generation.completion import Completion
from fastgpt_c.io.atomic_files import flush_folder
from fastgpt_c.io.lines import numbered_lines

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

MOST_BYTES_A_LINE = 1 << 26
SECONDS_BETWEEN_SYNCS = 1.0
STDIN = 0


NumberedLine = tuple[int, bytes]


def nonblank_lines(path: Path) -> Iterator[NumberedLine]:
    """Those of a file; the path "-" is standard input."""
    is_stdin = str(path) == "-"
    with open(STDIN if is_stdin else path, "rb", closefd=not is_stdin) as file:
        yield from nonblank_lines_of(file)


def nonblank_lines_of(stream: BinaryIO, first: int = 1) -> Iterator[NumberedLine]:
    """(number, counted from first, line) of the lines that are not blank; of a longer one, its first
    MOST_BYTES_A_LINE + 1 bytes."""
    for number, line in numbered_lines(stream, MOST_BYTES_A_LINE):
        if line.strip():
            yield first + number - 1, line


def request_of(number: int, data: bytes) -> Line:
    """The request in a line.  Raises LineError; its custom_id is the line's, where that can be told."""
    if len(data) > MOST_BYTES_A_LINE:
        raise LineError(f"longer than {MOST_BYTES_A_LINE} bytes")
    return parse(data, number)


def key_of(number: int, custom_id: str | None) -> int | str:
    """What a line's record is known by: its custom_id, or its number where that is not its own."""
    return number if custom_id is None else custom_id


def key_of_record(record: Any) -> int | str | None:
    """The same of a record; None for what is no record."""
    if not isinstance(record, dict) or not {"custom_id", "error"} <= record.keys():
        return None
    custom_id, error = record["custom_id"], record["error"]
    if isinstance(custom_id, str):
        return custom_id
    line = error.get("line") if isinstance(error, dict) else None
    return line if isinstance(line, int) else None


class Records:
    """The file of records: only ever appended to, by one process at a time.

    n_errors, n_done   records in it
    """

    def __init__(self, path: Path) -> None:
        """Opens or makes it, and cuts off a last line that was not written to its end, or of which a loss of power left
        zeros.  Raises UsageError for a file that holds anything else, and does not touch it."""
        self._path = path
        self._keys: set[int | str] = set()
        self.n_done = self.n_errors = 0
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: is not a file")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            self._lock()
            self._recover()
        except BaseException:
            os.close(self._file)
            raise
        self._synced = time.monotonic()

    def has(self, number: int, custom_id: str | None) -> bool:
        """Whether there is a record of a line."""
        return key_of(number, custom_id) in self._keys

    def append(self, record: bytes) -> None:
        """Writes a record; it survives a loss of power after about a second, and after close.  Raises FastGPTError
        where it cannot be written; the next run continues after what is in the file by then."""
        with self._named():
            rest = memoryview(record)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if time.monotonic() - self._synced > SECONDS_BETWEEN_SYNCS:
                self._sync()
        self._note(json.loads(record))

    def close(self) -> None:
        try:
            with self._named():
                self._sync()
        finally:
            os.close(self._file)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FastGPTError(
                f"{self._path}: cannot be written: {error.strerror}; the same command goes on from there"
            ) from error

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{self._path}: another process is writing it") from None

    def _recover(self) -> None:
        n_whole = 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            for number, line in enumerate(file, 1):
                if not (self._note(_loads(line)) if line.endswith(b"\n") else _may_be_cut(line, n_whole)):
                    raise UsageError(f"{self._path}: line {number} is not a record of a batch; name another file")
                n_whole += len(line) if line.endswith(b"\n") else 0
        os.ftruncate(self._file, n_whole)
        self._sync()
        flush_folder(self._path.resolve().parent)

    def count(self) -> int:
        """Records in the file, read anew: an interrupt may have come between the writing of one and its note."""
        return sum(1 for _ in nonblank_lines(self._path))

    def _note(self, record: Any) -> bool:
        """Remembers which line a record belongs to; False for anything but a record."""
        key = key_of_record(record)
        if key is None:
            return False
        self._keys.add(key)
        self.n_done += 1
        self.n_errors += record["error"] is not None
        return True

    def _sync(self) -> None:
        os.fsync(self._file)
        self._synced = time.monotonic()


def _may_be_cut(line: bytes, n_before: int) -> bool:
    """Whether an unfinished line is the beginning of a record.  After n_before bytes of records it may be zeros: a file
    system may keep the length of a file through a loss of power, and not what was written last."""
    begin = line.rstrip(b"\0") if n_before else line
    return begin.startswith(RECORD_BEGIN) or RECORD_BEGIN.startswith(begin)


def _loads(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


class PendingLine:
    """A line, and the results of its choices so far."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._results: list[Completion | FastGPTError | None] = [None] * line.n

    def set_result(self, choice: int, result: Completion | FastGPTError) -> bool:
        """Notes how a choice ended; whether all choices have ended now."""
        self._results[choice] = result
        return None not in self._results

    def completions(self) -> list[Completion]:
        """Of all choices; raises the error of the first that has one."""
        for result in self._results:
            if isinstance(result, FastGPTError):
                raise result
        return [result for result in self._results if isinstance(result, Completion)]


class BatchFile:
    """Runs those of numbered lines that have no record yet.

    seed         of lines without one; see openai_format.seed_of
    created      time that records bear, in seconds since 1970; None = when each is made
    repeats      number of a line -> that of an earlier one, which is not among these lines and has the same custom_id
    on_line      called for each line as it is read, with what its record is known by: see key_of
    on_progress  called after each record with the number of new tokens behind it
    """

    def __init__(
        self,
        model: LoadedModel,
        batch: Batch,
        records: Records,
        *,
        seed: int,
        created: int | None = None,
        repeats: Mapping[int, int] | None = None,
        on_line: Callable[[int | str], None] | None = None,
        on_progress: Callable[[int], None],
    ) -> None:
        self._model, self._batch, self._records = model, batch, records
        self._seed, self._created, self._repeats = seed, created, repeats or {}
        self._on_line, self._on_progress = on_line, on_progress
        self._seen: dict[str, int] = {}  # custom_id -> line

    def run(self, lines: Iterable[NumberedLine]) -> None:
        """Returns when each of the lines has a record: of a response, or of an error."""
        for state in self._batch.run(self._requests(lines)):
            if state.tag.set_result(state.sample, state.result()):
                self._write_record(state.tag)

    def _requests(self, lines: Iterable[NumberedLine]) -> Iterator[tuple[PendingLine, Request]]:
        """(pending line, request) of lines without a record; writes the records of bad lines on the way."""
        for number, data in lines:
            try:
                line = self._line(number, data)
            except LineError as error:
                self._note_line(number, error.custom_id)
                self._write_error(number, error)
                continue
            self._note_line(number, line.custom_id)
            if self._records.has(number, line.custom_id):
                continue
            changes = line.changes | {"seed": seed_of(line, self._seed)}
            yield PendingLine(line), Request(line.prompt, n=line.n, **changes)

    def _note_line(self, number: int, custom_id: str | None) -> None:
        if self._on_line is not None:
            self._on_line(key_of(number, custom_id))

    def _line(self, number: int, data: bytes) -> Line:
        try:
            line = request_of(number, data)
        except LineError as error:
            error.custom_id = self._first_of(error.custom_id, number)
            raise
        if self._first_of(line.custom_id, number) is None:
            raise LineError(f"line {self._seen[line.custom_id]} has the same custom_id", "custom_id")
        return line

    def _first_of(self, custom_id: str | None, number: int) -> str | None:
        """custom_id where the line is the first that has it, else None."""
        if custom_id is None:
            return None
        return custom_id if self._seen.setdefault(custom_id, self._repeats.get(number, number)) == number else None

    def _write_record(self, pending: PendingLine) -> None:
        line = pending.line
        try:
            completions = pending.completions()
        except FastGPTError as error:
            self._write_error(line.number, LineError(str(error), custom_id=line.custom_id))
            return
        self._records.append(completion_record(line, self._model, completions, self._created))
        self._on_progress(sum(len(completion.tokens) for completion in completions))

    def _write_error(self, number: int, error: LineError) -> None:
        if not self._records.has(number, error.custom_id):
            self._records.append(error_record(number, error.custom_id, str(error), error.param))
            self._on_progress(0)
