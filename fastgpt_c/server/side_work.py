"""What the engine does not do: scores, embeddings, looks inside.  One piece of work at a time, in a thread beside the
engine's, whose steps take turns with the engine's in the same threads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import ClientDisconnect, Request

from fastgpt_c.engine.log_probs import TokenLogProb
from fastgpt_c.scoring.token_scores import Scorer, TokenScores, score, start_token
from fastgpt_c.server.errors import overloaded

if TYPE_CHECKING:
    from fastgpt_c.model import Model
    from fastgpt_c.server.settings import Settings

T = TypeVar("T")


class SideWork:
    """A thread with a scorer."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self._max_waiting = settings.limits.max_queue
        self._n_waiting = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fastgpt-side")
        self._scorer = Scorer(
            model, n_threads=settings.n_threads, kv_type=_kv_type(settings), deterministic=settings.deterministic
        )
        self._model = model

    async def run(self, request: Request, pieces: Sequence[Callable[[], T]]) -> list[T]:
        """The results of pieces of work, one after the other; stops between two where the client has gone.  Raises what
        they raise, HTTPError 429, ClientDisconnect."""
        if self._n_waiting >= self._max_waiting:
            raise overloaded(f"{self._n_waiting} requests are waiting already", 1)
        loop, results = asyncio.get_running_loop(), []
        self._n_waiting += 1
        try:
            for piece in pieces:
                if await request.is_disconnected():
                    raise ClientDisconnect
                results.append(await loop.run_in_executor(self._executor, piece))
        finally:
            self._n_waiting -= 1
        return results

    def scores(self, tokens: Sequence[int], top_k: int, *, bos: bool = False) -> TokenScores:
        """For pieces of work."""
        return score(self._scorer, tokens, top_k=top_k, start=start_token(self._model) if bos else None)

    def stop(self) -> None:
        """Begins no further piece of work."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _kv_type(settings: Settings) -> str:
    """F32 unless it is said otherwise, as where texts are scored without a server."""
    return "f32" if settings.kv_type == "auto" else settings.kv_type


def rows_of(scores: TokenScores) -> list[TokenLogProb]:
    """Scores as a text's log-probabilities have them."""
    return [
        TokenLogProb(
            int(scores.tokens[i]),
            float(scores.logprobs[i]) if scores.ranks[i] else math.nan,
            int(scores.ranks[i]),
            _top(scores, i),
        )
        for i in range(len(scores))
    ]


def _top(scores: TokenScores, i: int) -> tuple[tuple[int, float], ...]:
    if not scores.ranks[i]:
        return ()
    return tuple(zip(scores.top_tokens[i].tolist(), scores.top_logprobs[i].tolist(), strict=True))
