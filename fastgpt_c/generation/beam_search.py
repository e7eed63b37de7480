"""Beam search: several continuations grow side by side; those that are the likeliest as a whole are kept.

The rules, down to the order of checks, are those of transformers' generate(num_beams=..., do_sample=False),
so the same beams come out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.log_probs import likeliest_possible, log_softmax
from fastgpt_c.engine.reader import Reader
from fastgpt_c.engine.sampler import Adjustments, Sampler, Sampling
from fastgpt_c.engine.session import Session
from fastgpt_c.engine.step import step
from fastgpt_c.errors import UsageError
from fastgpt_c.generation.options import Options
from fastgpt_c.generation.prompt import Prompt, prompt_tokens
from fastgpt_c.generation.token_selector import explained
from fastgpt_c.native.arguments import Floats, checked_int

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel


@dataclass(frozen=True)
class Beams(Adjustments):
    """How to search: the fields of sampler.Adjustments, which change the log-probabilities of each beam's next tokens
    (these need not sum to 1 any more, as in transformers), and

    num_beams       continuations that grow side by side; a step reads one token of each
    max_new_tokens  a continuation ends there, or with the end-of-text token
    length_penalty  a continuation's score is the sum of its log-probabilities over n_tokens ** length_penalty: above 0
                    long ones are preferred, below 0 short ones; in [-50, 50]
    early_stopping  True: end as soon as num_beams continuations have ended; False: when the best growing one would not
                    get among them if it ended now; "never": when it could not at any length
    """

    num_beams: int = 4
    max_new_tokens: int = 100
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_int("max_new_tokens", self.max_new_tokens, 1)

    def score(self, log_probability: float, n_new: int) -> float:
        """What continuations are compared by in the end."""
        return float(log_probability / n_new**self.length_penalty)


@dataclass(frozen=True)
class Beam:
    """A continuation that has ended.

    text           without the prompt; "" for a model without tokenizer
    tokens         token ids, without the end-of-text token
    finish_reason  "length" or "eos"
    score          see Beams.length_penalty; natural-log units
    """

    text: str
    tokens: list[int]
    finish_reason: str
    score: float


@dataclass(frozen=True)
class _Growing:
    """A continuation so far, its log-probability, and the growing one of the step before that it continues."""

    tokens: tuple[int, ...]
    log_probability: float
    parent: int


def search(model: LoadedModel, prompt: Prompt, beams: Beams, n_threads: int | None) -> list[Beam]:
    """What Model.beam_search does."""
    tokens = prompt_tokens(model, prompt, Options(max_new_tokens=beams.max_new_tokens))
    return [_beam(model, score, found) for score, found in _Search(model, tokens, beams, n_threads).run()]


def _beam(model: LoadedModel, score: float, found: tuple[int, ...]) -> Beam:
    ended = found[-1] in model.eos_tokens
    tokens = list(found[:-1] if ended else found)
    return Beam(model.decode(tokens) if model.has_tokenizer else "", tokens, "eos" if ended else "length", score)


class _Search:
    """One search.  prompt [n_prompt], at least one token."""

    def __init__(self, model: LoadedModel, prompt: Sequence[int], beams: Beams, n_threads: int | None = None) -> None:
        if 2 * beams.num_beams > model.n_vocab:
            raise UsageError(
                f"num_beams is {beams.num_beams}; n_vocab is {model.n_vocab}, and has to be twice as large"
            )
        self._model, self._prompt, self._beams, self._n_threads = model, list(prompt), beams, n_threads
        self._sampler = _sampler(model, beams)
        self._ended: list[tuple[float, tuple[int, ...]]] = []  # score, tokens; best first
        self._growing = [_Growing((), 0.0, 0)]

    def run(self) -> list[tuple[float, tuple[int, ...]]]:
        """(score, tokens) of the continuations that have ended, with the end-of-text token, best first."""
        with ExitStack() as stack:
            n_ctx = len(self._prompt) + self._beams.max_new_tokens
            caches = _Caches(self._model.session(n_ctx, self._n_threads), self._prompt, stack)
            while self._growing:
                texts = [(beam.parent, self._prompt + list(beam.tokens)) for beam in self._growing]
                self._advance(caches.logits_after(texts))
        if not self._ended:
            raise UsageError("logit_bias and bans leave no token to go on with")
        return self._ended

    def _advance(self, logits: Floats) -> None:
        """One token more; nothing grows any more when the search is over, or every token is banned.
        logits [n_growing][n_vocab]."""
        candidates = list(self._candidates(logits))
        self._end([beam for beam in candidates[: self._beams.num_beams] if self._ends(beam)])
        self._growing = [beam for beam in candidates if not self._ends(beam)][: self._beams.num_beams]
        if self._growing and self._is_over():
            self._growing = []

    def _candidates(self, logits: Floats) -> Iterator[_Growing]:
        """The likeliest continuations, best first: twice num_beams, so that enough go on whichever of them end."""
        rows = zip(self._growing, log_softmax(logits), strict=True)
        sums = np.concatenate([beam.log_probability + self._adjusted(beam.tokens, row) for beam, row in rows])
        for i in likeliest_possible(sums, 2 * self._beams.num_beams).tolist():
            parent, token = divmod(i, logits.shape[1])
            yield _Growing((*self._growing[parent].tokens, token), float(sums[i]), parent)

    def _adjusted(self, tokens: Sequence[int], row: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Log-probabilities [n_vocab] of what follows these new tokens."""
        self._sampler.reset()
        self._sampler.accept_prompt(self._prompt)
        self._sampler.accept(tokens)
        with explained(row):
            return self._sampler.adjusted(row).astype(np.float64)

    def _ends(self, beam: _Growing) -> bool:
        return beam.tokens[-1] in self._model.eos_tokens or len(beam.tokens) == self._beams.max_new_tokens

    @property
    def _is_full(self) -> bool:
        return len(self._ended) == self._beams.num_beams

    def _end(self, beams: list[_Growing]) -> None:
        """They join those that have ended; num_beams of all are kept."""
        new = [(self._beams.score(beam.log_probability, len(beam.tokens)), beam.tokens) for beam in beams]
        self._ended = sorted([*self._ended, *new], key=lambda one: -one[0])[: self._beams.num_beams]

    def _is_over(self) -> bool:
        """Whether the growing ones are not worth while any more."""
        if not self._is_full:
            return False
        if self._beams.early_stopping is True:
            return True
        best, n_new = self._growing[0], len(self._growing[0].tokens)
        if self._beams.early_stopping == "never" and self._beams.length_penalty > 0:
            n_new = self._beams.max_new_tokens
        return self._beams.score(best.log_probability, n_new) <= self._ended[-1][0]


class _Caches:
    """A session for each beam, which begin with one prompt; that is read and stored once.

    A beam goes on in the session of the one that it continues.  Where two continue the same one, the second takes a
    session that nobody goes on in, and reads anew what differs there.
    """

    def __init__(self, first: Session, prompt: list[int], stack: ExitStack) -> None:
        self._prompt, self._stack = prompt, stack
        self._readers = [Reader(stack.enter_context(first))]
        self._places = [0]  # of the beams of the step before: the numbers of their sessions

    def logits_after(self, texts: Sequence[tuple[int, list[int]]]) -> Floats:
        """float32 [n_texts][n_vocab]; each text comes with the number of the beam that it continues."""
        self._places = self._find_places(texts)
        readers = [(self._readers[place], text) for place, (_, text) in zip(self._places, texts, strict=True)]
        logits = step([(reader.session, reader.new_tokens(text)) for reader, text in readers])
        for reader, text in readers:
            reader.note(text)
        return logits

    def _find_places(self, texts: Sequence[tuple[int, list[int]]]) -> list[int]:
        """The number of each text's session."""
        places: dict[int, int] = {}
        for i, (parent, _) in enumerate(texts):
            if self._places[parent] not in places.values():
                places[i] = self._places[parent]
        for i, (_, text) in enumerate(texts):
            if i not in places:
                free = [place for place in range(len(self._readers)) if place not in places.values()]
                near = max(free, key=lambda place: self._readers[place].n_in_common(text), default=None)
                places[i] = self._fork() if near is None else near
        return [places[i] for i in range(len(texts))]

    def _fork(self) -> int:
        """The number of a new session with the prompt."""
        session = self._readers[0].session.fork(len(self._prompt))
        self._readers.append(Reader(self._stack.enter_context(session), self._prompt))
        return len(self._readers) - 1


def _sampler(model: LoadedModel, beams: Beams) -> Sampler:
    """It knows what becomes of logits, and draws nothing here.  Raises UsageError for fields out of range."""
    adjustments = Sampling(**{field.name: getattr(beams, field.name) for field in fields(Adjustments)})
    return Sampler(model.n_vocab, adjustments, eos_tokens=model.eos_tokens)
