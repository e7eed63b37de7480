"""Runs the command as a user does: a process of its own, with pipes or in a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastgpt_c.cli.__main__ import main

SCRIPT = (str(Path(sysconfig.get_path("scripts")) / "fastgpt-c"),)
MODULE = (sys.executable, "-m", "fastgpt_c")

# From here no source folder can shadow the installed package.
OUTSIDE = "/"

# A user's Python has no settings of a test run's.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
ENVIRONMENT |= {"PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"}

FAILURE, WRONG_USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

TIMEOUT = 120  # seconds, for what should end at once: a machine may be busy


def run(
    *arguments: str | Path, stdin: bytes = b"", program: Sequence[str] = SCRIPT, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs the command to its end; stdin and stdout are pipes."""
    return subprocess.run(
        [*program, *arguments],
        input=stdin,
        capture_output=True,
        cwd=OUTSIDE,
        env=ENVIRONMENT | environment,
        timeout=TIMEOUT,
        check=False,
    )


def output_of(*arguments: str | Path, stdin: bytes = b"", **environment: str) -> bytes:
    """What it writes to stdout; fails unless it succeeds and says nothing on stderr."""
    result = run(*arguments, stdin=stdin, **environment)
    assert (result.returncode, result.stderr) == (0, b"")
    return result.stdout


def output_here(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The same without a process of its own, for what does not depend on one."""
    status = main([str(argument) for argument in arguments])
    stdout, stderr = capfd.readouterr()
    assert (status, stderr) == (0, "")
    return stdout


def assert_complains(result: subprocess.CompletedProcess[bytes], status: int, *words: str) -> None:
    """Failed with that status and one line on stderr that has the words; nothing on stdout."""
    text = result.stderr.decode()
    assert (result.returncode, result.stdout) == (status, b""), text
    assert text.startswith("fastgpt-c: ") and text.count("\n") == 1, text
    assert all(word in text for word in words), text


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a process in which Ctrl-C works, even where the tests run in the background and ignore it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits only "ignored"
    try:
        return subprocess.Popen(command, cwd=OUTSIDE, env=ENVIRONMENT, **options)
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def running(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command while it runs; killed in the end."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = start([*SCRIPT, *arguments], **pipes | options)
    with process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[bytes], patience: float) -> bytes:
    """Ctrl-C -> the rest of stdout.  Fails unless it ends within so many seconds, with status 130 and no words."""
    begin = time.perf_counter()
    process.send_signal(signal.SIGINT)
    rest, stderr = process.communicate(timeout=TIMEOUT)
    seconds = time.perf_counter() - begin
    assert (process.returncode, stderr.strip()) == (INTERRUPTED, b"")
    assert seconds < patience, f"took {seconds:.1f} s to end"
    return rest


# ---- Terminals --------------------------------------------------------------------------------------------

# The first argument that follows becomes a program whose Ctrl-C and Ctrl-D are those of the terminal.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """The command in a terminal: what a person types, and what they see."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self._process, self._master = process, master

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def see(self, text: bytes) -> bytes:
        """All that comes until text does, both included."""
        seen = b""
        while not seen.endswith(text):
            more = self._read()
            assert more, f"ended after {seen!r}, without {text!r}"
            seen += more
        return seen

    def end(self) -> tuple[bytes, int]:
        """What comes until it ends, and its exit status."""
        seen = b""
        while more := self._read():
            seen += more
        return seen, self._process.wait(TIMEOUT)

    def _read(self) -> bytes:
        assert select.select([self._master], [], [], TIMEOUT)[0], "nothing happens"
        try:
            return os.read(self._master, 1)
        except OSError:  # Linux says so when the program has gone
            return b""


@contextmanager
def in_terminal(*arguments: str | Path) -> Iterator[Terminal]:
    """Runs the command in a terminal of its own."""
    master, slave = pty.openpty()
    command = [sys.executable, "-c", TAKE_TERMINAL, *SCRIPT, *arguments]
    process = start(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    with process:
        try:
            yield Terminal(process, master)
        finally:
            process.kill()
            os.close(master)
