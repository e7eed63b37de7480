"""Loading the library leaves the environment as it was, and starts no threads of the package's own OpenBLAS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastgpt_c.native.openblas import is_own

SCRIPT = """
import os, sys
before = len(os.listdir("/proc/self/task"))
from fastgpt_c.native import lib
print(len(os.listdir("/proc/self/task")) - before, os.environ.get("OPENBLAS_NUM_THREADS"))
"""


@pytest.mark.skipif(not is_own(), reason="built with a BLAS of the system, or none")
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists a process's threads")
@pytest.mark.parametrize("n_threads", [None, "2"])
def test_loading(n_threads: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    if n_threads is not None:
        environment["OPENBLAS_NUM_THREADS"] = n_threads
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["0", str(n_threads)]
