"""A job of shards that is killed after each change of a file, or finds the disk full from there on, and is then run
again.  Run by test_kills.py in a process of its own, with the library of file_calls.c loaded first.

    python killed_jobs.py IN FOLDER EXPECTED MODE [N]      MODE: kill, full, twice
"""

from __future__ import annotations

import ctypes
import faulthandler
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from shard_jobs import OPTIONS

from fastgpt_c.cli.__main__ import main
from fastgpt_c.sharding import plan, work

MOST_CHANGES = 2000
assert work.Worker, "imported once, before the forks"


class Job:
    """Plan, shards and merge of one input, each in a process of its own."""

    def __init__(self, source: Path, folder: Path, expected: bytes) -> None:
        self.source, self.folder, self.expected = source, folder, expected
        self.out, self.target = folder / "out", folder / "merged"
        self.library = ctypes.CDLL(None)

    def commands(self) -> int:
        """All of them, until one fails: its exit status."""
        size = str(self.source.stat().st_size // 3)
        for command in (
            [str(self.source), f"{self.out}/", "--shard-bytes", size, "--check-ids", *OPTIONS],
            [str(self.out), "--shard", "0/1", "--allow-errors", "--threads", "1"],
            [str(self.out), "--merge", str(self.target), "--allow-errors"],
        ):
            plan.opened.cache_clear()
            if status := main(["batch", *command]):
                return status
        return 0

    def begin_anew(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def in_process(self, action: Callable[[], int], n: int = 0, full_disk: int = 0) -> int:
        """Forks -> pid; n and full_disk as file_calls_arm has them."""
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                self.library.file_calls_arm(ctypes.c_long(n), full_disk, os.fsencode(self.folder))
                status = action()
            finally:
                os._exit(status)
        return pid

    def check(self, what: str) -> None:
        """All is there once, as it should be, and nothing else."""
        assert self.target.read_bytes() == self.expected, f"{what}: the merged file is another"
        parts = {path.name for path in self.out.iterdir()}
        n = len(json.loads((self.out / "plan.json").read_bytes())["shards"])
        names = {f"part-{i:05d}.{suffix}" for i in range(n) for suffix in ("jsonl", "done")}
        others = {name for name in parts - names if not name.startswith("repeats-")}
        assert names <= parts and others == {"plan.json"}, f"{what}: {sorted(others)}"
        for i in range(n):
            done = json.loads((self.out / f"part-{i:05d}.done").read_bytes())
            assert done["sha256"] == hashlib.sha256((self.out / done["part"]).read_bytes()).hexdigest(), what


def ended(pid: int) -> int:
    """The exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def interrupt_each(job: Job, full_disk: int, step: int) -> None:
    """Kills after each change in turn, or has a full disk from each write on; then all goes well."""
    for n in range(1, MOST_CHANGES, step):
        job.begin_anew()
        status = ended(job.in_process(job.commands, n, full_disk))
        if status == 0:
            job.check(f"undisturbed, {n}")
            print(f"{n - 1} moments" if step == 1 else f"every {step} of {n - 1} moments", flush=True)
            return
        assert status == (1 if full_disk else -signal.SIGKILL), f"change {n}: exit status {status}"
        assert ended(job.in_process(job.commands)) == 0, f"change {n}: the second run failed"
        job.check(f"change {n}")
    raise AssertionError("there is no end of changes")


def run_twice(job: Job, n_rounds: int) -> None:
    """Two processes do all of it at the same time; one plan, one part of each shard, and both end well."""
    for i in range(n_rounds):
        job.begin_anew()
        pids = [job.in_process(job.commands) for _ in range(2)]
        statuses = [ended(pid) for pid in pids]
        assert ended(job.in_process(job.commands)) == 0, f"round {i}"
        job.check(f"round {i}")
        assert statuses == [0, 0], f"round {i}: {statuses}"
    print(f"{n_rounds} rounds", flush=True)


if __name__ == "__main__":
    faulthandler.enable()
    job = Job(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]).read_bytes())
    number = int(sys.argv[5])
    {
        "kill": lambda: interrupt_each(job, 0, number),
        "full": lambda: interrupt_each(job, 1, number),
        "twice": lambda: run_twice(job, number),
    }[sys.argv[4]]()
