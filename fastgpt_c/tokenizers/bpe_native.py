"""Byte-level BPE with GPT-2's pattern, in the C library: fastgpt_tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from fastgpt_c.errors import ModelFileError
from fastgpt_c.native.lib import check, error_text, ffi, lib
from fastgpt_c.tokenizers.bpe_python import no_token, out_of_range

_uninitialised = ffi.new_allocator(should_clear_after_alloc=False)


class NativeBPE:
    """A fastgpt_tokenizer *, whose tables never change: may be shared by threads."""

    def __init__(self, handle: Any) -> None:
        self._handle = ffi.gc(handle, lib.fastgpt_tokenizer_free, size=lib.fastgpt_tokenizer_sizeof(handle))
        self._n_vocab: int = lib.fastgpt_tokenizer_n_vocab(handle)

    @classmethod
    def of_model(cls, model: Any) -> NativeBPE:
        """The tokenizer of a fastgpt_model *."""
        return cls(_create(lib.fastgpt_tokenizer_create, model))

    @classmethod
    def of_strings(cls, tokens: Sequence[str], merges: Sequence[str], token_types: Sequence[int] | None) -> NativeBPE:
        """A tokenizer of its own; arguments as those of Tokenizer."""
        types = ffi.NULL if token_types is None else ffi.new("int32_t[]", list(token_types))
        (c_tokens, _tokens_alive), (c_merges, _merges_alive) = _strings(tokens), _strings(merges)
        return cls(_create(lib.fastgpt_tokenizer_create_from, c_tokens, c_merges, types))

    def encode(self, data: bytes, special: bool) -> list[int]:
        """Token ids of data; a byte that is not UTF-8 counts as a character of no class."""
        tokens, n_tokens = _uninitialised("int32_t[]", len(data)), ffi.new("int32_t *")
        flags = lib.FASTGPT_ENCODE_SPECIAL if special else lib.FASTGPT_ENCODE_LITERAL
        status = lib.fastgpt_encode(self._handle, data, len(data), flags, tokens, len(data), n_tokens)
        if status == lib.FASTGPT_ERR_NO_TOKEN:
            raise no_token(next(byte for byte in data if not self._has_byte(byte)))
        check(status)
        ids: list[int] = ffi.unpack(tokens, n_tokens[0])
        return ids

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """The bytes that tokens stand for."""
        for token in tokens:
            if not 0 <= token < self._n_vocab:
                raise out_of_range(token, self._n_vocab)
        ids, n_bytes = ffi.new("int32_t[]", tokens), ffi.new("size_t *")
        lib.fastgpt_detokenize(self._handle, ids, len(tokens), ffi.NULL, 0, n_bytes)  # CAPACITY, and how much
        data = _uninitialised("char[]", n_bytes[0])
        check(lib.fastgpt_detokenize(self._handle, ids, len(tokens), data, n_bytes[0], n_bytes))
        return bytes(ffi.buffer(data))

    def _has_byte(self, byte: int) -> bool:
        token, n_tokens = ffi.new("int32_t *"), ffi.new("int32_t *")
        literal = lib.FASTGPT_ENCODE_LITERAL
        status = lib.fastgpt_encode(self._handle, bytes([byte]), 1, literal, token, 1, n_tokens)
        return bool(status == lib.FASTGPT_OK)


def _create(function: Any, *arguments: Any) -> Any:
    out, error = ffi.new("fastgpt_tokenizer **"), ffi.new("fastgpt_error *")
    status = function(*arguments, out, error)
    check(status, error_text(error))
    return out[0]


def _strings(texts: Sequence[str]) -> tuple[Any, tuple[Any, Any]]:
    """A fastgpt_strings *, and what must live as long as it is used."""
    try:
        parts = [text.encode() for text in texts]
    except UnicodeEncodeError as error:
        raise ModelFileError(f"the vocabulary has half of a surrogate pair, which UTF-8 cannot hold: {error}") from None
    offsets = ffi.new("uint64_t[]", [0, *accumulate(map(len, parts))])
    text = ffi.from_buffer(b"".join(parts) or b"\0")
    return ffi.new("fastgpt_strings *", {"n": len(parts), "text": text, "offsets": offsets}), (text, offsets)
