"""Whether the engine runs a file that was just written: no conversion ends with a file that cannot be used."""

from __future__ import annotations

from pathlib import Path

from fastgpt_c.engine.model import LoadedModel
from fastgpt_c.errors import FastGPTError, ModelFileError

# Letters, digits, marks, spaces, a line break, characters of two and four bytes.
LINE = "A small step, 12 times:\n  don't! \u00e9\U0001f600"


def check_runs(path: Path, source: Path) -> None:
    """Opens the GGUF file path, which was made of source, and encodes a line with its tokenizer, if it has one.

    Raises ModelFileError, which says why that cannot be done.
    """
    try:
        with LoadedModel(path) as model:
            if model.has_tokenizer:
                model.encode("".join(character for character in LINE if _is_known(model, character)))
    except FastGPTError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise ModelFileError(f"{source}: the file made of it could not be run, so it was not kept: {why}") from error


def _is_known(model: LoadedModel, character: str) -> bool:
    """A vocabulary need not have every byte: a text with another one is refused when it comes."""
    tokenizer = model.tokenizer
    try:
        tokenizer.encode(character)
    except FastGPTError:
        return False
    return True
