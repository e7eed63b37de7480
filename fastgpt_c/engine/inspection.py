"""Intermediate values of a step as NumPy arrays: residual stream, outputs of the norms, attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastgpt_c.engine.step import Steppable, run_step, token_arrays
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, Tokens, checked_int
from fastgpt_c.native.lib import ffi, float_pointer

Head = tuple[int, int]  # layer, head

NAMES = ("hidden", "hidden_mid", "ln_1", "ln_2", "ln_f", "logits")


def inspect(
    batch: Sequence[tuple[Steppable, Tokens]], *names: str, heads: Sequence[Head] = (), all_logits: bool = True
) -> dict[str, Floats]:
    """Appends tokens to several sessions in one step, as fastgpt_c.step does, and returns intermediate values of it.

    names  which of these to return, each float32; layers are counted from 0:
        hidden      [n_layer + 1][n_tokens][n_embd]  the residual stream: the embeddings, then after each layer
        hidden_mid  [n_layer][n_tokens][n_embd]      the same between attention and feed-forward of each layer
        ln_1, ln_2  [n_layer][n_tokens][n_embd]      outputs of the norms: the inputs of attention and of feed-forward
        ln_f        [n_tokens][n_embd]               output of the last norm: the input of the output matrix
        logits      [n_tokens][n_vocab]              after each token
    heads  (layer, head) pairs, both counted from 0; for them, in this order,
        attention   [n_heads][n_tokens][n_keys]      the weight that a token gives to each position of its sequence: 0
                                                     after its own, 1 in all; n_keys is n_past of the longest sequence
    all_logits  False: logits are [n_sessions][n_vocab], after the last token of each session, which is faster

    n_tokens counts the tokens of all sessions, in their order.  Values that are not asked for cost nothing, and logits
    are the same with and without them.  transformers' last hidden state is ln_f, its others are those of hidden.
    Raises as Session.prefill does, and UsageError for an unknown name or a head outside the model.
    """
    arrays = token_arrays(batch)
    shapes = _shapes(batch, sum(map(len, arrays)))
    if not all_logits:
        shapes["logits"] = (len(batch), batch[0][0].n_vocab)
    found = {name: np.empty(_known(name, shapes), np.float32) for name in names}
    taps = ffi.new("fastgpt_taps *", {"struct_size": ffi.sizeof("fastgpt_taps")})
    if heads:
        wanted = ffi.new("fastgpt_head[]", _checked_heads(batch[0][0], heads))
        n_keys = max(session.n_past + len(tokens) for (session, _), tokens in zip(batch, arrays, strict=True))
        found["attention"] = np.empty((len(heads), sum(map(len, arrays)), n_keys), np.float32)
        taps.heads, taps.n_heads, taps.n_keys = wanted, len(heads), n_keys
    for name, array in found.items():
        if name != "logits":
            setattr(taps, name, float_pointer(array))
    run_step(batch, arrays, found.get("logits"), all_logits=all_logits, taps=taps)
    return found


def _shapes(batch: Sequence[tuple[Steppable, Tokens]], n_tokens: int) -> dict[str, tuple[int, ...]]:
    session = batch[0][0]
    n_layer, row = session.n_layer, (n_tokens, session.n_embd)
    shapes = ((n_layer + 1, *row), (n_layer, *row), (n_layer, *row), (n_layer, *row), row, (n_tokens, session.n_vocab))
    return dict(zip(NAMES, shapes, strict=True))


def _known(name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    if not isinstance(name, str) or name not in shapes:
        raise UsageError(f"{name!r} is unknown; it must be one of {', '.join(NAMES)}; attention comes with heads")
    return shapes[name]


def _checked_heads(session: Steppable, heads: Sequence[Head]) -> list[Head]:
    try:
        pairs = [(layer, head) for layer, head in heads]
    except (TypeError, ValueError):
        raise UsageError(f"heads is {heads!r}, not pairs of layer and head such as [(0, 3)]") from None
    return [
        (checked_int("layer", layer, 0, session.n_layer - 1), checked_int("head", head, 0, session.n_head - 1))
        for layer, head in pairs
    ]
