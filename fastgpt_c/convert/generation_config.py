"""generation_config.json: which tokens end a text, and how the model's authors would have tokens drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from fastgpt_c.convert.config import token_ids
from fastgpt_c.errors import ModelFileError
from fastgpt_c.io.checked_json import JSON, read_json_if_present, show

FILE = "generation_config.json"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


# What is stored, and what each may be.
DEFAULTS: dict[str, tuple[Callable[[object], bool], str]] = {
    "do_sample": (lambda value: isinstance(value, bool), "true or false"),
    "temperature": (lambda value: _is_number(value) and 0 <= value <= 1e6, "a number from 0 to 1e6"),
    "top_k": (lambda value: _is_integer(value) and 0 <= value < 2**31, "an integer from 0"),
    "top_p": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "repetition_penalty": (lambda value: _is_number(value) and 0 < value <= 1e6, "a number above 0"),
    "max_new_tokens": (lambda value: _is_integer(value) and 0 < value < 2**31, "an integer from 1"),
}


@dataclass(frozen=True)
class GenerationConfig:
    """eos_tokens: None where the file does not say, and config.json holds.  defaults: JSON of those among DEFAULTS that
    it names, or None."""

    eos_tokens: tuple[int, ...] | None
    defaults: str | None


def read_generation_config(folder: Path, n_vocab: int) -> GenerationConfig:
    """Raises ModelFileError for a value that is none of its key."""
    path = folder / FILE
    config = read_json_if_present(path)
    eos_tokens = None if config.get("eos_token_id") is None else token_ids(config, "eos_token_id", n_vocab, path)
    named = _named_defaults(config, path)
    return GenerationConfig(eos_tokens, json.dumps(named) if named else None)


def _named_defaults(config: JSON, path: Path) -> JSON:
    named = {key: config[key] for key in DEFAULTS if config.get(key) is not None}
    for key, value in named.items():
        is_valid, what = DEFAULTS[key]
        if not is_valid(value):
            raise ModelFileError(f"{path}: {key} = {show(value)} is not {what}")
    return named
