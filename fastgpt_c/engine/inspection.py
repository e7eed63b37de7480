"""Intermediate values of a step as NumPy arrays: residual stream, attention, neurons, and all other sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgpt_c.engine.hooks import Hooks
from fastgpt_c.engine.sites import SITES, Site
from fastgpt_c.engine.step import Batch, Steppable, run_step, spans_of, token_arrays
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, checked_int
from fastgpt_c.native.lib import ffi, float_pointer

Head = tuple[int, int]  # layer, head

NAMES = ("hidden", "hidden_mid", *SITES, "logits")


def inspect(
    batch: Batch,
    *names: str,
    sites: Sequence[str] = (),
    heads: Sequence[Head] = (),
    all_logits: bool = True,
    hooks: Hooks | None = None,
) -> dict[str, Floats]:
    """Appends tokens to several sessions in one step, as fastgpt_c.step does, and returns intermediate values of it.

    names  which of these to return, each float32; layers are counted from 0:
        hidden      [n_layer + 1][n_tokens][n_embd]  the residual stream: the embeddings, then after each layer
        hidden_mid  [n_layer][n_tokens][n_embd]      the same between attention and feed-forward of each layer
        logits      [n_tokens][n_vocab]              after each token
    sites  and which of fastgpt_c.SITES, among names or apart:
        embed, pos_embed, ln_f                    [n_tokens][n_embd]; ln_f is what the output matrix reads
        resid_pre, attn_out, resid_mid, ff_out, resid_post
                                                  [n_layer][n_tokens][n_embd]  the residual stream, what is added to it
        ln_1, ln_2                                [n_layer][n_tokens][n_embd]  what attention and feed-forward read
        q, k, v, z                                [n_layer][n_tokens][n_head][n_embd / n_head]  by head
        ff_pre, ff_post                           [n_layer][n_tokens][n_ff]  neurons
        scores, pattern                           [n_layer][n_head][n_tokens][n_keys]; after a token's own position
                                                  scores are -infinity
    heads  (layer, head) pairs, both counted from 0; for them, in this order,
        attention   [n_heads][n_tokens][n_keys]      the weight that a token gives to each position of its sequence: 0
                                                     after its own, 1 in all; n_keys is n_past of the longest sequence
    all_logits  False: logits are [n_sessions][n_vocab], after the last token of each session, which is faster
    hooks       as in fastgpt_c.step; where values are changed, by edits or hooks, the changed ones are returned

    n_tokens counts the tokens of all sessions, in their order.  Values that are not asked for cost nothing, and logits
    are the same with and without them.  transformers' last hidden state is ln_f, its others are those of hidden.
    Values of layers that a Span skips are NaN; such spans must be sorted by start_layer.
    Raises as Session.prefill does, and UsageError for an unknown name or a head outside the model.
    """
    spans = spans_of(batch)
    arrays = token_arrays(spans)
    n_tokens, session = sum(map(len, arrays)), spans[0].session
    n_keys = max(span.session.n_past + len(tokens) for span, tokens in zip(spans, arrays, strict=True))
    taps = _Taps(session, n_tokens, n_keys, skips=any(span.start_layer or span.resid is not None for span in spans))
    for name in (*names, *sites):
        taps.add(name, len(spans) if name == "logits" and not all_logits else n_tokens)
    if heads:
        taps.add_heads(_checked_heads(session, heads))
    run_step(spans, arrays, taps.found.get("logits"), all_logits=all_logits, hooks=hooks, taps=taps.struct())
    return taps.found


class _Taps:
    """The arrays that a step fills, and the fastgpt_taps that tells it so."""

    def __init__(self, session: Steppable, n_tokens: int, n_keys: int, skips: bool) -> None:
        """skips  whether some values will not be written"""
        self._skips = skips
        self._session, self._n_tokens, self._n_keys = session, n_tokens, n_keys
        self.found: dict[str, Floats] = {}
        self._sites: list[tuple[int, int, Any]] = []
        self._taps = ffi.new("fastgpt_taps *", {"struct_size": ffi.sizeof("fastgpt_taps"), "n_keys": n_keys})
        self._kept: list[Any] = []

    def add(self, name: str, n_rows: int) -> None:
        """Asks for what has that name; n_rows are those of logits."""
        session, row = self._session, (self._n_tokens, self._session.n_embd)
        if not isinstance(name, str) or name not in NAMES:
            raise UsageError(f"{name!r} is unknown; it must be one of {', '.join(NAMES)}; attention comes with heads")
        if name in self.found:
            return
        if name == "logits":
            self._new(name, n_rows, session.n_vocab)
        elif name in ("hidden", "hidden_mid"):
            array = self._new(name, session.n_layer + (name == "hidden"), *row)
            setattr(self._taps, name, float_pointer(array))
        else:
            self._add_site(SITES[name])

    def add_heads(self, heads: Sequence[Head]) -> None:
        """Asks for the attention of these heads."""
        attention = self._new("attention", len(heads), self._n_tokens, self._n_keys)
        self._kept.append(ffi.new("fastgpt_head[]", heads))
        self._taps.heads, self._taps.n_heads = self._kept[-1], len(heads)
        self._taps.attention = float_pointer(attention)

    def struct(self) -> Any:
        """The fastgpt_taps *, which lives as long as this object."""
        self._kept.append(ffi.new("fastgpt_site_tap[]", self._sites))
        self._taps.sites, self._taps.n_sites = self._kept[-1], len(self._sites)
        return self._taps

    def _new(self, name: str, *shape: int) -> Floats:
        self.found[name] = np.full(shape, np.nan, np.float32) if self._skips else np.empty(shape, np.float32)
        return self.found[name]

    def _add_site(self, site: Site) -> None:
        session, n = self._session, self._n_tokens
        shape = {
            "embd": (n, session.n_embd),
            "heads": (n, session.n_head, session.n_embd // session.n_head),
            "ff": (n, session.n_ff),
            "keys": (session.n_head, n, self._n_keys),
        }[site.kind]
        array = self._new(site.name, *((session.n_layer,) if site.has_layers else ()), *shape)
        layers = array if site.has_layers else array[None]
        self._sites += [(site.number, i, float_pointer(layer)) for i, layer in enumerate(layers)]


def _checked_heads(session: Steppable, heads: Sequence[Head]) -> list[Head]:
    try:
        pairs = [(layer, head) for layer, head in heads]
    except (TypeError, ValueError):
        raise UsageError(f"heads is {heads!r}, not pairs of layer and head such as [(0, 3)]") from None
    return [
        (checked_int("layer", layer, 0, session.n_layer - 1), checked_int("head", head, 0, session.n_head - 1))
        for layer, head in pairs
    ]
