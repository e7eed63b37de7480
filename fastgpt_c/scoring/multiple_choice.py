"""Which of several continuations a model finds likeliest, as evaluation harnesses ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastgpt_c.errors import ContextFullError, UsageError
from fastgpt_c.scoring.token_scores import Scorer, TokenScores, start_token

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel


@dataclass(frozen=True)
class Continuation:
    """A text after a context.

    text       as it was given
    scores     of its tokens
    n_dropped  tokens of the context, the oldest, that n_ctx had no room for
    """

    text: str
    scores: TokenScores
    n_dropped: int

    @property
    def loglikelihood(self) -> float:
        return self.scores.total

    @property
    def per_token(self) -> float:
        return self.loglikelihood / len(self.scores)

    @property
    def per_byte(self) -> float:
        return self.loglikelihood / len(self.text.encode())


def split_tokens(model: LoadedModel, context: str, text: str) -> tuple[list[int], list[int]]:
    """Tokens of context and of the text after it, as lm-evaluation-harness splits them.

    Both are encoded together; spaces at the end of context count as part of text, since tokens begin with their space.
    An empty context is the end-of-text token.
    """
    trimmed = context.rstrip()
    if not trimmed:
        return [start_token(model)], model.encode(context + text)
    both = model.encode(context + text)
    n_context = len(model.encode(trimmed))
    return both[:n_context], both[n_context:]


def score_choices(model: LoadedModel, scorer: Scorer, context: str, texts: Sequence[str]) -> list[Continuation]:
    """Each of texts after context, which is read once.

    A context too long for n_ctx loses its oldest tokens.  Raises UsageError for an empty text, ContextFullError for one
    longer than n_ctx.
    """
    return [_score_one(model, scorer, context, text) for text in texts]


def _score_one(model: LoadedModel, scorer: Scorer, context: str, text: str) -> Continuation:
    before, tokens = split_tokens(model, context, text)
    if not text or not tokens:
        raise UsageError(f"choice {text!r} adds no token to the context")
    if len(tokens) > model.n_ctx:
        raise ContextFullError(f"a choice of {len(tokens)} tokens exceeds the model's n_ctx of {model.n_ctx}")
    n_dropped = max(len(before) + len(tokens) - (model.n_ctx + 1), 0)
    return Continuation(text, scorer.after(before[n_dropped:], tokens), n_dropped)
