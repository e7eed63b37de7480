"""Many changed runs of one text, as few tokens and layers of each as its changes need.

A run is a list of edits.  What comes before its first edited position is read from a cache that all runs share, and the
layers below its first edited layer are not computed: their residual stream is that of the text itself, which is read
once.  So a sweep over heads of a 124M model computes a quarter of the tokens and half of the layers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.edits import Edit
from fastgpt_c.engine.session import Session
from fastgpt_c.engine.sites import SITES
from fastgpt_c.engine.step import Span, step
from fastgpt_c.errors import ContextFullError, UsageError
from fastgpt_c.native.arguments import Floats, Tokens, checked_int, token_array
from fastgpt_c.patching.metrics import as_metric

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

Doubles = npt.NDArray[np.float64]

MAX_TOKENS_IN_FLIGHT = 512  # as many as a step computes together


class Sweep:
    """Runs of a text with edits; use it in a "with" statement.

        with Sweep(model, tokens, metric) as sweep:
            values = sweep.run([[Edit(3, "z", "zero", head=h)] for h in range(model.n_head)])

    metric    of the logits of a run: see metrics.py
    max_tokens_in_flight
              tokens that the runs of one step have together, and positions that their caches have: memory does not grow
              with the number of runs
    progress  whether a bar shows how many are done; None = where standard error is a terminal
    deterministic
              whether a value is the same bits whatever other runs there are; else it may differ in the last digits.
              The order in which runs are given never matters

    baseline  the metric of the text without edits
    n_tokens_computed, n_layers_computed
              tokens that runs have computed so far, and the sum of the layers that each went through
    """

    def __init__(
        self,
        model: LoadedModel,
        tokens: Tokens,
        metric: object,
        *,
        max_tokens_in_flight: int = MAX_TOKENS_IN_FLIGHT,
        progress: bool | None = None,
        deterministic: bool = False,
        n_threads: int | None = None,
    ) -> None:
        self._metric = as_metric(metric)
        self._tokens = checked_text(model, tokens)
        self._max = checked_int("max_tokens_in_flight", max_tokens_in_flight, 1)
        self._progress = sys.stderr.isatty() if progress is None else progress
        self._n_layer = model.n_layer
        self._idle: list[tuple[int, Session]] = []  # a session that has the text up to a position, and that position
        self.n_tokens_computed = self.n_layers_computed = 0
        with ExitStack() as opened:
            session = opened.enter_context(model.session(len(self._tokens), n_threads, deterministic=deterministic))
            seen = session.inspect(self._tokens, "hidden", "logits")
            self._hidden = seen["hidden"]
            self.baseline = self._metric(seen["logits"] if self._metric.all_positions else seen["logits"][-1])
            self._whole = opened.enter_context(session.fork())  # so that forks at earlier positions share its memory
            self._opened = opened.pop_all()

    def run(self, runs: Sequence[Sequence[Edit]]) -> Doubles:
        """float64 [n_runs]: the metric of each.  Raises UsageError for edits that do not fit."""
        values = np.full(len(runs), self.baseline)
        order = sorted((i for i, edits in enumerate(runs) if edits), key=lambda i: self._rank(runs[i]))
        with _bar(len(order), self._progress) as bar:
            for batch in self._batches(runs, order):
                logits = self._step([runs[i] for i in batch])
                values[batch] = [self._metric(row) for row in logits]
                bar.update(len(batch))
        return values

    def _rank(self, edits: Sequence[Edit]) -> tuple[Any, ...]:
        """What the batches are sorted by: alike runs side by side, in an order that does not depend on the caller's."""
        return (*self._start(edits), *((e.site, e.layer, e.head or 0, e.first) for e in edits))

    def _start(self, edits: Sequence[Edit]) -> tuple[int, int]:
        """The first layer and the first position that these edits change."""
        for edit in edits:
            if not isinstance(edit, Edit):
                raise UsageError(f"a run has {edit!r}, not an Edit")
        layer = min(self._n_layer if e.site == "ln_f" else e.layer if SITES[e.site].has_layers else 0 for e in edits)
        first = 0 if self._metric.all_positions else min(edit.first for edit in edits)
        return min(layer, self._n_layer), min(first, len(self._tokens) - 1)

    def _batches(self, runs: Sequence[Sequence[Edit]], order: Sequence[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        n_tokens = 0
        for i in order:
            n = len(self._tokens) - self._start(runs[i])[1]
            if batch and n_tokens + n > self._max:
                yield batch
                batch, n_tokens = [], 0
            batch.append(i)
            n_tokens += n
        if batch:
            yield batch

    def _step(self, batch: Sequence[Sequence[Edit]]) -> Sequence[Floats]:
        """The logits that the metric wants of each run."""
        starts = [self._start(edits) for edits in batch]
        n_tokens = [len(self._tokens) - first for _, first in starts]
        self._close_idle(sum(n_tokens))
        sessions = [self._session(first) for _, first in starts]
        spans = [
            Span(session, self._tokens[first:], edits, layer, self._hidden[layer, first:] if layer else None)
            for session, edits, (layer, first) in zip(sessions, batch, starts, strict=True)
        ]
        logits = step(spans, all_logits=self._metric.all_positions)
        for session, (_, first) in zip(sessions, starts, strict=True):
            session.truncate(first)
            self._idle.append((first, session))
        self.n_tokens_computed += sum(n_tokens)
        self.n_layers_computed += sum(
            n * (self._n_layer - layer) for n, (layer, _) in zip(n_tokens, starts, strict=True)
        )
        return np.split(logits, np.cumsum(n_tokens)[:-1]) if self._metric.all_positions else list(logits)

    def _session(self, first: int) -> Session:
        """A session that has the tokens before first, with room for the rest."""
        for i in reversed(range(len(self._idle))):
            if self._idle[i][0] == first:
                return self._idle.pop(i)[1]
        return self._whole.fork(first, len(self._tokens))

    def _close_idle(self, n_tokens: int) -> None:
        """Until the caches of the others leave room for so many tokens."""
        while self._idle and self.n_positions + n_tokens > self._max:
            self._idle.pop(0)[1].close()

    @property
    def n_positions(self) -> int:
        """Positions of the caches that wait for the next runs, without what they share."""
        return sum(len(self._tokens) - first for first, _ in self._idle)

    def close(self) -> None:
        """Frees its caches."""
        while self._idle:
            self._idle.pop()[1].close()
        self._opened.close()

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def checked_text(model: LoadedModel, tokens: Tokens, name: str = "the text") -> npt.NDArray[np.int32]:
    """Tokens, at least one and no more than the model can read; raises UsageError, ContextFullError."""
    array = token_array(tokens)
    if not len(array):
        raise UsageError(f"{name} is empty")
    if len(array) > model.n_ctx:
        raise ContextFullError(f"{name} has {len(array)} tokens, more than the model's n_ctx of {model.n_ctx}")
    return array


class _NoBar:
    def update(self, n: int) -> None:
        pass

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _bar(n_total: int, wanted: bool) -> Any:
    """tqdm's bar, where it is wanted and installed."""
    if not wanted:
        return _NoBar()
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(total=n_total, unit="run", leave=False)
