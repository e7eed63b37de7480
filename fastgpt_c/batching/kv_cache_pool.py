"""KV caches that serve one sequence after the other, within a bound, and spare them what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgpt_c.engine.reader import common_prefix_length
from fastgpt_c.native.dtypes import type_number
from fastgpt_c.native.lib import check, create, lib

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

# Caches come in so few sizes, the largest of them n_ctx, that one fits many sequences after its first.
N_SIZES = 16

# A beginning of so many tokens is worth storing where several caches read it.
MIN_SHARED = 32

# Beginnings are shared up to a multiple of this: so three prompts of which two have a word more in common share one.
SHARED_GRANULE = 16


class Cache:
    """kv is a fastgpt_kv_cache * with room for n_ctx tokens; it holds the given tokens, of which it shares the first
    n_prefix with other caches."""

    def __init__(self, kv: Any, n_ctx: int, tokens: list[int]) -> None:
        self.kv, self.n_ctx, self.tokens = kv, n_ctx, tokens

    @property
    def n_prefix(self) -> int:
        return int(lib.fastgpt_kv_cache_n_prefix(self.kv))

    def truncate(self, n_past: int) -> None:
        check(lib.fastgpt_kv_cache_truncate(self.kv, n_past))
        del self.tokens[n_past:]

    def n_usable(self, prompt: list[int]) -> int:
        """Tokens of prompt, but never all of it, that need not be read again if this cache goes on with it; -1 where it
        would have to leave a shared beginning for that."""
        n = min(common_prefix_length(self.tokens, prompt), len(prompt) - 1)
        return n if n >= self.n_prefix else -1


class CachePool:
    """Caches in use and caches that wait for use; together they have room for max_tokens tokens at most.

    A cache keeps the memory that it once touched, so what waits counts, too.  What waits keeps its tokens, and a prompt
    that begins as they do need not be read again from its beginning.
    """

    def __init__(self, model: LoadedModel, kv_type: str, max_tokens: int) -> None:
        self._model, self._type = model.handle, type_number(kv_type)
        self._granule = -(-model.n_ctx // N_SIZES)
        self._most = min(model.n_ctx, max_tokens)  # of one cache
        self._n_left = max_tokens
        self._waiting: list[Cache] = []  # the one that waits longest comes first

    def n_waiting(self, prompt: list[int], n_tokens: int) -> int:
        """Tokens of prompt that the cache has that take would give; 0 for a new one."""
        return max((cache.n_usable(prompt) for cache in self._fitting(prompt, n_tokens)), default=0)

    def take(self, prompt: list[int], n_tokens: int) -> Cache | None:
        """A cache with room for n_tokens that holds the beginning of prompt, or nothing, but never all of it; None
        while too much is in use.

        Of those that wait it is the one with most of prompt, and of equals the one that waits longest.  One of more
        than twice the room would keep others out: rather than take that, a new one is made.
        """
        fitting = self._fitting(prompt, n_tokens)
        if not fitting:
            n_ctx = self._room(n_tokens)
            return self._new(n_ctx, [], lib.fastgpt_kv_cache_create_typed, self._model, n_ctx, self._type)
        cache = max(fitting, key=lambda cache: cache.n_usable(prompt))
        self._waiting.remove(cache)
        cache.truncate(cache.n_usable(prompt))
        return cache

    def fork(self, cache: Cache, tokens: list[int], n_tokens: int) -> Cache | None:
        """A cache with room for n_tokens that shares the given tokens, the first of another cache, or most of them;
        None while too much is in use."""
        n = len(tokens) // SHARED_GRANULE * SHARED_GRANULE
        if 0 <= n - cache.n_prefix < MIN_SHARED and cache.n_prefix:
            n = cache.n_prefix  # where others share already
        n_ctx = self._room(n_tokens)
        return self._new(n_ctx, tokens[:n], lib.fastgpt_kv_cache_fork, cache.kv, n, n_ctx)

    def give_back(self, cache: Cache, tokens: list[int]) -> None:
        """The cache, which holds these tokens, waits for another sequence."""
        cache.tokens = tokens
        self._waiting.append(cache)

    def _room(self, n_tokens: int) -> int:
        return min(-(-n_tokens // self._granule) * self._granule, self._most)

    def _fitting(self, prompt: list[int], n_tokens: int) -> list[Cache]:
        n_ctx = self._room(n_tokens)
        return [one for one in self._waiting if n_ctx <= one.n_ctx <= 2 * n_ctx and one.n_usable(prompt) >= 0]

    def _new(self, n_ctx: int, tokens: list[int], create_cache: Any, *arguments: Any) -> Cache | None:
        """One that a function of the library makes, once there is room; what waits longest makes it."""
        if n_ctx > self._n_left + sum(cache.n_ctx for cache in self._waiting):
            return None
        while n_ctx > self._n_left:
            self._n_left += self._waiting.pop(0).n_ctx  # nobody holds it: its memory goes back
        kv = create(
            create_cache, *arguments, free=lib.fastgpt_kv_cache_free, sizeof=lib.fastgpt_kv_cache_sizeof
        )  # fmt: skip
        self._n_left -= n_ctx
        return Cache(kv, n_ctx, tokens)
