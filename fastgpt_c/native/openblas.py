"""OpenBLAS starts a thread for each core when it is loaded; they spin for a while, beside those of the pool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

N_THREADS = "OPENBLAS_NUM_THREADS"  # read when the library is loaded


def is_own() -> bool:
    """Whether the package was built with its own copy."""
    package = find_spec("fastgpt_c")
    folders = package.submodule_search_locations if package else None
    return any(Path(path, "lib", "libfastgpt_openblas.so").exists() for path in folders or ())


@contextmanager
def no_threads() -> Iterator[None]:
    """While the package's own copy is loaded, which the pool calls from its own threads.  A BLAS of the system is left
    as its host set it, and so is the environment afterwards."""
    if not is_own():
        yield
        return
    before = os.environ.get(N_THREADS)
    os.environ[N_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[N_THREADS]
        if before is not None:
            os.environ[N_THREADS] = before
