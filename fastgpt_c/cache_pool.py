"""KV caches that serve one sequence after the other, within a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgpt_c._lib import create, lib
from fastgpt_c.number_types import type_number

if TYPE_CHECKING:
    from fastgpt_c.model import Model

# Caches come in so few sizes, the largest of them n_ctx, that one fits many sequences after its first.
N_SIZES = 16


class CachePool:
    """Caches in use and caches that wait for use; together they have room for max_tokens tokens at most.

    A cache keeps the memory that it once touched, so what waits counts, too.
    """

    def __init__(self, model: Model, kv_type: str, max_tokens: int) -> None:
        self._model, self._type = model.handle, type_number(kv_type)
        self._granule = -(-model.n_ctx // N_SIZES)
        self._most = min(model.n_ctx, max_tokens)  # of one cache
        self._n_left = max_tokens
        self._waiting: list[Any] = []

    def take(self, n_tokens: int) -> Any:
        """An empty fastgpt_kv_cache * with room for n_tokens, or None while too much is in use.  A cache of more than
        twice the room would keep others out: rather than take that, a new one is made."""
        n_ctx = min(-(-n_tokens // self._granule) * self._granule, self._most)
        fitting = [kv for kv in self._waiting if n_ctx <= _n_ctx(kv) <= 2 * n_ctx]
        if fitting:
            kv = min(fitting, key=_n_ctx)
            self._waiting.remove(kv)
            return kv
        return self._new(n_ctx)

    def give_back(self, kv: Any) -> None:
        """The cache waits, empty, for another sequence."""
        lib.fastgpt_kv_cache_truncate(kv, 0)
        self._waiting.append(kv)

    def _new(self, n_ctx: int) -> Any:
        if n_ctx > self._n_left + sum(map(_n_ctx, self._waiting)):
            return None
        while n_ctx > self._n_left:
            self._n_left += _n_ctx(self._waiting.pop())  # nobody holds it: its memory goes back
        kv = create(
            lib.fastgpt_kv_cache_create_typed, self._model, n_ctx, self._type,
            free=lib.fastgpt_kv_cache_free, sizeof=lib.fastgpt_kv_cache_sizeof,
        )  # fmt: skip
        self._n_left -= n_ctx
        return kv


def _n_ctx(kv: Any) -> int:
    return int(lib.fastgpt_kv_cache_n_ctx(kv))
