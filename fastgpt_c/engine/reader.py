"""Reads sequences of tokens through one session, and reuses what they have in common with the one before."""

from __future__ import annotations

from collections.abc import Sequence

from fastgpt_c.engine.edits import Edit
from fastgpt_c.engine.session import Session
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, shown


class Reader:
    """Gives logits after a sequence of tokens; the prefix that the session holds already is not read again.

        with model.session() as session:
            reader = Reader(session)
            logits = reader.logits_after(model.encode("Once upon a time"))

    session    reads the tokens; nothing else may use it meanwhile, and one thread at a time
    held       the tokens that are in the session at first; Reader(session, session.tokens.tolist()) reuses them
    n_kept     tokens of the last call that the session held already
    edits      what changes every step, see Edit; none at first
    n_guessed, n_right
               guesses of speculative decoding, and those that were right
    """

    n_guessed = n_right = 0
    edits: Sequence[Edit] = ()

    def __init__(self, session: Session, held: Sequence[int] = ()) -> None:
        self.session = session
        self.n_kept = 0
        self._held = list(held)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session!r})"

    def logits_after(self, tokens: Sequence[int]) -> Floats:
        """float32 [n_vocab], the logits after all of tokens, at least one.  Raises as Session.prefill does; a later
        call is not affected."""
        tokens = list(tokens)
        logits = self.read(self.new_tokens(tokens))
        self.note(tokens)
        return logits

    def read(self, new: list[int]) -> Floats:
        """Appends tokens, at least one -> float32 [n_vocab], the logits after the last of them."""
        if self.edits:
            return self.session.prefill(new, edits=self.edits)
        return self.session.decode(new[0]) if len(new) == 1 else self.session.prefill(new)

    def new_tokens(self, tokens: list[int]) -> list[int]:
        """The end of tokens that the session has not read, at least the last one; the session forgets what differs."""
        return tokens[self.keep_common(tokens, len(tokens) - 1) :]

    def keep_common(self, tokens: list[int], n_most: int) -> int:
        """Truncates the session to its common prefix with the first n_most of tokens -> the length of that."""
        n_kept = self.n_kept = min(common_prefix_length(self._held, tokens), n_most)
        # An interrupt may come at any point before note, even just after a decode.  So _held is never longer than what
        # the session holds, and n_past is read from the session.
        del self._held[n_kept:]
        if n_kept < self.session.n_past:
            self.session.truncate(n_kept)
        return n_kept

    def note(self, tokens: list[int]) -> None:
        """Records that the session holds exactly these tokens; the reader keeps the list itself."""
        self._held = tokens

    def held_prefix_length(self, tokens: list[int]) -> int:
        """Length of the prefix of tokens that the session holds."""
        return common_prefix_length(self._held, tokens)

    def release_tokens(self) -> list[int]:
        """The tokens in the session, for another reader of it; this one forgets them."""
        held, self._held = self._held, []
        return held

    def forget(self) -> None:
        """Empties the session."""
        self._held = []
        self.session.truncate(0)


def reader_of(given: Reader | Session) -> Reader:
    """given itself, or a reader of that session and the tokens that it holds."""
    if isinstance(given, Session):
        return Reader(given, given.tokens.tolist())
    if isinstance(given, Reader):
        return given
    raise UsageError(f"reader is {shown(given)}, not a Session, or a Reader of one")


def common_prefix_length(a: list[int], b: list[int]) -> int:
    """Length of the common prefix; fast where one list is a prefix of the other."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])
