"""Text <-> token ids: byte-level BPE as in GPT-2 (Radford et al. 2019, section 2.2).

    text -> pieces (GPT-2's pattern) -> UTF-8 bytes, one symbol each -> merges, lowest rank first -> token ids

The ids equal those of Hugging Face `tokenizers`.  Unicode rule: what counts as a letter, a number or a space is what
the installed `regex` package says (Unicode 18.0 in regex 2026.11.15).  Both packages class every code point that
Unicode 14 assigns alike; for later ones each follows its own Unicode version, and the ids may differ.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING

from fastgpt_c.errors import ModelFileError, UsageError

if TYPE_CHECKING:
    from regex import Pattern

# How OpenAI's encoder.py cuts text before any merge: contractions, words, numbers, other marks, and spaces, of which
# the last one stays with the word that follows.
PIECE_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# GGUF's tokenizer.ggml.token_type; every other value is a token made of bytes.
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5

# Words recur and are short, so a bounded cache of short pieces answers most of a text.
N_CACHED_PIECES = 1 << 16
MAX_CACHED_LENGTH = 32


def _byte_alphabet() -> list[str]:
    """[256] the character that stands for each byte in vocab.json: itself where it prints, else U+0100 and up."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(substitutes)) for byte in range(256)]


BYTE_TO_CHARACTER = _byte_alphabet()
CHARACTER_TO_BYTE = {character: byte for byte, character in enumerate(BYTE_TO_CHARACTER)}


class Tokenizer:
    """A vocabulary and its merge rules.

    tokens       [n_vocab] text of each id: in the byte alphabet of vocab.json, but plain for types 3 and 4
    merges       "left right" by rank, as in merges.txt
    token_types  [n_vocab] 1 normal, 3 control, 4 user-defined, 5 unused; None = all normal
    eos_token    id of the token that ends a text, or None

    Reads nothing but lengths here; tables are made at first use, and decoding needs none of them.  May be shared by
    threads.  Raises ModelFileError when the parts do not fit together: here for lengths, at first use for contents.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        merges: Sequence[str],
        token_types: Sequence[int] | None = None,
        eos_token: int | None = None,
    ) -> None:
        self.n_vocab = len(tokens)
        self.eos_token = eos_token
        if token_types is not None and len(token_types) != self.n_vocab:
            raise ModelFileError(f"the vocabulary has {self.n_vocab} tokens but {len(token_types)} token types")
        if eos_token is not None and not 0 <= eos_token < self.n_vocab:
            raise ModelFileError(f"the end-of-text token is {eos_token}, outside the vocabulary [0, {self.n_vocab})")
        self._tokens = tokens
        self._merges = merges
        self._token_types = token_types
        self._cached_ids: dict[str, list[int]] = {}
        self._cached_bytes: dict[int, bytes] = {}

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of text.

        special=True takes the text of a control or user-defined token ("<|endoftext|>") for that token, the leftmost
        first and of those the longest; special=False takes it as literal text, for text from strangers.

        Raises UsageError for a lone surrogate, which has no UTF-8 form (Hugging Face refuses it too), and
        ModelFileError for a damaged vocabulary or one that lacks a byte of the text.
        """
        _refuse_surrogates(text)
        ids: list[int] = []
        start = 0
        if special and self._special_pattern is not None:
            for match in self._special_pattern.finditer(text):
                self._append_literal(text[start : match.start()], ids)
                ids.append(self._ids[match.group()])
                start = match.end()
        self._append_literal(text[start:], ids)
        return ids

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens stand for; b"" for unused ones.

        Raises UsageError for an id outside [0, n_vocab), ModelFileError for a token that is not in the byte alphabet.
        """
        return b"".join(map(self._token_bytes, tokens))

    def decode(self, tokens: Iterable[int]) -> str:
        """The text that tokens stand for; raises as decode_bytes does.

        Bytes that are not UTF-8 become U+FFFD, one for each maximal part of a character (Unicode 14, section 3.9),
        as in bytes.decode(errors="replace") and in Hugging Face's decoder.
        """
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def stream(self) -> TextStream:
        """A decoder that takes one token at a time."""
        return TextStream(self)

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids = {text: token for token, text in enumerate(self._tokens)}
        if len(ids) < self.n_vocab:
            twice = next(token for token, text in enumerate(self._tokens) if ids[text] != token)
            text = self._tokens[twice]
            raise ModelFileError(f"the vocabulary has {text!r} twice: tokens {twice} and {ids[text]}")
        return ids

    @cached_property
    def _ranks(self) -> dict[str, int]:
        """Rank of each "left right"; the parts and their join are sure to be tokens."""
        ids = self._ids
        ranks: dict[str, int] = {}
        for rank, merge in enumerate(self._merges):
            left, _, right = merge.partition(" ")
            if not (left and right and left in ids and right in ids and left + right in ids):
                raise ModelFileError(f"merge {rank}, {merge!r}, is not two tokens whose join is a token")
            ranks[merge] = rank
        return ranks

    @cached_property
    def _piece_pattern(self) -> Pattern[str]:
        import regex  # here, since decoding does not need it and a program should start in a blink

        compiled: Pattern[str] = regex.compile(PIECE_PATTERN)
        return compiled

    @cached_property
    def _special_pattern(self) -> Pattern[str] | None:
        """Matches the longest control or user-defined token; None when there is none."""
        import regex

        kinds = self._token_types or ()
        texts = [self._tokens[token] for token, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)]
        longest_first = sorted(filter(None, texts), key=len, reverse=True)
        if not longest_first:
            return None
        compiled: Pattern[str] = regex.compile("|".join(map(regex.escape, longest_first)))
        return compiled

    def _append_literal(self, text: str, ids: list[int]) -> None:
        for match in self._piece_pattern.finditer(text):
            ids.extend(self._piece_ids(match.group()))

    def _piece_ids(self, piece: str) -> list[int]:
        known = self._cached_ids.get(piece)
        if known is not None:
            return known
        symbols = merge_symbols([BYTE_TO_CHARACTER[byte] for byte in piece.encode()], self._ranks)
        try:
            ids = [self._ids[symbol] for symbol in symbols]
        except KeyError as error:  # a single byte, since every merge gives a token
            missing = f"0x{CHARACTER_TO_BYTE[error.args[0]]:02X}"
            raise ModelFileError(
                f"the vocabulary has no token for byte {missing}, which is in {piece[:40]!r}"
            ) from None
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
        if not 0 <= token < self.n_vocab:
            raise UsageError(f"token {token} is outside the vocabulary [0, {self.n_vocab})")
        kind = None if self._token_types is None else self._token_types[token]
        if kind == UNUSED:
            return b""
        text = self._tokens[token]
        if kind in (CONTROL, USER_DEFINED):
            return text.encode()
        try:
            return bytes(CHARACTER_TO_BYTE[character] for character in text)
        except KeyError as error:
            raise ModelFileError(f"token {token}, {text!r}, has {error.args[0]!r}, which stands for no byte") from None


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


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code_point = ord(text[error.start])
        raise UsageError(
            f"character {error.start} of the text is U+{code_point:04X}, half of a surrogate pair, which UTF-8 cannot"
            " hold.  Decode the text properly, or with errors='replace'"
        ) from None
