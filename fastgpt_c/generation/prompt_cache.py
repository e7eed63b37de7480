"""A session that is kept in a file, so that the next run need not read the same tokens again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastgpt_c.engine.reader import Reader
from fastgpt_c.errors import UsageError

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel
    from fastgpt_c.engine.session import Session


@contextmanager
def prompt_cache(
    model: LoadedModel, path: Path | None, *, kv_type: str = "auto", deterministic: bool = False
) -> Iterator[Reader]:
    """A reader of the session saved in path, or of an empty one where there is no such file.  At the end of the block
    the session is saved there, also after an error or Ctrl-C.  path None: nothing is loaded or saved.

    Raises what Model.load_session raises, and UsageError where the file has another kv_type than the one asked for, or
    the folder is missing; the file is then unchanged.
    """
    with _open_session(model, path, kv_type, deterministic) as session:
        before = session.tokens
        try:
            yield Reader(session, before.tolist())
        finally:
            if path and not np.array_equal(session.tokens, before):
                session.save(path)


def _open_session(model: LoadedModel, path: Path | None, kv_type: str, deterministic: bool) -> Session:
    if path and not path.parent.is_dir():
        raise UsageError(f"{path}: there is no such folder to keep the prompt cache in")
    if path is None or not path.exists():
        return model.session(kv_type=kv_type, deterministic=deterministic)
    session = model.load_session(path, deterministic=deterministic)
    if kv_type not in ("auto", session.kv_type):
        raise UsageError(
            f"{path}: holds numbers of {session.kv_type}, not {kv_type}; choose that type, or another file"
        )
    return session
