"""How well a model predicts a text: perplexity, bits per byte."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastgpt_c.errors import UsageError
from fastgpt_c.scoring.token_scores import Scorer, TokenScores, score_windows, start_token, tokens_of

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

# The stride of transformers' guide, whose figures are for a model of n_ctx 1024.
DEFAULT_STRIDE = 512


@dataclass
class Evaluation:
    """Sums over the windows read so far.

    n_tokens    tokens of the text, of which n_read were read and n_scored were predicted
    n_bytes     bytes that the predicted ones stand for
    nats        -log of their probability
    seconds     since the first window began
    """

    n_tokens: int
    n_read: int = 0
    n_scored: int = 0
    n_bytes: int = 0
    nats: float = 0.0
    seconds: float = 0.0
    _guide_nats: float = 0.0
    _guide_n: int = 0

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.n_scored

    @property
    def perplexity(self) -> float:
        """exp of the mean of -log q(token), in which each predicted token counts once."""
        return _exp(self.nats_per_token)

    @property
    def guide_perplexity(self) -> float:
        """As in transformers' guide "Perplexity of fixed-length models": each window's mean is weighted by one less
        than the tokens that it reached, which is exact only where windows do not overlap.  For long texts and strides
        the two agree to several digits; NaN where no window counts."""
        return _exp(self._guide_nats / self._guide_n) if self._guide_n else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Bits of the predicted tokens for each of their bytes, comparable across vocabularies; NaN when the model has
        no tokenizer."""
        return self.nats / math.log(2) / self.n_bytes if self.n_bytes else math.nan

    @property
    def tokens_per_second(self) -> float:
        return self.n_read / self.seconds

    def add(self, scores: TokenScores, n_bytes: int) -> None:
        """The next window: scores of the tokens that it reached."""
        n = scores.n_scored
        self.n_read += len(scores)
        if n == 0:
            return
        self.n_scored += n
        self.n_bytes += n_bytes
        self.nats -= scores.total
        self._guide_nats -= scores.total / n * (len(scores) - 1)
        self._guide_n += len(scores) - 1


def _n_bytes(model: LoadedModel, scores: TokenScores) -> int:
    """Bytes that the tokens with a score stand for; 0 when the model has no tokenizer."""
    return len(model.tokenizer.decode_bytes(scores.tokens[scores.ranks > 0].tolist())) if model.has_tokenizer else 0


def _exp(nats: float) -> float:
    """exp(nats), or infinity where that overflows a float."""
    return math.exp(nats) if nats < math.log(sys.float_info.max) else math.inf


def evaluate(
    model: LoadedModel, tokens: Sequence[int], *, stride: int | None = None, bos: bool = False,
    n_threads: int | None = None, kv_type: str = "f32",
) -> Iterator[Evaluation]:  # fmt: skip
    """Reads tokens window by window, and yields the running Evaluation after each; the last one is the result.

    stride  see token_scores.windows; None = DEFAULT_STRIDE, or n_ctx where that is less
    bos     begin with the end-of-text token, so that the first token is predicted, too
    Raises UsageError where nothing can be predicted, and what Model.score raises.
    """
    start = [start_token(model)] if bos else []
    row = [*start, *tokens_of(tokens, model.n_vocab).tolist()]
    if min(len(row), model.n_ctx) < 2:
        raise UsageError(f"nothing to predict: {len(row)} tokens, n_ctx {model.n_ctx}; at least 2 are needed")
    result = Evaluation(n_tokens=len(row))
    step = min(DEFAULT_STRIDE, model.n_ctx) if stride is None else stride
    begin = time.perf_counter()
    with Scorer(model, n_threads=n_threads, kv_type=kv_type) as scorer:
        for scores in score_windows(scorer, row, step):
            result.add(scores, _n_bytes(model, scores))
            result.seconds = time.perf_counter() - begin
            yield result
