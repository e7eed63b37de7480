"""Tokens -> text, as soon as its characters are complete and no stop string can begin in it."""

from __future__ import annotations

from collections.abc import Sequence

from fastgpt_c.engine.model import LoadedModel
from fastgpt_c.generation.stop_strings import StopFinder


class Transcript:
    """Tokens in, text out up to the first stop string; a model without tokenizer has no text."""

    def __init__(self, model: LoadedModel, stop: Sequence[str]) -> None:
        self._decoder = model.tokenizer.stream() if model.has_tokenizer else None
        self._stopper = StopFinder(stop)
        self._shown: list[str] = []

    def push(self, token: int) -> str:
        """The piece of text that becomes certain with this token, often empty."""
        if not self._decoder:
            return ""
        return self._show(self._stopper.push(self._decoder.push(token)))

    def finish(self) -> str:
        """The rest, now that no more tokens come."""
        if not self._decoder or self.stopped:
            return ""
        return self._show(self._stopper.push(self._decoder.finish()) + self._stopper.finish())

    def _show(self, piece: str) -> str:
        self._shown.append(piece)
        return piece

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._stopper.found

    @property
    def text(self) -> str:
        """All that was shown."""
        return "".join(self._shown)
