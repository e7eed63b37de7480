"""Paths and texts as C strings: bytes that end with the first NUL, so there must be none inside."""

from __future__ import annotations

import os

from fastgpt_c.errors import UsageError


def c_path(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a path.  Raises UsageError where it has a NUL, or characters that file names cannot have."""
    text = os.fspath(path)
    try:
        return _whole(os.fsencode(text), text)
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r}: is not a valid file name: {error}") from None


def c_text(text: str) -> bytes:
    """A text in UTF-8.  Raises UsageError where it has a NUL or a lone surrogate."""
    try:
        return _whole(text.encode(), text)
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r}: has half of a surrogate pair, which UTF-8 cannot hold: {error}") from None


def _whole(data: bytes, text: str) -> bytes:
    if b"\0" in data:
        raise UsageError(f"{text!r}: has a NUL character, at which it would be cut off")
    return data
