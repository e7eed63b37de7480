"""Composition scores: how much of what a head reads another one wrote, from the weights alone (Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits").

    with fastgpt_c.load() as model:
        scores = composition.scores(model, "k")
        print(scores[0, 3, 4, 1])  # head 3 of layer 0 into the keys of head 1 of layer 4
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgpt_c.errors import UsageError

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

Doubles = npt.NDArray[np.float64]
MODES = ("q", "k", "v")


@dataclass(frozen=True)
class HeadWeights:
    """Of a layer's heads, float64 [n_head][n_embd][n_embd / n_head] each, as y = x W: what reads queries, keys and
    values, with the norm before it folded in; and o, [n_head][n_embd / n_head][n_embd], what writes.

    The scale of ln_1 is part of q, k and v, and the mean that it takes off, too; o is centred, since no reader sees the
    mean.
    """

    q: Doubles
    k: Doubles
    v: Doubles
    o: Doubles


def head_weights(model: LoadedModel, layer: int) -> HeadWeights:
    """The weights of a layer's heads."""
    n_head, norm = model.n_head, model.tensor(f"blk.{layer}.attn_norm.weight").astype(np.float64)
    reads = model.tensor(f"blk.{layer}.attn_qkv.weight") * norm
    reads -= reads.mean(axis=1, keepdims=True)
    q, k, v = reads.reshape(3, n_head, -1, model.n_embd).transpose(0, 1, 3, 2)
    writes = model.tensor(f"blk.{layer}.attn_output.weight").astype(np.float64)
    writes -= writes.mean(axis=0)
    return HeadWeights(q, k, v, writes.T.reshape(n_head, -1, model.n_embd))


def scores(model: LoadedModel, mode: str) -> Doubles:
    """float64 [n_layer][n_head][n_layer][n_head]: from the head of the first two indices into the queries ("q"), keys
    ("k") or values ("v") of that of the last two; 0 where the second is not in a later layer.

    |A B| / (|A| |B|), Frobenius norms; A is what the first writes of what it reads (W_V W_O); B is W_Q W_K^T of the
    second, its transpose for keys, W_V W_O for values.  Random matrices score about 1 / sqrt(n_embd).
    Raises UsageError for another mode.
    """
    if mode not in MODES:
        raise UsageError(f"mode is {mode!r}, not one of {', '.join(MODES)}")
    layers = [head_weights(model, layer) for layer in range(model.n_layer)]
    writers = [_factors(layer.v, layer.o) for layer in layers]
    readers = [_reader(layer, mode) for layer in layers]
    found = np.zeros((model.n_layer, model.n_head, model.n_layer, model.n_head))
    for later in range(model.n_layer):
        for earlier in range(later):
            found[earlier, :, later] = _pairs(writers[earlier], readers[later])
    return found


@dataclass(frozen=True)
class _Product:
    """A [n_head][n_embd][n_embd] of low rank, as left (left^T left = 1), middle and right (right right^T = 1)."""

    left: Doubles
    middle: Doubles
    right: Doubles


def _reader(layer: HeadWeights, mode: str) -> _Product:
    if mode == "v":
        return _factors(layer.v, layer.o)
    first, second = (layer.q, layer.k) if mode == "q" else (layer.k, layer.q)
    return _factors(first, second.transpose(0, 2, 1))


def _factors(left: Doubles, right: Doubles) -> _Product:
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.transpose(0, 2, 1))
    return _Product(q_left, r_left @ r_right.transpose(0, 2, 1), q_right.transpose(0, 2, 1))


def _pairs(writer: _Product, reader: _Product) -> Doubles:
    """[n_head of writer][n_head of reader]: orthogonal factors at both ends change no norm."""
    between = writer.middle[:, None] @ (writer.right[:, None] @ reader.left[None]) @ reader.middle[None]
    norms = np.linalg.norm(writer.middle, axis=(1, 2))[:, None] * np.linalg.norm(reader.middle, axis=(1, 2))
    return np.asarray(np.linalg.norm(between, axis=(2, 3)) / np.where(norms == 0, 1, norms))
