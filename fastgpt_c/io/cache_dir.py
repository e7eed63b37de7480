"""The folder of what is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where converted checkpoints and measured rates are kept: $FASTGPT_CACHE, else
    $XDG_CACHE_HOME/fastgpt-c, else ~/.cache/fastgpt-c."""
    if own := os.environ.get("FASTGPT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fastgpt-c"
