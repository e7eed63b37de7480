"""The package's own OpenBLAS: loading it starts no thread, needs none, prints nothing, and reads no variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from installation import ffi, lib, shared_library

import fastgpt_c

LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists a process's threads")
VARIABLES = ("OPENBLAS_NUM_THREADS=2", "OPENBLAS_VERBOSE=5", "OPENBLAS_CORETYPE=none")

# With NumPy's own OpenBLAS there already: loads the library with certain variables set, and takes a step.  Prints how
# many threads loading started.
SCRIPT = """
import numpy, os, sys
def n_threads():
    return len(os.listdir("/proc/self/task"))
os.environ |= dict(pair.split("=") for pair in sys.argv[2:])
before = n_threads()
import fastgpt_c
print(n_threads() - before)
with fastgpt_c.load(n_threads=1) as model, model.session() as session:
    session.decode(3)
print("done")
"""

# The same where this user may have no more than one thread; root becomes another user, since no limit is for root.
WITHOUT_THREADS = (
    """
import os, resource, sys
import numpy
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
if not all(os.access(path, os.R_OK) for path in (sys.executable, sys.argv[1])):
    sys.exit(77)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
"""
    + SCRIPT
)


def has_own_openblas() -> bool:
    """Whether the package was built with its own copy; a BLAS of the system is its host's business."""
    return any(Path(path, "lib", "libfastgpt_openblas.so").exists() for path in fastgpt_c.__path__)


pytestmark = pytest.mark.skipif(
    not has_own_openblas() and ffi.string(lib.fastgpt_blas_name()) != b"Native",
    reason="built with a BLAS of the system",
)


def run_script(script: str, *variables: str) -> tuple[int, list[str], str]:
    """(status, words on standard output, text on standard error)"""
    command = [sys.executable, "-c", script, str(shared_library()), *variables]
    environment = os.environ | {"FASTGPT_ISA": "portable", "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    return ran.returncode, ran.stdout.split(), ran.stderr


@LINUX
def test_loading_starts_no_thread() -> None:
    """The environment is for other copies of OpenBLAS."""
    assert run_script(SCRIPT, *VARIABLES) == (0, ["0", "done"], "")


@LINUX
def test_no_thread_may_be_started() -> None:
    """A process whose user may have one thread loads the library, and takes a step."""
    status, words, errors = run_script(WITHOUT_THREADS)
    if status == 77:
        pytest.skip("another user may not read this installation")
    assert (status, words, errors) == (0, ["0", "done"], "")
