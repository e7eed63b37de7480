"""Speculative decoding: guesses of the next tokens are read with the last one, and kept while they are right.

A step of a few tokens takes about as long as a step of one, since reading the weights dominates both.  A guess is
right if the sampler draws the same token from the model's own logits.  So the text is that of plain decoding, greedy or
drawn, with any filter: bit for bit in deterministic sessions; in others a step of several tokens adds in another order,
and two tokens that are about equally likely may change places.
(Leviathan et al. 2023, arXiv 2211.17192, without its resampling, which keeps the distribution but not the draws.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastgpt_c.engine.reader import Reader
from fastgpt_c.engine.session import Session
from fastgpt_c.errors import UsageError
from fastgpt_c.generation.options import Options
from fastgpt_c.native.arguments import Floats
from fastgpt_c.native.lib import ffi, lib

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

N_DRAFT = 4  # tokens that a draft model guesses
N_GRAMS = (3, 2)  # lengths of the endings that prompt lookup looks for, the longest first

Guess = Callable[[list[int]], list[int]]


def guessing(reader: Reader, model: LoadedModel, options: Options) -> SpeculativeReader:
    """Takes over the session of reader, to guess as draft or prompt_lookup say.

    Raises UsageError for a draft model of another vocabulary.
    """
    guess: Guess
    if options.draft is not None:
        guess = DraftModel(options.draft, model, options.n_threads)
    else:
        guess = PromptLookup(options.prompt_lookup)
    return SpeculativeReader(reader.session, guess, reader.release_tokens())


class SpeculativeReader(Reader):
    """A Reader that also reads ahead the tokens that guess(tokens) predicts.

    n_guessed, n_right  guesses so far, and those of them that were drawn
    """

    def __init__(self, session: Session, guess: Guess, held: Sequence[int] = ()) -> None:
        super().__init__(session, held)
        self.n_guessed = self.n_right = 0
        self._guess = guess
        self._rows: list[Floats] = []  # logits after the beginnings of _held, the last one after all of it

    def logits_after(self, tokens: Sequence[int]) -> Floats:
        """float32 [n_vocab], the logits after all of tokens; len(tokens) >= 1."""
        tokens = list(tokens)
        n_ahead = len(self._held) - len(tokens)  # guesses that are not verified yet
        if 0 <= n_ahead < len(self._rows) and self._held[: len(tokens)] == tokens:
            self.n_right += 1
            return self._rows[len(self._rows) - 1 - n_ahead]
        self._rows = []
        new = self.new_tokens(tokens)
        room = self.session.n_ctx - len(tokens)
        guessed = self._guess(tokens)[:room] if len(new) == 1 else []
        logits = self.session.prefill(new + guessed, all_logits=True) if guessed else self.read(new)[None]
        self.note(tokens + guessed)
        self._rows = list(logits)
        self.n_guessed += len(guessed)
        return self._rows[0]

    def forget(self) -> None:
        """Empties the session."""
        self._rows = []
        super().forget()


class PromptLookup:
    """Guesses that the last tokens are followed by what followed them the last time.

    n_most  guesses at once

    (Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding)
    """

    def __init__(self, n_most: int) -> None:
        self._n_most = n_most
        self._n_indexed = 0
        self._next: dict[tuple[int, ...], int] = {}  # n-gram -> the position after it

    def __call__(self, tokens: list[int]) -> list[int]:
        self._index(tokens)
        for n in N_GRAMS:
            at = self._next.get(tuple(tokens[-n:]))
            if at is not None:
                return tokens[at : at + self._n_most]
        return []

    def _index(self, tokens: list[int]) -> None:
        """Indexes every n-gram but the last one, which nothing follows yet."""
        if len(tokens) < self._n_indexed:  # not a continuation of the text so far
            self._n_indexed, self._next = 0, {}
        for position in range(self._n_indexed, len(tokens)):
            for n in N_GRAMS:
                if position >= n:
                    self._next[tuple(tokens[position - n : position])] = position
        self._n_indexed = len(tokens)


class DraftModel:
    """Guesses the likeliest tokens of another, smaller model with the same vocabulary."""

    def __init__(self, draft: LoadedModel, model: LoadedModel, n_threads: int | None) -> None:
        if _vocabulary(draft) != _vocabulary(model):
            raise UsageError(f"the draft model {draft.path} has another vocabulary than {model.path}")
        self._reader = Reader(draft.session(n_threads=n_threads))

    def __call__(self, tokens: list[int]) -> list[int]:
        text, room = list(tokens), self._reader.session.n_ctx - len(tokens)
        for _ in range(min(N_DRAFT, room)):
            text.append(int(self._reader.logits_after(text).argmax()))
        return text[len(tokens) :]


def _vocabulary(model: LoadedModel) -> tuple[int, bytes]:
    """n_vocab and the texts of all tokens, end to end."""
    tokens = lib.fastgpt_model_tokens(model.handle)
    return model.n_vocab, bytes(ffi.buffer(tokens.text, tokens.offsets[tokens.n])) if tokens.n else b""
