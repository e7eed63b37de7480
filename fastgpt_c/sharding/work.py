"""Runs shards: the one function behind --shard, Slurm's arrays, Kubernetes' Indexed Jobs and Ray's tasks."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgpt_c.batching.file_runner import BatchFile, Records, nonblank_lines_of
from fastgpt_c.batching.requests import Batch
from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.generation.options import Options
from fastgpt_c.model import Model
from fastgpt_c.sharding.commit import (
    Done,
    adopt,
    base_name,
    commit,
    has_part,
    read_done,
    read_failed,
    write_failed,
)
from fastgpt_c.sharding.folder import Folder
from fastgpt_c.sharding.ids import read_repeats
from fastgpt_c.sharding.places import PlaceError, changed, input_file, open_range
from fastgpt_c.sharding.plan import Plan, Shard

N_TRIES = 3  # of a shard that fails by itself


@dataclass(frozen=True)
class Settings:
    """What a machine may choose for itself.

    model      where it is here; None = where the plan says
    n_threads  None = all usable cores
    max_batch, max_tokens_in_flight
               see Model.stream_batch
    """

    model: str | None = None
    n_threads: int | None = None
    use_mmap: bool = True
    max_batch: int = 32
    max_tokens_in_flight: int | None = None


@dataclass(frozen=True)
class Outcome:
    """done    None for a shard that failed
    reason  why it failed
    is_new  whether it was run now
    """

    index: int
    done: Done | None
    reason: str = ""
    is_new: bool = False


class Worker:
    """Runs shards of a plan, one at a time, with one model in memory.  Close it, or use it in a "with" statement."""

    def __init__(self, folder: Folder, plan: Plan, settings: Settings, *, progress: bool = False) -> None:
        """Raises FastGPTError where the model is not the one of the plan; UsageError, PlaceError."""
        self._folder, self._plan = folder, plan
        path = plan.model.local(settings.model, progress=progress)
        self._model = Model(path, use_mmap=settings.use_mmap, n_threads=settings.n_threads)
        options = options_of(plan.options)
        self._seed = plan.options["seed"]
        self._batch = Batch(
            self._model, options, max_batch=settings.max_batch, max_tokens_in_flight=settings.max_tokens_in_flight
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._model.close()

    def run(self, index: int, on_progress: Callable[[int], None] = lambda _: None) -> Outcome:
        """Runs a shard that is not done.

        on_progress is called after each record with the number of new tokens behind it.  A shard that fails by itself
        N_TRIES times gets a .failed.  Raises UsageError for an index out of range; what is the fault of this machine or
        of a place: PlaceError, MemoryError, OSError.
        """
        shard = self._plan.shard(index)
        if (done := read_done(self._folder, index)) is not None:
            return Outcome(index, done)
        for attempt in range(N_TRIES):
            try:
                done = self._run(shard, on_progress)
            except Exception as error:
                if (done := read_done(self._folder, index)) is not None:  # another process did it, and cleaned up
                    return Outcome(index, done)
                if is_of_machine(error):
                    raise
                if attempt == N_TRIES - 1:
                    reason = str(error) if isinstance(error, FastGPTError) else f"{type(error).__name__}: {error}"
                    write_failed(self._folder, index, reason)
                    return Outcome(index, None, reason, is_new=True)
            else:
                break
        if read_failed(self._folder, index) is not None:
            self._folder.remove(f"{base_name(index)}.failed")
        return Outcome(index, done, is_new=True)

    def _run(self, shard: Shard, on_progress: Callable[[int], None]) -> Done:
        begin = time.monotonic()
        if has_part(self._folder, shard.index):  # whose process was killed before it could say so
            return adopt(self._folder, shard.index, 0.0)
        _check_unchanged(shard)
        records, path = _records(self._folder, shard)
        with records:
            keys = self._write_records(shard, records, on_progress)
        _check_unchanged(shard)
        done = commit(self._folder, shard.index, path, keys, time.monotonic() - begin)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return done

    def _write_records(self, shard: Shard, records: Records, on_progress: Callable[[int], None]) -> list[int | str]:
        """What the records of the lines are known by, in the order of the lines."""
        keys: list[int | str] = []
        repeats = read_repeats(self._folder, shard.index) if self._plan.n_repeats.get(shard.index) else {}
        runner = BatchFile(
            self._model,
            self._batch,
            records,
            seed=self._seed,
            created=self._plan.created,
            repeats=repeats,
            on_line=keys.append,
            on_progress=on_progress,
        )
        with closing(open_range(shard.file.path, shard.begin, shard.end)) as stream:
            runner.run(nonblank_lines_of(stream, shard.first))
        return keys


def options_of(saved: Any) -> Options:
    """The options of a plan; --seed is not among them, since each line makes its own of it."""
    fields = {name: value for name, value in saved.items() if name != "seed"}
    bias = {int(token): float(value) for token, value in saved["logit_bias"]}
    return Options(**fields | {"stop": tuple(saved["stop"]), "logit_bias": bias})


def is_of_machine(error: BaseException) -> bool:
    """Whether another machine, or this one at another time, may succeed."""
    return isinstance(error, PlaceError | MemoryError | OSError) or isinstance(error.__cause__, OSError)


def _check_unchanged(shard: Shard) -> None:
    try:
        now = input_file(shard.file.path)
    except PlaceError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise changed(shard.file.path) from None
        raise
    if now != shard.file:
        raise changed(shard.file.path)


def _records(folder: Folder, shard: Shard) -> tuple[Records, Path]:
    """Where the records are collected: what a killed process of this machine left is gone on with, unless another
    process has it."""
    machine = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
    usual = folder.scratch(f"{base_name(shard.index)}.{machine}.work")
    try:
        return Records(usual), usual
    except (UsageError, OSError):  # locked, not a file of records, or on a file system without locks
        own = usual.with_name(f"{usual.name}.{os.getpid()}.{secrets.token_hex(4)}")
        return _private_records(own), own


def _private_records(path: Path) -> Records:
    try:
        return Records(path)
    except OSError as error:
        raise PlaceError(f"{path}: cannot be written: {error.strerror}") from error
