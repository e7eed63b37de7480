"""SentencePiece (Kudo & Richardson 2018, arXiv 1808.06226), run by its own library, with what transformers does around
it: special tokens are cut out first, and GPT-SW3's texts are cleaned as its training texts were.
"""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import groupby
from typing import Any

from fastgpt_c.errors import ModelFileError, missing_extra
from fastgpt_c.tokenizers.base import LibraryTokenizer

# What GPT-SW3 drops: control characters but tab and line feed, no-break space, soft hyphen, zero-width space; and what
# it makes a plain space of.
SW3_DROPPED = dict.fromkeys([*range(9), *range(11, 32), *range(127, 161), 173, 0x200B])
SW3_SPACES = dict.fromkeys([0x2002, 0x2003, 0x2005, 0x2008, 0x2009, 0x200A, 0x202F, 0x3000, 0xFFFC], " ")


def load(data: bytes) -> Any:
    """The SentencePieceProcessor of a model file.  Raises ModelFileError, or MissingExtraError without the library."""
    try:
        import sentencepiece
    except ImportError as error:
        raise missing_extra("sentencepiece", "This model's tokenizer") from error
    try:
        if not data:
            raise ValueError("it is empty")  # the library would take that for no model yet
        return sentencepiece.SentencePieceProcessor(model_proto=data)
    except Exception as error:  # RuntimeError and whatever else the library's C++ throws
        raise ModelFileError(f"the SentencePiece model is damaged: {str(error)[:200]}") from error


class SentencePieceTokenizer(LibraryTokenizer):
    """model is a SentencePiece file; settings are JSON:

    special  {text: id} of tokens that stand for themselves
    lower    whether text is made lower-case first
    gpt_sw3  whether text is cleaned as GPT-SW3's
    """

    def __init__(self, model: bytes, settings: bytes, n_vocab: int, eos_token: int | None) -> None:
        self._processor = load(model)
        try:
            values = json.loads(settings)
            self._lower, self._gpt_sw3 = bool(values["lower"]), bool(values["gpt_sw3"])
            self._ids = {str(text): int(token) for text, token in values["special"].items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelFileError(f"the settings of the tokenizer are damaged: {error!r}") from error
        super().__init__(n_vocab, eos_token, {token: text for text, token in self._ids.items()})
        longest_first = sorted(filter(None, self._ids), key=len, reverse=True)
        self._pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None

    def _encode(self, text: str, special: bool) -> list[int]:
        parts = self._pattern.split(text) if special and self._pattern else [text]
        ids: list[int] = []
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self._ids[part])
            elif part:
                ids.extend(self._processor.encode(self._prepared(part)))
        return ids

    def _prepared(self, text: str) -> str:
        if self._gpt_sw3:
            text = unicodedata.normalize("NFC", text.translate({**SW3_DROPPED, **SW3_SPACES}))
        return text.lower() if self._lower else text

    def _decode(self, ids: list[int]) -> str:
        """Special tokens and padding stand for their text and for nothing; the library decodes the runs between."""
        n_pieces = len(self._processor)
        text = ""
        for plain, group in groupby(ids, lambda token: token not in self.special and token < n_pieces):
            run = list(group)
            text += self._processor.decode(run) if plain else "".join(self.special.get(token, "") for token in run)
        return text
