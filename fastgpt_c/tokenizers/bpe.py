"""Text <-> token ids: byte-level BPE as in GPT-2 (Radford et al. 2019, section 2.2).

    text -> pieces (a pattern) -> UTF-8 bytes, one symbol each -> merges, lowest rank first -> token ids

The ids equal those of Hugging Face `tokenizers`.  GPT-2's own pattern is built into the C library; any other runs in
Python, by the `regex` package (bpe_python.py).  Unicode rule: the library follows fastgpt_unicode_version(), the
other path its installed `regex`, Hugging Face its own version.  All of them class every code point that Unicode 14
assigns alike; for later ones the ids may differ.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol

from fastgpt_c.errors import ModelFileError, UsageError
from fastgpt_c.native.arguments import shown, token_list

# How OpenAI's encoder.py cuts text before any merge: contractions, words, numbers, other marks, and spaces, of which
# the last one stays with the word that follows.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class _BPE(Protocol):
    """What the two paths have in common."""

    def encode(self, data: bytes, special: bool) -> list[int]: ...

    def decode_bytes(self, tokens: Sequence[int]) -> bytes: ...


class Tokenizer:
    """A vocabulary and its merge rules.

    tokens       [n_vocab] text of each id: as vocab.json spells bytes (byte encoder), but plain for types 3 and 4
    merges       "left right" by rank, as in merges.txt
    token_types  [n_vocab] 1 normal, 3 control, 4 user-defined, 5 unused; None = all normal
    eos_token    id of the token that ends a text, or None
    pattern      what cuts text into pieces, in the language of the `regex` package; what it leaves out is lost

    Reads nothing but lengths here; tables are made at first use.  May be shared by threads.  Raises ModelFileError when
    the parts do not fit together: here for lengths, at first use for contents.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        merges: Sequence[str],
        token_types: Sequence[int] | None = None,
        eos_token: int | None = None,
        *,
        pattern: str = GPT2_PATTERN,
    ) -> None:
        n_vocab = len(tokens)
        if token_types is not None and len(token_types) != n_vocab:
            raise ModelFileError(f"the vocabulary has {n_vocab} tokens but {len(token_types)} token types")
        if eos_token is not None and not 0 <= eos_token < n_vocab:
            raise ModelFileError(f"the end-of-text token is {eos_token}, outside the vocabulary [0, {n_vocab})")

        def make() -> _BPE:
            for text in (*tokens, *merges):
                if not isinstance(text, str):
                    raise UsageError(f"a token or merge of the vocabulary is {shown(text)}, not text")
            if pattern == GPT2_PATTERN:
                from fastgpt_c.tokenizers.bpe_native import NativeBPE

                return NativeBPE.of_strings(tokens, merges, token_types)
            from fastgpt_c.tokenizers.bpe_python import PatternBPE

            return PatternBPE(tokens, merges, token_types, pattern)

        self._set(n_vocab, eos_token, make)

    @classmethod
    def of_model(cls, model: Any, n_vocab: int, eos_token: int | None) -> Tokenizer:
        """That of a fastgpt_model *, which it keeps alive; Model.tokenizer is the usual way to it."""

        def make() -> _BPE:
            from fastgpt_c.tokenizers.bpe_native import NativeBPE

            return NativeBPE.of_model(model)

        tokenizer = cls.__new__(cls)
        tokenizer._set(n_vocab, eos_token, make)
        return tokenizer

    def _set(self, n_vocab: int, eos_token: int | None, make: Callable[[], _BPE]) -> None:
        self.n_vocab, self.eos_token, self._make = n_vocab, eos_token, make

    @cached_property
    def _bpe(self) -> _BPE:
        return self._make()

    def encode(self, text: str | bytes, *, special: bool = True) -> list[int]:
        """Token ids of text, or of UTF-8 bytes.

        special=True takes the text of a control token ("<|endoftext|>") for that token, the leftmost first and of those
        the longest; then, between them, that of a user-defined token likewise (a file may name other tokens for this
        second search).  special=False takes all of it as literal text, for text from strangers.

        A byte that is not UTF-8 is kept, and cuts text as a mark does: decode_bytes(encode(data)) == data for any data.

        Raises UsageError for a lone surrogate, which has no UTF-8 form (Hugging Face refuses it too), and
        ModelFileError for a damaged vocabulary or one that lacks a byte of the text.
        """
        if not isinstance(text, str | bytes):
            raise UsageError(f"text is {shown(text)}, not text or bytes")
        return self._bpe.encode(_utf8(text) if isinstance(text, str) else text, special)

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens stand for; b"" for unused ones.  Raises UsageError for an id outside [0, n_vocab)."""
        return self._bpe.decode_bytes(token_list(tokens))

    def decode(self, tokens: Iterable[int]) -> str:
        """The text that tokens stand for; raises as decode_bytes does.

        Bytes that are not UTF-8 become U+FFFD, one for each maximal part of a character (Unicode 14, section 3.9),
        as in bytes.decode(errors="replace") and in Hugging Face's decoder.
        """
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def stream(self) -> TextStream:
        """A decoder that takes one token at a time."""
        return TextStream(self)


class TextStream:
    """Tokens in, text out as soon as its bytes are whole characters.

    The pieces of push() and finish(), joined, equal Tokenizer.decode() of all the tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The characters that token completes, "" if none.  Raises as Tokenizer.decode_bytes does; nothing is lost."""
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def finish(self) -> str:
        """What is left of an incomplete character, as U+FFFD; the stream then starts anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code_point = ord(text[error.start])
        raise UsageError(
            f"character {error.start} of the text is U+{code_point:04X}, half of a surrogate pair, which UTF-8 cannot"
            " hold.  Decode the text properly, or with errors='replace'"
        ) from None
