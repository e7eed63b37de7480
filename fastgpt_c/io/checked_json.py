"""JSON files from strangers: read them, and refuse by name the values that are not implemented."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from fastgpt_c.errors import ModelFileError

JSON = dict[str, Any]

# Key ("model.type" looks into objects) -> the values that are implemented; None stands for an absent key.
Implemented = Mapping[str, Sequence[object]]


def read_json(path: Path) -> JSON:
    """The JSON object in the file path.  Raises ModelFileError, which names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: is not a JSON object")
    return value


def read_json_if_present(path: Path) -> JSON:
    """As read_json, but an absent file is an empty object."""
    return read_json(path) if path.exists() else {}


def check_values(path: Path, config: JSON, implemented: Implemented) -> None:
    """Raises ModelFileError for the first key whose value is not among the implemented ones."""
    for key, value in other_values(config, implemented):
        raise not_implemented(path, key, value, implemented[key])


def other_values(config: JSON, implemented: Implemented) -> Iterator[tuple[str, object]]:
    """Each key whose value is not among the implemented ones, and its value."""
    for key, accepted in implemented.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not any(_same(value, choice) for choice in accepted):
            yield key, value


def _same(value: object, choice: object) -> bool:
    """0 and 1 are not false and true, as they are for Python."""
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)


def not_implemented(path: Path, key: str, value: object, accepted: Iterable[object]) -> ModelFileError:
    choices = " or ".join(show(choice) for choice in accepted if choice is not None) or "none"
    return ModelFileError(f"{path}: {key} = {show(value)} is not implemented, only {choices}")


def is_text(value: object) -> TypeGuard[str]:
    """A string with something in it, and without half a surrogate pair, which UTF-8 cannot express."""
    return isinstance(value, str) and value != "" and not any("\ud800" <= char <= "\udfff" for char in value)


def show(value: object) -> str:
    """value as JSON, cut to a length that fits into a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def some_of(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
