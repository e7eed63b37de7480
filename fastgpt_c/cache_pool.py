"""KV caches that serve one sequence after the other, within a bound, and spare them what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgpt_c._lib import create, lib
from fastgpt_c.generation import n_common
from fastgpt_c.number_types import type_number

if TYPE_CHECKING:
    from fastgpt_c.model import Model

# Caches come in so few sizes, the largest of them n_ctx, that one fits many sequences after its first.
N_SIZES = 16


class Cache:
    """kv is a fastgpt_kv_cache * with room for n_ctx tokens; it holds the given tokens."""

    def __init__(self, kv: Any, n_ctx: int) -> None:
        self.kv, self.n_ctx = kv, n_ctx
        self.tokens: list[int] = []

    def truncate(self, n_past: int) -> None:
        lib.fastgpt_kv_cache_truncate(self.kv, n_past)
        del self.tokens[n_past:]


class CachePool:
    """Caches in use and caches that wait for use; together they have room for max_tokens tokens at most.

    A cache keeps the memory that it once touched, so what waits counts, too.  What waits keeps its tokens, and a prompt
    that begins as they do need not be read again from its beginning.
    """

    def __init__(self, model: Model, kv_type: str, max_tokens: int) -> None:
        self._model, self._type = model.handle, type_number(kv_type)
        self._granule = -(-model.n_ctx // N_SIZES)
        self._most = min(model.n_ctx, max_tokens)  # of one cache
        self._n_left = max_tokens
        self._waiting: list[Cache] = []  # the one that waits longest comes first

    def take(self, prompt: list[int], n_tokens: int) -> Cache | None:
        """A cache with room for n_tokens that holds the beginning of prompt, or nothing, but never all of it; None
        while too much is in use.

        Of those that wait it is the one with most of prompt, and of equals the one that waits longest.  One of more
        than twice the room would keep others out: rather than take that, a new one is made.
        """
        n_ctx = min(-(-n_tokens // self._granule) * self._granule, self._most)
        fitting = [cache for cache in self._waiting if n_ctx <= cache.n_ctx <= 2 * n_ctx]
        if not fitting:
            return self._new(n_ctx)
        held = [n_common(cache.tokens, prompt) for cache in fitting]
        n_held = max(held)
        cache = fitting[held.index(n_held)]
        self._waiting.remove(cache)
        cache.truncate(min(n_held, len(prompt) - 1))
        return cache

    def give_back(self, cache: Cache, tokens: list[int]) -> None:
        """The cache, which holds these tokens, waits for another sequence."""
        cache.tokens = tokens
        self._waiting.append(cache)

    def _new(self, n_ctx: int) -> Cache | None:
        if n_ctx > self._n_left + sum(cache.n_ctx for cache in self._waiting):
            return None
        while n_ctx > self._n_left:
            self._n_left += self._waiting.pop(0).n_ctx  # nobody holds it: its memory goes back
        kv = create(
            lib.fastgpt_kv_cache_create_typed, self._model, n_ctx, self._type,
            free=lib.fastgpt_kv_cache_free, sizeof=lib.fastgpt_kv_cache_sizeof,
        )  # fmt: skip
        self._n_left -= n_ctx
        return Cache(kv, n_ctx)
