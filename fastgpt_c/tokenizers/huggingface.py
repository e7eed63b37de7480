"""A tokenizer.json, run by the library `tokenizers`: WordPiece, Unigram, BPE of any kind, WordLevel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from fastgpt_c.errors import ModelFileError, missing_extra
from fastgpt_c.tokenizers.base import LibraryTokenizer


def load(text: str) -> Any:
    """The tokenizers.Tokenizer of a tokenizer.json, without truncation and padding.

    Raises ModelFileError for what the library refuses, MissingExtraError where it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise missing_extra("tokenizers", "This model's tokenizer") from error
    with _named("the tokenizer is damaged"):
        tokenizer = tokenizers.Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@contextmanager
def _named(what: str) -> Iterator[None]:
    """The library's errors as ModelFileError: it raises plain Exception, and its panics derive from BaseException."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise ModelFileError(f"{what}: {str(error)[:200]}") from error


class HuggingFaceTokenizer(LibraryTokenizer):
    """data is a tokenizer.json."""

    def __init__(self, data: bytes, n_vocab: int, eos_token: int | None) -> None:
        try:
            self._text = data.decode()
        except UnicodeDecodeError as error:
            raise ModelFileError(f"the tokenizer is damaged: {error}") from error
        self._tokenizer = load(self._text)
        added = self._tokenizer.get_added_tokens_decoder()
        super().__init__(n_vocab, eos_token, {token: entry.content for token, entry in added.items()})

    def _encode(self, text: str, special: bool) -> list[int]:
        tokenizer = self._tokenizer if special else self._literal
        with _named("the library `tokenizers` cannot encode this text"):
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    @cached_property
    def _literal(self) -> Any:
        """The same without added tokens, which are found before all else."""
        return load(json.dumps({**json.loads(self._text), "added_tokens": []}))
