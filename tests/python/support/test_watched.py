"""The watch over mutants sees what it is there for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import pytest
import watched
from watched import Job, run_all


def job(run: Callable[[int], bool], warm_up: Callable[[], object] = lambda: takes(1)) -> Job:
    """Each input has 1,000 bytes."""
    return Job(warm_up, lambda i: 1000, run, lambda i: f"input {i}")


def takes(n_bytes: int) -> bool:
    return bool(np.ones(n_bytes, np.uint8).all())


def test_what_may_be_taken_passes() -> None:
    """Memory that was given back counts once: twenty runs take a mebibyte each, of some four that one run may take."""
    taken = run_all(job(lambda i: takes(1 << 20) and i % 2 == 0), 20)
    assert taken.n_read == 10
    assert taken.n_bytes >= 3 << 18  # each CPU counts some pages for itself
    assert taken.seconds < watched.MAX_SECONDS


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (lambda i: os.abort(), "killed its process"),
        (lambda i: bool(1 // 0), "raised(.|\n)*ZeroDivisionError"),
        (lambda i: takes(5 << 20), "touched 5,...,... bytes, but may 4,204,304"),
        (lambda i: bool(bytearray(2 * watched.MAX_ASKED)), "raised(.|\n)*MemoryError"),
        (lambda i: time.sleep(0.3) is None, "took 0.3"),
        (lambda i: time.sleep(9) is None, "did not end within 0.6 s"),
    ],
)
def test_what_may_not_be_taken_is_seen(run: Callable[[int], bool], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "MAX_SECONDS", 0.2)
    monkeypatch.setattr(watched, "HANG_SECONDS", 0.6)
    with pytest.raises(pytest.fail.Exception, match=f"run 2 {why}(.|\n)*input 2"):
        run_all(job(lambda i: i < 2 or run(i)), 5)


def test_a_job_that_cannot_begin_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"could not begin(.|\n)*ZeroDivisionError"):
        run_all(job(lambda i: True, lambda: 1 // 0), 5)
