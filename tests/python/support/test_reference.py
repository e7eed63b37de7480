"""The reference equals transformers: so a test against the reference is a test against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import reference

if TYPE_CHECKING:
    from models import Tiny


def test_reference_equals_transformers(checkpoint: Path) -> None:
    """Logits at every position and the greedy continuation, straight from the checkpoint that transformers saved."""
    model = reference.load_checkpoint(checkpoint)
    with np.load(checkpoint / "golden.npz") as golden:
        np.testing.assert_allclose(model.logits(golden["tokens"]), golden["logits"], rtol=0, atol=1e-4)
        n_prompt, greedy = golden["n_prompt"], golden["greedy"]
        text = np.concatenate([golden["tokens"][:n_prompt], greedy])
    np.testing.assert_array_equal(model.logits(text[:-1])[n_prompt - 1 :].argmax(axis=-1), greedy)


def test_file_has_the_weights_of_the_checkpoint(tiny: Tiny, checkpoint: Path) -> None:
    """Converting to F32 changes no weight, but for the rounding of queries that it scales, and leaves none out."""
    expected, file = reference.load_checkpoint(checkpoint), reference.load_gguf(tiny.path)
    assert (file.n_head, file.activation) == (expected.n_head, expected.activation)
    assert file.weights.keys() == expected.weights.keys()
    assert file.eps == pytest.approx(expected.eps, rel=1e-6)
    for name, weight in expected.weights.items():
        np.testing.assert_allclose(file.weights[name], weight, rtol=2**-23 * (".attn_qkv." in name), err_msg=name)


@pytest.mark.parametrize("n_last", [1, 3, 8])
def test_attention_of_the_last_positions(n_last: int) -> None:
    """Queries of the last positions alone give the last rows: what a cache relies on."""
    q, k, v = np.random.default_rng(0).standard_normal((3, 8, 12))
    whole = reference.attention(q, k, v, n_head=3)
    np.testing.assert_allclose(reference.attention(q[-n_last:], k, v, n_head=3), whole[-n_last:], rtol=1e-12)
