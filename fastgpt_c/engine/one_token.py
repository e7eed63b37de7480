"""A token that is named by its id or by its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import checked_int

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel


def one_token(model: LoadedModel, name: str, token: str | int) -> int:
    """The id of a token given as id or text; raises UsageError for a text that is several tokens, and says which.

    name  of the argument, for the error
    """
    if not isinstance(token, str):
        return checked_int(name, token, 0, model.n_vocab - 1)
    ids = model.encode(token)
    if len(ids) != 1:
        parts = " ".join(repr(model.decode([id])) for id in ids) or "none"
        hint = "" if token.startswith(" ") else "; most words begin with a space"
        raise UsageError(f"{name} is {token!r}, {len(ids)} tokens ({parts}), not one{hint}")
    return ids[0]
