"""What tokenizers of libraries share: the interface of fastgpt_c.Tokenizer, and streaming of decoded text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping

from fastgpt_c.errors import ModelFileError, UsageError
from fastgpt_c.native.arguments import shown, token_list

# The bytes under a key of a model file, or None.
Metadata = Callable[[str], bytes | None]


class LibraryTokenizer(ABC):
    """n_vocab, eos_token (None when the file names none), special (id -> text).  May be shared by threads.

    Ids are those of transformers with add_special_tokens=False: a prompt is what the user wrote, nothing more.
    """

    def __init__(self, n_vocab: int, eos_token: int | None, special: Mapping[int, str]) -> None:
        self.n_vocab = n_vocab
        self.eos_token = eos_token
        self.special = special

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of text; special=False takes the text of a special token as literal text.

        Raises UsageError for a lone surrogate, and where special=False and the vocabulary knows no other way to write
        the text of a special token.
        """
        if not isinstance(text, str):
            raise UsageError(f"text is {shown(text)}, not text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"character {error.start} of the text is half of a surrogate pair: {error}") from None
        ids = self._encode(text, special)
        if max(ids, default=0) >= self.n_vocab:
            raise ModelFileError(f"the tokenizer gives token {max(ids)}, but the model has {self.n_vocab}")
        spelled = [] if special else [self.special[i] for i in ids if i in self.special and self.special[i] in text]
        if spelled:
            raise UsageError(f"the text spells the special token {spelled[0]!r}")
        return ids

    def decode(self, tokens: Iterable[int]) -> str:
        """The text that tokens stand for.  Raises UsageError for an id outside [0, n_vocab)."""
        ids = token_list(tokens)
        for token in ids:
            if not 0 <= token < self.n_vocab:
                raise UsageError(f"token {token} is outside the vocabulary [0, {self.n_vocab})")
        return self._decode(ids)

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """decode, as UTF-8."""
        return self.decode(tokens).encode()

    def stream(self) -> DecodedStream:
        """A decoder that takes one token at a time."""
        return DecodedStream(self)

    @abstractmethod
    def _encode(self, text: str, special: bool) -> list[int]: ...

    @abstractmethod
    def _decode(self, ids: list[int]) -> str: ...


class DecodedStream:
    """Tokens in, text out.  The pieces of push() and finish(), joined, equal LibraryTokenizer.decode() of all tokens.

    What a token spells depends on the one before it (a space between words), so the last tokens whose text was shown
    are decoded once more in front of each new one.  U+FFFD at an end may be a character that is not complete.
    """

    def __init__(self, tokenizer: LibraryTokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._n_shown = 0  # of these tokens, and their text
        self._shown = ""

    def push(self, token: int) -> str:
        """The characters that token completes, "" if none.  Raises as decode does; nothing is lost."""
        tokens = [*self._tokens, token]
        text = self._tokenizer.decode(tokens)
        self._tokens = tokens
        piece = text[len(self._shown) :]
        if not piece or text.endswith("\ufffd"):
            return ""
        self._tokens = tokens[self._n_shown :]
        self._n_shown, self._shown = len(self._tokens), self._tokenizer.decode(self._tokens)
        return piece

    def finish(self) -> str:
        """What was held back; the stream then starts anew."""
        rest = self._tokenizer.decode(self._tokens)[len(self._shown) :]
        self._tokens, self._n_shown, self._shown = [], 0, ""
        return rest
