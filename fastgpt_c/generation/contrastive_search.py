"""Contrastive search: of the likeliest tokens, one whose hidden state differs from those of the text so far.

Each of the top_k likeliest tokens is tried: a cosine near 1 between its hidden state and that of an earlier token, the
prompt's included, means that the text repeats itself.  The token with the largest value of this is selected:

    (1 - penalty_alpha) * probability - penalty_alpha * largest cosine

Nothing is drawn.  (Su et al. 2022, arXiv 2202.06417.)  The tokens are those of transformers before version 5, where
hidden states are those after ln_f, and probabilities are softmax(logits) after penalties, bans and bias.  Unlike there,
a banned token is never selected, even where fewer than top_k remain.

A step reads all candidates, each in a fork of the text's session; the selected one's fork is kept.  So a token costs a
step of top_k sequences that share their whole prefix, one token each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastgpt_c.engine.inspection import inspect
from fastgpt_c.engine.log_probs import likeliest_possible, log_softmax
from fastgpt_c.engine.session import Session
from fastgpt_c.native.arguments import Floats

if TYPE_CHECKING:
    from fastgpt_c.engine.reader import Reader
    from fastgpt_c.generation.options import Options
    from fastgpt_c.generation.token_selector import TokenSelector


class ContrastiveSearch:
    """The tokens of one text, one after the other.

    reader    whose session reads the prompt; what it held is forgotten
    selector  says which tokens may come, and notes those that do
    """

    def __init__(self, reader: Reader, selector: TokenSelector, options: Options) -> None:
        assert options.penalty_alpha is not None
        self._reader, self._selector = reader, selector
        self._alpha, self._top_k = options.penalty_alpha, options.top_k
        self._session = reader.session  # holds the text
        self._logits: Floats | None = None  # [n_vocab] after it
        self._n_new = options.max_new_tokens
        self._states: Floats  # [n_prompt + n_new][n_embd] the directions of hidden states, as far as the text goes
        self._n_states = 0

    def next_token(self, tokens: Sequence[int]) -> int:
        """What follows tokens, which are those of the call before and what it returned.

        Raises as Session.prefill does, and UsageError where every token is banned.
        """
        if self._logits is None:
            self._logits = self._read_prompt(tokens)
        scores = self._selector.adjusted(tokens, self._logits)
        candidates: list[int] = likeliest_possible(scores, self._top_k).tolist()
        if not candidates:
            raise self._selector.refusal(self._logits)
        forks = [self._session.fork(n_ctx=len(tokens) + 1) for _ in candidates]
        found = inspect([(fork, [token]) for fork, token in zip(forks, candidates, strict=True)], "ln_f", "logits")
        states = unit_vectors(found["ln_f"])
        # Not @: NumPy's BLAS would start threads, which cost more than so small a product.
        likeness = np.einsum("te,ke->tk", self._states[: self._n_states], states).max(axis=0)
        best = int(np.argmax((1 - self._alpha) * np.exp(log_softmax(scores)[candidates]) - self._alpha * likeness))
        self._continue_in(forks, best)
        self._note_states(states[best : best + 1])
        self._logits = found["logits"][best]
        self._selector.accept(candidates[best])
        return candidates[best]

    def _read_prompt(self, tokens: Sequence[int]) -> Floats:
        """float32 [n_vocab]; notes the hidden states."""
        self._reader.forget()
        self._states = np.empty((len(tokens) + self._n_new, self._session.n_embd), np.float32)
        found = inspect([(self._session, tokens)], "ln_f", "logits", all_logits=False)
        self._note_states(unit_vectors(found["ln_f"]))
        logits: Floats = found["logits"][0]
        return logits

    def _note_states(self, states: Floats) -> None:
        """Appends unit vectors [n][n_embd] to those that candidates are compared with."""
        self._states[self._n_states : self._n_states + len(states)] = states
        self._n_states += len(states)

    def _continue_in(self, forks: list[Session], best: int) -> None:
        """Keeps the selected candidate's fork; closes the others, and the session that they were forked from."""
        for session in (self._session, *forks):
            if session is not self._reader.session and session is not forks[best]:
                session.close()
        self._session = forks[best]


def unit_vectors(rows: Floats) -> Floats:
    """rows [n][n_embd] over their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.finfo(np.float32).tiny))
