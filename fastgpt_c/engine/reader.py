"""Reads rows of tokens through one session, none of them twice where a row begins as the one before it."""

from __future__ import annotations

from collections.abc import Sequence

from fastgpt_c.engine.session import Session
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, shown


class Reader:
    """Keeps a session in step with a row of tokens: what the session holds already is not read again.

    held    the tokens that are in the session at first
    n_kept  tokens that the last call found there
    n_guessed, n_right
            see speculative.SpeculativeReader
    """

    n_guessed = n_right = 0

    def __init__(self, session: Session, held: Sequence[int] = ()) -> None:
        self.session = session
        self.n_kept = 0
        self._held = list(held)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session!r})"

    def logits_after(self, tokens: Sequence[int]) -> Floats:
        """float32 [n_vocab], the logits after all of tokens; len(tokens) >= 1."""
        tokens = list(tokens)
        logits = self.read(self.new_tokens(tokens))
        self.note(tokens)
        return logits

    def read(self, new: list[int]) -> Floats:
        """float32 [n_vocab], the logits after these tokens more."""
        return self.session.decode(new[0]) if len(new) == 1 else self.session.prefill(new)

    def new_tokens(self, tokens: list[int]) -> list[int]:
        """What the session still has to read of tokens, the last one at least; it forgets what is none of them."""
        return tokens[self.keep_common(tokens, len(tokens) - 1) :]

    def keep_common(self, tokens: list[int], n_most: int) -> int:
        """Leaves in the session what it has in common with the first n_most of tokens -> how many those are."""
        n_kept = self.n_kept = min(common_prefix_length(self._held, tokens), n_most)
        # An interrupt may come at any point until note, even between a decode and that.  So _held never says more than
        # what the session holds, and the session is asked how much that is.
        del self._held[n_kept:]
        if n_kept < self.session.n_past:
            self.session.truncate(n_kept)
        return n_kept

    def note(self, tokens: list[int]) -> None:
        """The session holds exactly these tokens now; the list is the reader's own from here on."""
        self._held = tokens

    def held_prefix_length(self, tokens: list[int]) -> int:
        """How many of tokens, from the first on, the session holds."""
        return common_prefix_length(self._held, tokens)

    def release_tokens(self) -> list[int]:
        """The tokens in the session, with which another reader goes on; this one forgets them."""
        held, self._held = self._held, []
        return held

    def forget(self) -> None:
        """Empties the session."""
        self._held = []
        self.session.truncate(0)


def reader_of(given: Reader | Session) -> Reader:
    """given, or a reader of that session, which knows what the session holds."""
    if isinstance(given, Session):
        return Reader(given, given.tokens.tolist())
    if isinstance(given, Reader):
        return given
    raise UsageError(f"reader is {shown(given)}, not a Session, or a Reader of one")


def common_prefix_length(a: list[int], b: list[int]) -> int:
    """Length of the common beginning; quick where one is the beginning of the other."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])
