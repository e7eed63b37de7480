"""The laws of a batch's KV caches: which of them a prompt gets, what they share, and how much room they take."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import fastgpt_c
from fastgpt_c import Request
from fastgpt_c.batching import kv_cache_pool
from fastgpt_c.native.lib import ffi, lib


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [([1, 2, 3, 9], (1, 3)), ([1, 2, 8], (0, 2)), ([1, 2, 3], (0, 2)), ([7], (0, 0)), ([4, 4, 5], (2, 2))],
    ids=repr,
)
def test_which_cache_is_taken(random_model: fastgpt_c.Model, prompt: list[int], expected: tuple[int, int]) -> None:
    """The one with most of the prompt, of equals the one that waits longest; it keeps what they have in common."""
    pool = kv_cache_pool.CachePool(random_model, "f32", 3 * random_model.n_ctx)
    caches = [cache for _ in range(3) if (cache := pool.take([0], random_model.n_ctx))]
    with random_model.session() as session:
        for cache, tokens in zip(caches, ([1, 2, 4], [1, 2, 3, 5], [4, 4]), strict=True):
            lib.fastgpt_prefill(session._context, cache.kv, tokens, len(tokens), ffi.NULL)
            pool.give_back(cache, tokens)
    taken = pool.take(prompt, random_model.n_ctx)
    assert taken is caches[expected[0]]
    assert taken.tokens == prompt[: expected[1]]


def test_what_is_shared_stays_shared(long_model: fastgpt_c.Model) -> None:
    """A fork shares up to a multiple of 16, or as much as others do that share not much less; a cache that waits is not
    taken by a prompt for which it would have to leave what it shares."""
    pool, tokens = kv_cache_pool.CachePool(long_model, "f32", 10**5), list(range(97))
    first = pool.take(tokens, 200)
    assert first is not None
    with long_model.session() as session:
        lib.fastgpt_prefill(session._context, first.kv, tokens, 97, ffi.NULL)
    forks = [pool.fork(first, tokens[:n], 200) for n in (47, 60, 97)]
    assert [(len(fork.tokens), fork.n_prefix) for fork in forks if fork] == [(32, 32), (32, 32), (96, 96)]
    assert forks[2] is not None
    pool.give_back(forks[2], forks[2].tokens)
    assert pool.take([*tokens[:95], 5, 5], 200) is not forks[2]
    assert pool.take([*tokens[:96], 5], 200) is forks[2]


def test_room_is_bounded(alphabet_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """All caches together, in use or waiting, never have room for more than max_tokens_in_flight."""
    caches: set[tuple[int, int]] = set()  # id, n_ctx: those that are alive
    most, create = 0, kv_cache_pool.create

    def noted(function: Any, model: Any, n_ctx: int, *rest: Any, free: Any, sizeof: Any) -> Any:
        def forget(kv: Any) -> None:
            caches.remove((int(ffi.cast("intptr_t", kv)), n_ctx))
            free(kv)

        nonlocal most
        kv = create(function, model, n_ctx, *rest, free=forget, sizeof=sizeof)
        caches.add((int(ffi.cast("intptr_t", kv)), n_ctx))
        most = max(most, sum(n_ctx for _, n_ctx in caches))
        return kv

    monkeypatch.setattr(kv_cache_pool, "create", noted)
    prompts = [Request("a", max_new_tokens=n) for n in [3, 60, 3, 60, 20, 20, 3, 3, 60, 3] * 4]
    texts = [one.tokens for one in alphabet_model.generate_batch(prompts, max_batch=8, max_tokens_in_flight=150)]
    assert [len(one) for one in texts] == [one.changes["max_new_tokens"] for one in prompts]
    assert 100 < most <= 150
    gc.collect()
    assert not caches, "a cache outlived its batch"
