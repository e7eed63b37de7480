"""The folder of what is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from fastgpt_c.errors import ModelFileError


def cache_dir() -> Path:
    """Where converted checkpoints and measured rates are kept: $FASTGPT_CACHE, else
    $XDG_CACHE_HOME/fastgpt-c, else ~/.cache/fastgpt-c.

    Raises ModelFileError where none of them is set and the user has no home, as in some containers."""
    own = os.environ.get("FASTGPT_CACHE")
    place = Path(own or os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return place.expanduser() if own else place.expanduser() / "fastgpt-c"
    except RuntimeError as error:
        raise ModelFileError(
            f"{place}: there is no home folder to keep converted models in; FASTGPT_CACHE names a folder for them"
        ) from error
