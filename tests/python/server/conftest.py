"""Servers that the tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import Served, serving


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """The demo model, with nothing said."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def exact() -> Iterator[Served]:
    """The demo model, four texts at a time, each independent of the others."""
    with serving("--deterministic", "--max-batch", "4", "--prefill-chunk", "64") as server:
        yield server
