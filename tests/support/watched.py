"""Runs a job many times in a process of its own, and bounds what each run may take: seconds, and memory of any kind.

A run that raises, kills the process, hangs, or takes more than it may fails the test, which then shows its input.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

MAX_SECONDS = 2.0
HANG_SECONDS = 30.0  # then the process is killed, whatever it is at
# What one run may touch: so many times the bytes of its input, and bytes more: a library's first panic reads the tables
# for unwinding of all libraries, almost 2 MB.
MAX_MEMORY = 10, 4 << 20
MAX_ASKED = 256 << 20  # bytes that may be asked for, touched or not, beyond what the process had at its beginning
M_MMAP_THRESHOLD = -3  # of mallopt(3)
LIBC = ctypes.CDLL(None)


@dataclass
class Job:
    """warm_up() loads what the runs load once, such as libraries; prepare(i) writes the input of run i and returns its
    bytes; run(i) says whether it was read; show(i) is it as text."""

    warm_up: Callable[[], object]
    prepare: Callable[[int], int]
    run: Callable[[int], bool]
    show: Callable[[int], str]


@dataclass
class Taken:
    """Of all runs: how many were read, and the most that one of them took."""

    n_read: int = 0
    seconds: float = 0.0
    n_bytes: int = 0


def run_all(job: Job, n: int) -> Taken:
    """Runs 0 to n - 1."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, n, sender), daemon=True)
    process.start()
    sender.close()
    taken = Taken()
    try:
        for i in range(n):
            failure = _receive(receiver, taken)
            if failure is not None:
                pytest.fail(f"run {i} {failure}\n{job.show(i)}")
    finally:
        process.kill()
        process.join()
    return taken


def _receive(receiver: Connection, taken: Taken) -> str | None:
    """Adds one run to taken; else says what was wrong with it."""
    if not receiver.poll(HANG_SECONDS):
        return f"did not end within {HANG_SECONDS} s"
    try:
        answer = receiver.recv()
    except EOFError:
        return "killed its process"
    if isinstance(answer, str):
        return answer
    was_read, seconds, n_bytes = answer
    taken.n_read += was_read
    taken.seconds, taken.n_bytes = max(taken.seconds, seconds), max(taken.n_bytes, n_bytes)
    return None


def _work(job: Job, n: int, sender: Connection) -> None:
    LIBC.mallopt(M_MMAP_THRESHOLD, 64 << 10)  # large blocks come from the system and go back to it
    try:
        job.warm_up()
    except BaseException:
        sender.send(f"could not begin\n{traceback.format_exc()}")
    limit = _status("VmData") + MAX_ASKED
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    for i in range(n):
        try:
            sender.send(_run(job, i))
        except BaseException:
            sender.send(f"raised\n{traceback.format_exc()}")


def _run(job: Job, i: int) -> tuple[bool, float, int] | str:
    may_touch = MAX_MEMORY[0] * job.prepare(i) + MAX_MEMORY[1]
    LIBC.malloc_trim(0)  # so that no memory that was touched before is there for this run
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the most that was resident, begins anew: proc(5)
    resident, begin = _status("VmHWM"), time.perf_counter()
    was_read = job.run(i)
    seconds, touched = time.perf_counter() - begin, _status("VmHWM") - resident
    if seconds > MAX_SECONDS:
        return f"took {seconds:.2f} s"
    if touched > may_touch:
        return f"touched {touched:,} bytes, but may {may_touch:,}"
    return was_read, seconds, touched


def _status(key: str) -> int:
    """Bytes under a key of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise KeyError(key)
