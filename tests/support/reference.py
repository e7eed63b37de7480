"""GPT-2 in float64 NumPy: the specification that the C library is measured against.

One sequence, no cache, one function per op; every matrix is row-major and linear weights are [n_out][n_in].
The network is that of Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Names in a Hugging Face checkpoint, and the names that GGUF has for them.
TENSORS = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
BLOCK_TENSORS = {
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip


def linear(x: Array, w: Array, b: ArrayLike = 0.0) -> Array:
    """x [n][n_in], w [n_out][n_in], b [n_out] -> x w^T + b [n][n_out]."""
    return x @ w.T + b


def layer_norm(x: Array, w: Array, b: Array, eps: float) -> Array:
    """Rows of x [n][n_embd] to mean 0 and variance 1, times w, plus b [n_embd] (Ba et al. 2016, arXiv 1607.06450)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return w * centred / np.sqrt(x.var(axis=-1, keepdims=True) + eps) + b


def gelu(x: Array) -> Array:
    """The tanh form of GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu_tanh": gelu,
    "gelu_erf": np.vectorize(lambda x: 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0))), otypes=[float]),
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x / (1.0 + np.exp(-x)),
}
# What transformers calls them.
SOURCE_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu": "gelu_erf", "relu": "relu", "silu": "silu"}


def softmax(x: Array) -> Array:
    """exp(x) over its sum along the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=-1, keepdims=True)


def attention(q: Array, k: Array, v: Array, n_head: int) -> Array:
    """Causal attention: q [n][n_embd] are the last n of the positions of k, v [n_kv][n_embd] -> [n][n_embd].

    Head h has columns [h * n_embd / n_head, (h + 1) * n_embd / n_head).
    """
    n, n_kv = len(q), len(k)
    future = np.arange(n_kv) > np.arange(n_kv - n, n_kv)[:, None]
    heads = zip(*(np.split(m, n_head, axis=1) for m in (q, k, v)), strict=True)
    scale = np.sqrt(q.shape[1] // n_head)
    return np.hstack([softmax(np.where(future, -np.inf, qh @ kh.T / scale)) @ vh for qh, kh, vh in heads])


@dataclass(frozen=True)
class GPT2:
    """Weights by GGUF name, in float64, and what their shapes do not tell."""

    weights: dict[str, Array]
    n_head: int
    eps: float
    activation: str = "gelu_tanh"

    @property
    def n_layer(self) -> int:
        """Number of transformer blocks."""
        return sum(name.endswith("attn_qkv.weight") for name in self.weights)

    def _op(self, name: str) -> tuple[Array, Array]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def logits(self, tokens: ArrayLike) -> Array:
        """tokens [n_tokens] from position 0 on -> logits [n_tokens][n_vocab]."""
        return self.run(tokens)[0]

    def run(self, tokens: ArrayLike) -> tuple[Array, list[tuple[Array, Array]]]:
        """As logits, and (keys, values), each [n_tokens][n_embd], of every layer."""
        hidden, cache = self.hidden(tokens)
        return linear(hidden, self.weights.get("output.weight", self.weights["token_embd.weight"])), cache

    def hidden(self, tokens: ArrayLike) -> tuple[Array, list[tuple[Array, Array]]]:
        """As run, but what the output matrix reads, [n_tokens][n_embd], in place of logits."""
        tokens, cache = np.asarray(tokens), []
        wte, wpe = self.weights["token_embd.weight"], self.weights["position_embd.weight"]
        x = wte[tokens] + wpe[: len(tokens)]
        for layer in range(self.n_layer):
            blk = f"blk.{layer}."
            q, k, v = np.split(linear(self._norm(x, blk + "attn_norm"), *self._op(blk + "attn_qkv")), 3, axis=1)
            x = x + linear(attention(q, k, v, self.n_head), *self._op(blk + "attn_output"))
            h = linear(self._norm(x, blk + "ffn_norm"), *self._op(blk + "ffn_up"))
            h = ACTIVATIONS[self.activation](h)
            x = x + linear(h, *self._op(blk + "ffn_down"))
            cache.append((k, v))
        return self._norm(x, "output_norm"), cache

    def _norm(self, x: Array, name: str) -> Array:
        return layer_norm(x, *self._op(name), self.eps)


def load_gguf(path: Path) -> GPT2:
    """The model in a GGUF file; half-precision tensors are widened, which is exact."""
    import gguf

    reader = gguf.GGUFReader(path)
    weights = {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    values = {key.partition(".")[2]: reader.fields[key].contents() for key in reader.fields if "gpt2." in key}
    return GPT2(
        weights,
        values["attention.head_count"],
        values["attention.layer_norm_epsilon"],
        values.get("activation", "gelu_tanh"),
    )


def load_checkpoint(folder: Path) -> GPT2:
    """The model in a Hugging Face folder: config.json and model.safetensors, whose linear weights are [n_in][n_out]."""
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    weights = {}
    for name, array in load_file(folder / "model.safetensors").items():
        stem, kind = name.removeprefix("transformer.").rsplit(".", 1)
        if stem == "lm_head":
            weights["output.weight"] = array
        elif stem in TENSORS:
            weights[f"{TENSORS[stem]}.{kind}"] = array
        else:
            layer, part = stem.removeprefix("h.").split(".", 1)
            transposed = part.split(".")[0] in ("attn", "mlp") and kind == "weight"
            weights[f"blk.{layer}.{BLOCK_TENSORS[part]}.{kind}"] = array.T if transposed else array
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    for layer in range(config["n_layer"]):
        for kind in ("weight", "bias"):
            weights[f"blk.{layer}.attn_qkv.{kind}"][: config["n_embd"]] *= query_scale(config, layer)
    activation = SOURCE_ACTIVATIONS[config["activation_function"]]
    return GPT2(weights, config["n_head"], config["layer_norm_epsilon"], activation)


def query_scale(config: dict[str, Any], layer: int) -> float:
    """What makes scores divided by sqrt(head width) those of a model that scales them in another way."""
    scale = 1.0 if config.get("scale_attn_weights", True) else math.sqrt(config["n_embd"] // config["n_head"])
    return scale / (layer + 1) if config.get("scale_attn_by_inverse_layer_idx") else scale
