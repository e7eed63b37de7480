"""A session that outlives the process: what an earlier run has read is not read again."""

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
    model: LoadedModel, path: Path | None, *, kv_type: str = "f32", deterministic: bool = False
) -> Iterator[Reader]:
    """A reader whose session begins with what path holds, if there is such a file, and in the end is saved there, also
    after an error or Ctrl-C.  None = a session for this run alone.

    Raises as Model.load_session does, and UsageError when the file's kv_type is another one or there is no such folder;
    then path is as it was.
    """
    with _open(model, path, kv_type, deterministic) as session:
        before = session.tokens
        try:
            yield Reader(session, before.tolist())
        finally:
            if path and not np.array_equal(session.tokens, before):
                session.save(path)


def _open(model: LoadedModel, path: Path | None, kv_type: str, deterministic: bool) -> Session:
    if path and not path.parent.is_dir():
        raise UsageError(f"{path}: there is no such folder to keep the prompt cache in")
    if path is None or not path.exists():
        return model.session(kv_type=kv_type, deterministic=deterministic)
    session = model.load_session(path, deterministic=deterministic)
    if session.kv_type != kv_type:
        raise UsageError(
            f"{path}: holds numbers of {session.kv_type}, not {kv_type}; choose that type, or another file"
        )
    return session
