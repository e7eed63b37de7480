"""Direct logit attribution: which parts of a model made a logit what it is (Elhage et al. 2021, "A Mathematical
Framework for Transformer Circuits"; nostalgebraist 2020).

    with fastgpt_c.load() as model:
        found = attribution.attribute(model, model.encode("Once upon a time, there was a little"), " girl", " boy")
        print(found.heads.round(2), found.feed_forward.round(2))

The residual stream before ln_f is a sum: the embeddings, what each head and each feed-forward part wrote, and their
biases.  With what ln_f divides by held as it was, a logit is a sum over the same parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.one_token import one_token
from fastgpt_c.errors import ContextFullError, UsageError
from fastgpt_c.native.arguments import Floats, Tokens, checked_int, token_array

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Attribution:
    """A logit, or the difference of two, as a sum of what each part of the model added to it.

    tokens        int32 [n_tokens]: the text up to and with `position`; what follows cannot matter
    position      after which the logits were taken: n_tokens - 1
    answer        the token whose logit it is
    against       the token whose logit was taken off, or None
    logit         what the model gave: logit(answer), less logit(against)
    token_embed, pos_embed   of the embeddings
    sources       [n_layer][n_head][n_tokens]: of each head, by the position that it read
    attn_bias     [n_layer]: of the bias of attention's output matrix
    feed_forward  [n_layer]: of each feed-forward part, without its bias
    ff_bias       [n_layer]: of that bias
    ln_f_bias     of the bias of the last norm
    direction     float64 [n_embd]: x @ direction is what a vector x of the residual stream adds, ln_f's scale held
    """

    tokens: npt.NDArray[np.int32]
    position: int
    answer: int
    against: int | None
    logit: float
    token_embed: float
    pos_embed: float
    sources: Doubles
    attn_bias: Doubles
    feed_forward: Doubles
    ff_bias: Doubles
    ln_f_bias: float
    direction: Doubles

    @property
    def heads(self) -> Doubles:
        """[n_layer][n_head]: what each head added, over all positions that it read."""
        summed: Doubles = self.sources.sum(axis=2)
        return summed

    @property
    def total(self) -> float:
        """The sum of all parts: logit, but for rounding."""
        parts = (self.sources, self.attn_bias, self.feed_forward, self.ff_bias)
        return self.token_embed + self.pos_embed + self.ln_f_bias + float(sum(part.sum() for part in parts))


def attribute(
    model: LoadedModel,
    tokens: Tokens,
    answer: str | int | None = None,
    against: str | int | None = None,
    position: int = -1,
) -> Attribution:
    """Decomposes the logit of answer, less that of against, after tokens[position]; one prefill.

    answer, against  token ids, or texts of one token, such as " Mary"; answer None = the likeliest token
    position         in [-n_tokens, n_tokens)

    The total differs from the logit by what the step rounds: less than 1e-3 for F32 weights; a step that rounds
    activations (Q8_0 and so on) differs by more.
    Raises UsageError (no tokens; a text that is not one token; a position outside), ContextFullError.
    """
    tokens = token_array(tokens)
    if not len(tokens):
        raise UsageError("the prompt is empty: there is nothing to attribute")
    if len(tokens) > model.n_ctx:
        raise ContextFullError(f"the prompt has {len(tokens)} tokens, more than the model's n_ctx of {model.n_ctx}")
    at = checked_int("position", position, -len(tokens), len(tokens) - 1) % len(tokens)
    tokens = tokens[: at + 1]
    seen, values, logits = _read(model, tokens)
    chosen = int(logits.argmax()) if answer is None else one_token(model, "answer", answer)
    other = None if against is None else one_token(model, "against", against)
    return _decomposed(model, tokens, seen, values, (chosen, other), logits)


def _read(model: LoadedModel, tokens: npt.NDArray[np.int32]) -> tuple[dict[str, Floats], list[Floats], Floats]:
    """Inspects the last token after the others were read: residual stream and attention of it alone; values of each
    layer [n_tokens][n_embd]; logits [n_vocab]."""
    heads = list(product(range(model.n_layer), range(model.n_head)))
    with model.session(n_ctx=len(tokens)) as session:
        if len(tokens) > 1:
            session.inspect(tokens[:-1])  # no logits
        seen = session.inspect(tokens[-1:], "hidden", "hidden_mid", "logits", heads=heads)
        values = [session.values(layer) for layer in range(model.n_layer)]
    return seen, values, seen.pop("logits")[0]


def _decomposed(
    model: LoadedModel,
    tokens: npt.NDArray[np.int32],
    seen: dict[str, Floats],
    values: list[Floats],
    pair: tuple[int, int | None],
    logits: Floats,
) -> Attribution:
    answer, against = pair
    hidden, middle = seen["hidden"][:, 0].astype(np.float64), seen["hidden_mid"][:, 0].astype(np.float64)
    direction, ln_f_bias = logit_direction(model, hidden[-1], answer, against)
    attn_bias = np.array([model.tensor(f"blk.{i}.attn_output.bias") @ direction for i in range(model.n_layer)])
    ff_bias = np.array([model.tensor(f"blk.{i}.ffn_down.bias") @ direction for i in range(model.n_layer)])
    attention = seen["attention"].reshape(model.n_layer, model.n_head, len(tokens))
    sources = np.stack([_sources(model, i, direction, values[i], attention[i]) for i in range(model.n_layer)])
    return Attribution(
        tokens=tokens,
        position=len(tokens) - 1,
        answer=answer,
        against=against,
        logit=float(logits[answer]) - (0.0 if against is None else float(logits[against])),
        token_embed=float(model.tensor("token_embd.weight", tokens[-1:].tolist())[0] @ direction),
        pos_embed=float(model.tensor("position_embd.weight", [len(tokens) - 1])[0] @ direction),
        sources=sources,
        attn_bias=attn_bias,
        feed_forward=(hidden[1:] - middle) @ direction - ff_bias,
        ff_bias=ff_bias,
        ln_f_bias=ln_f_bias,
        direction=direction,
    )


def logit_direction(model: LoadedModel, hidden: Doubles, answer: int, against: int | None) -> tuple[Doubles, float]:
    """What a vector x of the residual stream adds to logit(answer) - logit(against), where ln_f divides by what it
    divides hidden [n_embd] by: x @ direction, float64 [n_embd]; and what the bias of ln_f adds."""
    rows = model.tensor("output.weight", [answer] if against is None else [answer, against]).astype(np.float64)
    unembedding = rows[0] if against is None else rows[0] - rows[1]
    weighted = model.tensor("output_norm.weight") * unembedding
    scale = np.sqrt(hidden.var() + model.layer_norm_epsilon)
    # The norm takes off the mean of x, which is the same as taking off the mean of what x is multiplied by.
    return (weighted - weighted.mean()) / scale, float(model.tensor("output_norm.bias") @ unembedding)


def _sources(model: LoadedModel, layer: int, direction: Doubles, values: Floats, attention: Floats) -> Doubles:
    """[n_head][n_tokens]: attention [n_head][n_tokens] of the last token, times what the value there, once through the
    output matrix, adds."""
    by_head = (direction @ model.tensor(f"blk.{layer}.attn_output.weight")).reshape(model.n_head, -1)
    worth = np.einsum("thd,hd->ht", values.reshape(len(values), model.n_head, -1), by_head)
    return np.asarray(attention * worth, np.float64)


def neurons(model: LoadedModel, found: Attribution) -> Doubles:
    """float64 [n_layer][n_ff]: what each neuron added to the logit; a row sums to feed_forward of its layer."""
    with model.session(n_ctx=len(found.tokens)) as session:
        if len(found.tokens) > 1:
            session.inspect(found.tokens[:-1])
        active = session.inspect(found.tokens[-1:], sites=["ff_post"])["ff_post"][:, 0]
    writes = [found.direction @ model.tensor(f"blk.{layer}.ffn_down.weight") for layer in range(model.n_layer)]
    return np.asarray(active * np.stack(writes), np.float64)


# ---- As JSON ----


def report(model: LoadedModel, found: Attribution) -> dict[str, Any]:
    """What JSON can hold of an attribution, numbers rounded to 5 decimals; layers, heads and positions count from 0.

    {"answer": id, "answer_text": " girl", "against": id or null, "against_text": text or null, "position": int,
     "logit": float, "total": float, "token_embed": float, "pos_embed": float, "ln_f_bias": float,
     "heads": [n_layer][n_head], "attn_bias": [n_layer], "feed_forward": [n_layer], "ff_bias": [n_layer],
     "sources": [n_layer][n_head][n_tokens]}
    """
    names = ("logit", "total", "token_embed", "pos_embed", "ln_f_bias", "heads", "attn_bias", "feed_forward", "ff_bias")
    return {
        "answer": found.answer,
        "answer_text": _text(model, found.answer),
        "against": found.against,
        "against_text": None if found.against is None else _text(model, found.against),
        "position": found.position,
        **{name: np.round(getattr(found, name), 5).tolist() for name in (*names, "sources")},
    }


def _text(model: LoadedModel, token: int) -> str:
    return model.decode([token]) if model.has_tokenizer else f"token {token}"


def largest(found: Attribution, n: int) -> list[tuple[str, float]]:
    """The n parts that added most, either way, by name: "head 3.1", "feed-forward 2", "token embedding" ..."""
    heads = found.heads
    parts: list[tuple[str, float]] = [
        ("token embedding", found.token_embed),
        ("position embedding", found.pos_embed),
        ("biases", float(found.attn_bias.sum() + found.ff_bias.sum()) + found.ln_f_bias),
        *((f"head {layer}.{head}", float(heads[layer, head])) for layer, head in np.ndindex(heads.shape)),
        *((f"feed-forward {layer}", float(added)) for layer, added in enumerate(found.feed_forward)),
    ]
    return _strongest(parts)[:n]


def _strongest(parts: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return sorted(parts, key=lambda part: -abs(part[1]))
