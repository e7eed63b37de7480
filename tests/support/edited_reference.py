"""A whole run of a model in float64 that shows, and lets a test change, the values of every site."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from reference import ACTIVATIONS, GPT2, Array, linear, softmax

from fastgpt_c import SITES, Edit

Visit = Callable[[str, int, Array], Array]  # site, layer, values -> values


def run(gpt2: GPT2, tokens: ArrayLike, visit: Visit) -> Array:
    """tokens from position 0 on -> logits [n_tokens][n_vocab].  visit gets the values of each site, shaped as those of
    one layer in Session.inspect, and returns those that the rest of the run reads."""
    tokens, weights, op, norm = np.asarray(tokens), gpt2.weights, gpt2._op, gpt2._norm
    n, n_head = len(tokens), gpt2.n_head
    embed = visit("embed", 0, weights["token_embd.weight"][tokens])
    x = embed + visit("pos_embed", 0, weights["position_embd.weight"][:n])
    future = np.arange(n) > np.arange(n)[:, None]
    for layer in range(gpt2.n_layer):

        def at(site: str, values: Array, layer: int = layer) -> Array:
            return visit(site, layer, values)

        blk = f"blk.{layer}."
        x = at("resid_pre", x)
        qkv = np.split(linear(at("ln_1", norm(x, blk + "attn_norm")), *op(blk + "attn_qkv")), 3, axis=1)
        q, k, v = (at(site, part.reshape(n, n_head, -1)) for site, part in zip("qkv", qkv, strict=True))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        scores = np.where(future, -np.inf, at("scores", np.where(future, -np.inf, scores)))
        pattern = np.where(future, 0, at("pattern", softmax_of_some(scores)))
        z = at("z", np.einsum("hqk,khd->qhd", pattern, v)).reshape(n, -1)
        x = at("resid_mid", x + at("attn_out", linear(z, *op(blk + "attn_output"))))
        ff = at("ff_pre", linear(at("ln_2", norm(x, blk + "ffn_norm")), *op(blk + "ffn_up")))
        ff = at("ff_post", ACTIVATIONS[gpt2.activation](ff))
        x = at("resid_post", x + at("ff_out", linear(ff, *op(blk + "ffn_down"))))
    x = visit("ln_f", 0, norm(x, "output_norm"))
    return linear(x, weights.get("output.weight", weights["token_embd.weight"]))


def softmax_of_some(scores: Array) -> Array:
    """softmax, of which rows of -infinity throughout are 0."""
    hidden = np.isneginf(scores).all(axis=-1, keepdims=True)
    return np.where(hidden, 0, softmax(np.where(hidden, 0, scores)))


def apply(edit: Edit, values: Array) -> Array:
    """What an edit makes of all positions of a site's values, from position 0 on."""
    keys = SITES[edit.site].kind == "keys"
    values = values.copy()
    last = values.shape[1 if keys else 0] - 1 if edit.last is None else edit.last
    given = None if edit.value is None else np.asarray(edit.value, np.float64)
    for position in range(edit.first, last + 1):
        value = given if given is None or given.ndim < 2 else given[position - edit.first if len(given) > 1 else 0]
        if keys:
            for head in range(len(values)) if edit.head is None else [edit.head]:
                values[head, position] = changed(edit.op, values[head, position], value)
        elif edit.head is not None:
            values[position, edit.head] = changed(edit.op, values[position, edit.head], value)
        else:
            flat = values[position].reshape(-1)
            values[position] = changed(edit.op, flat, value).reshape(values[position].shape)
    return values


def changed(op: str, x: Array, value: Array | None) -> Array:
    """One row."""
    if op == "zero":
        return np.zeros_like(x)
    assert value is not None
    if op in ("set", "mean"):
        return np.broadcast_to(value, x.shape)
    if op == "add":
        return x + value
    if op == "scale":
        return x * value
    return x - value * (x @ value) / (value @ value)


def edited(edits: Sequence[Edit]) -> Visit:
    """A visit that makes these edits."""

    def visit(site: str, layer: int, values: Array) -> Array:
        for edit in edits:
            if (edit.site, edit.layer) == (site, layer):
                values = apply(edit, values)
        return values

    return visit
