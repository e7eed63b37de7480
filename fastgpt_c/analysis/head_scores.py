"""What heads attend to on repeated random tokens: induction, previous-token and duplicate-token scores (Olsson et al.
2022, "In-context Learning and Induction Heads", arXiv 2209.11895).

    with fastgpt_c.load() as model:
        layer, head = head_scores.measure(model).best("induction")
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Tokens, checked_int, token_array

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

Doubles = npt.NDArray[np.float64]
KINDS = ("induction", "previous_token", "duplicate_token")


@dataclass(frozen=True)
class HeadScores:
    """float64 [n_layer][n_head] each, in [0, 1]: the attention that a head pays, on average over the second time that a
    row of random tokens is read,

    induction        to the token after the one that was the same the first time
    previous_token   to the token before
    duplicate_token  to the same token the first time
    """

    induction: Doubles
    previous_token: Doubles
    duplicate_token: Doubles

    def best(self, kind: str) -> tuple[int, int]:
        """Layer and head of the largest score of a kind, such as "induction"."""
        if kind not in KINDS:
            raise UsageError(f"{kind!r} is no kind of score; there are {', '.join(KINDS)}")
        scores: Doubles = getattr(self, kind)
        layer, head = np.unravel_index(scores.argmax(), scores.shape)
        return int(layer), int(head)


def measure(
    model: LoadedModel, n_tokens: int = 50, n_texts: int = 4, seed: int = 0, row: Tokens | None = None
) -> HeadScores:
    """Scores on n_texts texts of n_tokens random tokens, each said twice, after the token that ends texts if the model
    has one.  The same seed gives the same texts.  Raises UsageError where they do not fit into the model.

    row  said twice in place of random tokens, for models too small to copy what they never saw
    """
    if row is not None:
        tokens = said_twice(model, token_array(row))
        checked_int("the number of tokens", len(row), 2, (model.n_ctx - 1) // 2)
        return HeadScores(*_scores(model, tokens, len(row)))
    least = 2  # of one token, every pattern is all three
    checked_int("n_tokens", n_tokens, least, (model.n_ctx - 1) // 2)
    checked_int("n_texts", n_texts, 1)
    rng = np.random.default_rng(seed)
    found = [_scores(model, repeated_tokens(model, n_tokens, rng), n_tokens) for _ in range(n_texts)]
    return HeadScores(*np.mean(found, axis=0))


def repeated_tokens(model: LoadedModel, n_tokens: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """int32: a row of random tokens twice, after the token that ends texts, if the model has one.  The row has no token
    twice, if the vocabulary is large enough."""
    usable = np.array([token for token in range(model.n_vocab) if token not in model.eos_tokens])
    return said_twice(model, rng.choice(usable, n_tokens, replace=n_tokens > len(usable)))


def said_twice(model: LoadedModel, row: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """int32: a row of tokens two times, after the token that ends texts, if the model has one."""
    start = [] if model.eos_token is None else [model.eos_token]
    return np.concatenate([start, row, row]).astype(np.int32)


def _scores(model: LoadedModel, tokens: npt.NDArray[np.int32], n_tokens: int) -> Doubles:
    """[3][n_layer][n_head], in the order of KINDS."""
    heads = list(product(range(model.n_layer), range(model.n_head)))
    with model.session(n_ctx=len(tokens)) as session:
        attention = session.inspect(tokens, heads=heads)["attention"]
    rows = np.arange(len(tokens) - n_tokens, len(tokens))
    means = [attention[:, rows, rows - back].mean(axis=1) for back in (n_tokens - 1, 1, n_tokens)]
    return np.reshape(means, (len(KINDS), model.n_layer, model.n_head)).astype(np.float64)
