"""Byte-level BPE in Python, for any pattern that cuts text into pieces, by the `regex` package.

    bytes -> pieces (the pattern) -> one symbol for each byte -> merges, lowest rank first -> token ids

The library does the same in C for GPT-2's pattern; this is the path for other patterns, and what the tests hold the
library against.  Letters, numbers and spaces are what the installed `regex` says (Unicode 18.0 in regex 2026.11.15).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING

from fastgpt_c.errors import ModelFileError, UsageError

if TYPE_CHECKING:
    from regex import Pattern

# GGUF's tokenizer.ggml.token_type; every other value is a token made of bytes.
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
SPECIAL = (CONTROL, USER_DEFINED)  # in the order in which they are cut out of a text

MAX_SPECIAL_BYTES = 256  # as in the library

# Words recur and are short, so a bounded cache of short pieces answers most of a text.
N_CACHED_PIECES = 1 << 16
MAX_CACHED_LENGTH = 32


def _byte_encoder() -> list[str]:
    """[256] the character that stands for each byte in vocab.json: itself where it prints, else U+0100 and up."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(substitutes)) for byte in range(256)]


BYTE_TO_CHARACTER = _byte_encoder()
CHARACTER_TO_BYTE = {character: byte for byte, character in enumerate(BYTE_TO_CHARACTER)}


class PatternBPE:
    """A vocabulary, its merge rules and a pattern; arguments as those of Tokenizer.

    Tables are made at first use, and decoding needs none of them.  May be shared by threads.
    """

    def __init__(
        self, tokens: Sequence[str], merges: Sequence[str], token_types: Sequence[int] | None, pattern: str
    ) -> None:
        self._tokens = tokens
        self._merges = merges
        self._token_types = token_types
        self._pattern = pattern
        self._cached_ids: dict[str, list[int]] = {}
        self._cached_bytes: dict[int, bytes] = {}

    def encode(self, data: bytes, special: bool) -> list[int]:
        """Token ids of data; a byte that is not UTF-8 counts as a character of no class."""
        ids: list[int] = []
        self._append_from_pass(
            0 if special else len(self._special_patterns), data.decode("utf-8", "surrogateescape"), ids
        )
        return ids

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """The bytes that tokens stand for."""
        return b"".join(map(self._token_bytes, tokens))

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids = {text: token for token, text in enumerate(self._tokens)}
        if len(ids) < len(self._tokens):
            twice = next(token for token, text in enumerate(self._tokens) if ids[text] != token)
            text = self._tokens[twice]
            raise ModelFileError(f"the vocabulary has {text!r} twice: tokens {twice} and {ids[text]}")
        return ids

    @cached_property
    def _ranks(self) -> dict[str, int]:
        """Rank of each "left right"; the parts and their join are sure to be tokens that the byte encoder spells."""
        ids = self._ids
        ranks: dict[str, int] = {}
        for rank, merge in enumerate(self._merges):
            left, _, right = merge.partition(" ")
            are_tokens = left and right and left in ids and right in ids and left + right in ids
            if not (are_tokens and CHARACTER_TO_BYTE.keys() >= set(left + right)):
                raise ModelFileError(f"merge {rank}, {merge!r}, is not two tokens whose join is a token")
            ranks[merge] = rank
        return ranks

    @cached_property
    def _piece_pattern(self) -> Pattern[str]:
        import regex  # here, since decoding does not need it and a program should start in a blink

        try:
            compiled: Pattern[str] = regex.compile(self._pattern)
        except regex.error as error:
            raise UsageError(f"the pattern {self._pattern!r} is not a regular expression: {error}") from error
        return compiled

    @cached_property
    def _special_patterns(self) -> list[Pattern[str]]:
        """What is cut out of a text, one pattern after the other: control tokens, then user-defined ones."""
        kinds = self._token_types or ()
        passes = [[self._tokens[i] for i, kind in enumerate(kinds) if kind == which] for which in SPECIAL]
        return [_longest_of(texts) for texts in passes if any(texts)]

    def _append_from_pass(self, n_passes: int, text: str, ids: list[int]) -> None:
        """Cuts text by the patterns that follow the first n_passes."""
        if n_passes == len(self._special_patterns):
            self._append_literal(text, ids)
            return
        start = 0
        for match in self._special_patterns[n_passes].finditer(text):
            self._append_from_pass(n_passes + 1, text[start : match.start()], ids)
            ids.append(self._ids[match.group()])
            start = match.end()
        self._append_from_pass(n_passes + 1, text[start:], ids)

    def _append_literal(self, text: str, ids: list[int]) -> None:
        for match in self._piece_pattern.finditer(text):
            ids.extend(self._piece_ids(match.group()))

    def _piece_ids(self, piece: str) -> list[int]:
        known = self._cached_ids.get(piece)
        if known is not None:
            return known
        data = piece.encode("utf-8", "surrogateescape")
        symbols = merge_symbols([BYTE_TO_CHARACTER[byte] for byte in data], self._ranks)
        try:
            ids = [self._ids[symbol] for symbol in symbols]
        except KeyError as error:  # a single byte, since every merge gives a token
            raise no_token(CHARACTER_TO_BYTE[error.args[0]]) from None
        if len(piece) <= MAX_CACHED_LENGTH:
            if len(self._cached_ids) >= N_CACHED_PIECES:
                self._cached_ids.clear()
            self._cached_ids[piece] = ids
        return ids

    def _token_bytes(self, token: int) -> bytes:
        known = self._cached_bytes.get(token)
        if known is None:
            known = self._cached_bytes[token] = self._read_token(token)
        return known

    def _read_token(self, token: int) -> bytes:
        if not 0 <= token < len(self._tokens):
            raise out_of_range(token, len(self._tokens))
        kind = None if self._token_types is None else self._token_types[token]
        if kind == UNUSED:
            return b""
        text = self._tokens[token]
        if kind in SPECIAL or not CHARACTER_TO_BYTE.keys() >= set(text):
            return text.encode()
        return bytes(CHARACTER_TO_BYTE[character] for character in text)


def _longest_of(texts: Sequence[str]) -> Pattern[str]:
    """Matches the longest of these, but for empty ones."""
    import regex

    for text in texts:
        if (n_bytes := len(text.encode())) > MAX_SPECIAL_BYTES:
            raise ModelFileError(f"{text[:40]!r} ... is a control or user-defined token of {n_bytes} bytes")
    longest_first = sorted(filter(None, texts), key=len, reverse=True)
    compiled: Pattern[str] = regex.compile("|".join(map(regex.escape, longest_first)))
    return compiled


def merge_symbols(symbols: Sequence[str], ranks: Mapping[str, int]) -> list[str]:
    """Joins the pair of neighbours with the lowest rank, the leftmost of equals, until no pair has one.

    Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909).  ranks maps "left right" to its rank.  Time
    O(n log n), memory O(n) for n symbols: the symbols form a linked list, and a heap holds rank * n + left for each
    pair.  A pair that a join has changed leaves its old entry in the heap; rank_at tells it from the live one, since
    no pair ever comes back.
    """
    n = len(symbols)
    text = [*symbols, ""]  # the empty end pairs with nothing; it is also index -1, so neither end needs a test
    before = list(range(-1, n))
    after = [*range(1, n + 1), n]
    rank_at = [ranks.get(f"{left} {right}") for left, right in pairwise(text)] + [None]
    heap = [rank * n + left for left, rank in enumerate(rank_at) if rank is not None]
    heapify(heap)
    while heap:
        rank, left = divmod(heappop(heap), n)
        if rank_at[left] != rank:
            continue
        right = after[left]
        text[left] += text[right]
        text[right], rank_at[right] = "", None
        after[left] = after[right]
        before[after[left]] = left
        for start in (before[left], left):
            rank_at[start] = new_rank = ranks.get(f"{text[start]} {text[after[start]]}")
            if new_rank is not None:
                heappush(heap, new_rank * n + start)
    return [symbol for symbol in text if symbol]


def no_token(byte: int) -> ModelFileError:
    return ModelFileError(f"the vocabulary has no token for byte 0x{byte:02X}, which is in the text")


def out_of_range(token: int, n_vocab: int) -> UsageError:
    return UsageError(f"token {token} is outside the vocabulary [0, {n_vocab})")
