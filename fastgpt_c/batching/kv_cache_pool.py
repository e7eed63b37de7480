"""KV caches that are reused from one sequence to the next, within a bound, and share common prefixes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgpt_c.engine.reader import common_prefix_length
from fastgpt_c.native.dtypes import kv_type_number
from fastgpt_c.native.lib import check, create, lib

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

# Caches have one of so many sizes, up to n_ctx: few, so that later sequences often find one that fits.
N_SIZES = 16

# The shortest prefix that is worth sharing between caches, in tokens.
MIN_SHARED = 32

# Shared prefixes are multiples of this long, so that prompts that differ in a word or two share the same one.
SHARED_GRANULE = 16


class Cache:
    """kv is a fastgpt_kv_cache * of n_ctx positions; it holds the given tokens, and shares the first n_prefix of them
    with other caches."""

    def __init__(self, kv: Any, n_ctx: int, tokens: list[int]) -> None:
        self.kv, self.n_ctx, self.tokens = kv, n_ctx, tokens

    @property
    def n_prefix(self) -> int:
        return int(lib.fastgpt_kv_cache_n_prefix(self.kv))

    def truncate(self, n_past: int) -> None:
        check(lib.fastgpt_kv_cache_truncate(self.kv, n_past))
        del self.tokens[n_past:]

    def n_usable(self, prompt: list[int]) -> int:
        """Length of the prefix of prompt, never all of it, that this cache need not read again; -1 where it would have
        to give up a shared prefix for that."""
        n = min(common_prefix_length(self.tokens, prompt), len(prompt) - 1)
        return n if n >= self.n_prefix else -1


class CachePool:
    """Caches in use and idle caches; together they have at most max_tokens positions.

    A cache keeps the memory that it once touched, so idle ones count, too.  An idle cache keeps its tokens, and a
    prompt that begins with them is read only from where it differs.
    """

    def __init__(self, model: LoadedModel, kv_type: str, max_tokens: int, max_idle: int | None = None) -> None:
        """max_idle  positions that idle caches may have; None = all that no cache in use needs"""
        self._model, self._type = model.handle, kv_type_number(model.handle, kv_type)
        self._max_idle = max_tokens if max_idle is None else max_idle
        self.max_tokens = max_tokens
        self._granule = -(-model.n_ctx // N_SIZES)
        self._most = min(model.n_ctx, max_tokens)  # of one cache
        self._n_left = max_tokens
        self._waiting: list[Cache] = []  # idle; the one that waits longest comes first

    def n_waiting(self, prompt: list[int], n_tokens: int) -> int:
        """Tokens of prompt in the cache that take would return; 0 for a new one."""
        return max((cache.n_usable(prompt) for cache in self._fitting(prompt, n_tokens)), default=0)

    def take(self, prompt: list[int], n_tokens: int) -> Cache | None:
        """A cache for n_tokens that holds a prefix of prompt, maybe empty, never all of it; None while too much is in
        use.

        It is the idle cache with the longest prefix of prompt, of equals the one that waits longest.  Caches of more
        than twice the size are left to longer sequences; a new one is made instead.
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
        """A cache for n_tokens that shares the given tokens, a prefix of another cache, or most of them; None while too
        much is in use."""
        n = len(tokens) // SHARED_GRANULE * SHARED_GRANULE
        if 0 <= n - cache.n_prefix < MIN_SHARED and cache.n_prefix:
            n = cache.n_prefix  # the prefix that is shared already
        n_ctx = self._room(n_tokens)
        return self._new(n_ctx, tokens[:n], lib.fastgpt_kv_cache_fork, cache.kv, n, n_ctx)

    def give_back(self, cache: Cache, tokens: list[int]) -> None:
        """The cache, which holds these tokens, is idle from now on."""
        cache.tokens = tokens
        self._waiting.append(cache)
        self._free_idle(self._max_idle)

    @property
    def n_in_use(self) -> int:
        """Positions of the caches in use."""
        return self.max_tokens - self._n_left - self._n_idle

    @property
    def _n_idle(self) -> int:
        return sum(cache.n_ctx for cache in self._waiting)

    def may_have_room(self, n_tokens: int) -> bool:
        """False where take and fork would return None for so many tokens; quicker than they are."""
        return self._room(n_tokens) <= self._n_left + self._n_idle

    def drop_idle(self) -> None:
        """Frees all idle caches."""
        self._free_idle(0)

    def _free_idle(self, n_most: int) -> None:
        """Frees idle caches, longest idle first, until they have n_most positions at most."""
        while self._n_idle > n_most:
            self._n_left += self._waiting.pop(0).n_ctx  # the last reference: its memory is freed

    def _room(self, n_tokens: int) -> int:
        return min(-(-n_tokens // self._granule) * self._granule, self._most)

    def _fitting(self, prompt: list[int], n_tokens: int) -> list[Cache]:
        n_ctx = self._room(n_tokens)
        return [one for one in self._waiting if n_ctx <= one.n_ctx <= 2 * n_ctx and one.n_usable(prompt) >= 0]

    def _new(self, n_ctx: int, tokens: list[int], create_cache: Any, *arguments: Any) -> Cache | None:
        """A cache made by a function of the library; frees idle caches for it, longest idle first."""
        n_idle = self._n_idle
        if n_ctx > self._n_left + n_idle:
            return None
        self._free_idle(n_idle - max(n_ctx - self._n_left, 0))
        kv = create(
            create_cache, *arguments, free=lib.fastgpt_kv_cache_free, sizeof=lib.fastgpt_kv_cache_sizeof
        )  # fmt: skip
        self._n_left -= n_ctx
        return Cache(kv, n_ctx, tokens)
