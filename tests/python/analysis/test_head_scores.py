"""Scores of heads: what they attend to on repeated tokens, and what they read of each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models import Tiny

import fastgpt_c
from fastgpt_c.analysis import composition, head_scores
from fastgpt_c.errors import UsageError


class Patterned:
    """A model whose head 0 looks one token back, head 1 to the token after the same one, head 2 to the same one."""

    n_layer, n_head, n_vocab, n_ctx, eos_token, eos_tokens = 1, 3, 60, 99, 7, (7,)

    def session(self, n_ctx: int) -> Patterned:
        assert n_ctx == 21
        return self

    def __enter__(self) -> Patterned:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def inspect(self, tokens: np.ndarray, heads: list[tuple[int, int]]) -> dict[str, np.ndarray]:
        n = len(tokens)
        assert heads == [(0, 0), (0, 1), (0, 2)] and tokens[0] == 7 and 7 not in tokens[1:]
        attention = np.zeros((3, n, n), np.float32)
        for query in range(n):
            same = [key for key in range(query) if tokens[key] == tokens[query]]
            attention[0, query, max(query - 1, 0)] = 1
            attention[1, query, same[0] + 1 if same else 0] = 1
            attention[2, query, same[0] if same else 0] = 1
        return {"attention": attention}


def test_each_score_is_that_of_its_pattern() -> None:
    """Heads that do one thing alone have 1 for it and 0 for the others."""
    model: Any = Patterned()
    found = head_scores.measure(model, n_tokens=10, n_texts=2)
    assert found.previous_token.tolist() == [[1, 0, 0]]
    assert found.induction.tolist() == [[0, 1, 0]]
    assert found.duplicate_token.tolist() == [[0, 0, 1]]
    assert found.best("induction") == (0, 1)
    again = head_scores.measure(model, row=list(range(10, 20)))
    assert again.induction.tolist() == found.induction.tolist()
    with pytest.raises(UsageError, match="'copying' is no kind"):
        found.best("copying")


def test_scores_of_a_model() -> None:
    """Within [0, 1]; the same seed gives the same, another one others; texts that do not fit are refused."""
    with fastgpt_c.load() as model:
        first, again, other = (head_scores.measure(model, 20, 1, seed) for seed in (0, 0, 1))
        for kind in head_scores.KINDS:
            scores = getattr(first, kind)
            assert scores.shape == (model.n_layer, model.n_head) and scores.min() >= 0 and scores.max() <= 1
            assert np.array_equal(scores, getattr(again, kind)) and not np.array_equal(scores, getattr(other, kind))
        with pytest.raises(UsageError, match="n_tokens is"):
            head_scores.measure(model, model.n_ctx)


@pytest.mark.parametrize("mode", composition.MODES)
def test_composition_is_that_of_the_whole_matrices(tiny: Tiny, mode: str) -> None:
    """As the paper defines it, by products of [n_embd][n_embd] matrices; 0 where the reader is not later."""
    model = tiny.model
    found = composition.scores(model, mode)
    for layer, head, later, reader in np.ndindex(found.shape):
        a, b = (composition.head_weights(model, i) for i in (layer, later))
        writes = a.v[head] @ a.o[head]
        reads = {
            "q": b.q[reader] @ b.k[reader].T, "k": b.k[reader] @ b.q[reader].T, "v": b.v[reader] @ b.o[reader],
        }[mode]  # fmt: skip
        norm = np.linalg.norm
        expected = norm(writes @ reads) / norm(writes) / norm(reads) if later > layer else 0
        assert found[layer, head, later, reader] == pytest.approx(expected, abs=1e-9)


def test_head_weights_read_what_the_model_reads(tiny: Tiny) -> None:
    """Values by the folded weights, from the residual stream whose mean and scale were taken off, are the cache's."""
    model, tokens = tiny.model, tiny.golden["tokens"].ravel()[:5]
    with model.session() as session:
        hidden = session.inspect(tokens, "hidden")["hidden"].astype(np.float64)
        for layer in range(model.n_layer):
            x = hidden[layer]
            scaled = x / np.sqrt(x.var(axis=1, keepdims=True) + model.layer_norm_epsilon)
            bias = model.tensor(f"blk.{layer}.attn_qkv.bias") + model.tensor(
                f"blk.{layer}.attn_qkv.weight"
            ) @ model.tensor(f"blk.{layer}.attn_norm.bias")
            values = np.concatenate([scaled @ v for v in composition.head_weights(model, layer).v], axis=1)
            assert np.allclose(values + bias[2 * model.n_embd :], session.values(layer), atol=1e-4)


def test_other_modes_are_refused(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="mode is 'o'"):
        composition.scores(tiny.model, "o")
