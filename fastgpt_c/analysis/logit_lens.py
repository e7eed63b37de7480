"""The logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens"): what a model would say next if it ended
after each of its layers.

    with fastgpt_c.load() as model:
        seen = logit_lens.read(model, model.encode("Once upon a time"))
        print(logit_lens.report(model, seen)["texts"])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.log_probs import likeliest, log_softmax
from fastgpt_c.engine.session import Session
from fastgpt_c.errors import ContextFullError, FastGPTError, UsageError
from fastgpt_c.native.arguments import Floats, Tokens, token_array

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

Ints = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]

N_BEST = 10
ROWS_AT_ONCE = 64  # of logits
N_OF_TITLE = 12  # tokens
MAX_PARTS = 8  # tokens of a row that may share characters
SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
BASE64 = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)


@dataclass(frozen=True)
class Lens:
    """The next tokens that the residual stream predicts at each depth: index 0 is after the embeddings, index i after
    i layers, n_layer the model's output.  The answer of a position is the output's likeliest token there.

    tokens       int32 [n_tokens]
    best         int32 [n_layer + 1][n_positions][10], the likeliest next tokens, the likeliest first; fewer than 10
                 where the vocabulary has no more
    probability  float64, the same shape: theirs
    answer_probability, answer_rank  [n_layer + 1][n_positions], those of the answer; rank 1 is the likeliest
    surprisal    float64 [n_tokens - 1], bits: -log2 of the probability that token 1, 2 ... had; empty without `whole`
    attention    float32 [n_layer][n_head][n_tokens][n_tokens], empty without `whole` or where it was left out
    """

    tokens: Ints
    best: Ints
    probability: Doubles
    answer_probability: Doubles
    answer_rank: Ints
    surprisal: Doubles
    attention: Floats

    @property
    def answer(self) -> int:
        """The likeliest token after the last."""
        return int(self.best[-1, -1, 0])


def read(model: LoadedModel, tokens: Tokens, *, whole: bool = True, attention: bool = True) -> Lens:
    """Inspects one prefill of tokens; whole=False keeps only the last position (n_positions is 1), without surprisal
    and attention.  attention=False leaves that alone out.

    Raises UsageError (no tokens), ContextFullError, and FastGPTError where logits are not finite.
    """
    tokens = token_array(tokens)
    if not len(tokens):
        raise UsageError("the prompt is empty: there is nothing to inspect")
    if len(tokens) > model.n_ctx:
        raise ContextFullError(f"the prompt has {len(tokens)} tokens, more than the model's n_ctx of {model.n_ctx}")
    heads = list(product(range(model.n_layer), range(model.n_head))) if whole and attention else []
    with model.session() as session:
        seen = session.inspect(tokens, "hidden", heads=heads)
        hidden = seen["hidden"] if whole else seen["hidden"][:, -1:]
        found = _Found(session, hidden, tokens[1:] if whole else tokens[:0])
    n_tokens = len(tokens) if heads else 0
    weights = seen.get("attention", np.empty(0, np.float32))
    return Lens(tokens, **vars(found), attention=weights.reshape(model.n_layer, model.n_head, n_tokens, n_tokens))


class _Found:
    """Fields of Lens, by their names, that hidden [n_layer + 1][n_positions][n_embd] tell.  They are made of a few rows
    at a time, since all logits at once may not fit into memory."""

    def __init__(self, session: Session, hidden: Floats, next_tokens: Ints) -> None:
        shape = hidden.shape[:2]
        self.best = np.empty((*shape, min(N_BEST, session.n_vocab)), np.int32)
        self.probability = np.empty(self.best.shape)
        self.answer_probability, self.answer_rank = np.empty(shape), np.empty(shape, np.int32)
        self.surprisal = np.empty(len(next_tokens))
        for level in reversed(range(shape[0])):  # the answers come from the last
            for first in range(0, shape[1], ROWS_AT_ONCE):
                rows = slice(first, first + ROWS_AT_ONCE)
                log_p = _log_probabilities(session.unembed(hidden[level, rows]), level)
                self._fill(level, rows, np.exp(log_p))
                if level == shape[0] - 1:
                    follow = next_tokens[rows]
                    self.surprisal[rows] = -log_p[np.arange(len(follow)), follow] / np.log(2)

    def _fill(self, level: int, rows: slice, p: Doubles) -> None:
        best = self.best[level, rows] = np.array([likeliest(row, self.best.shape[2]) for row in p], np.int32)
        self.probability[level, rows] = np.take_along_axis(p, best, axis=1)
        own = np.take_along_axis(p, self.best[-1, rows, :1], axis=1)
        self.answer_probability[level, rows], self.answer_rank[level, rows] = own[:, 0], 1 + (p > own).sum(axis=1)


def _log_probabilities(logits: Floats, level: int) -> Doubles:
    """Log-probabilities of each row, in float64: finite, however unlikely a token is."""
    if not np.isfinite(logits).all():
        place = f"layer {level - 1}" if level else "the embeddings"
        raise FastGPTError(f"after {place} there are logits that are not finite numbers: the model is damaged")
    return log_softmax(logits)


# ---- In words -------------------------------------------------------------------------------------------


def visible(model: LoadedModel, token: int) -> str:
    """The text of a token as harmless shows it, and a space as ␣."""
    return harmless(model.tokenizer.decode_bytes([token]).decode("utf-8", "surrogateescape")).replace(" ", "␣")


def harmless(text: str) -> str:
    """text as it can be shown in a line: a backslash, control characters, what steers the direction of writing, and
    bytes that are not UTF-8 (as surrogateescape has them) as Python's escapes."""
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character == "\\" or not character.isprintable():
        return character.encode("unicode_escape").decode()
    return character


def report(model: LoadedModel, seen: Lens) -> dict[str, Any]:
    """What JSON can hold of a Lens that was read whole.

    tokens, best, probability, answer_probability, answer_rank, surprisal and attention as there, probabilities rounded
    to 4 digits and attention to 4 decimals; a row of attention ends at the token itself.  texts {id: visible text} of
    every token that occurs.
    """
    ids = sorted({*seen.tokens.tolist(), *seen.best.ravel().tolist()})
    return {
        "model": harmless(model.name or model.path.name),
        "type": model.type,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "tokens": seen.tokens.tolist(),
        "texts": {str(token): visible(model, token) for token in ids},
        "answer": seen.answer,
        "best": seen.best.tolist(),
        "probability": _rounded(seen.probability),
        "answer_probability": _rounded(seen.answer_probability),
        "answer_rank": seen.answer_rank.tolist(),
        "surprisal": _rounded(seen.surprisal),
        "attention": [[_triangle(head) for head in layer] for layer in seen.attention],
    }


def page_title(model: LoadedModel, seen: Lens) -> str:
    """Names the model, and the text by its beginning."""
    beginning = harmless(model.decode(seen.tokens[:N_OF_TITLE].tolist())).strip()
    return f"{harmless(model.name or model.path.name)} through the logit lens: {beginning}" + "…" * (
        len(seen.tokens) > N_OF_TITLE
    )


def page_data(model: LoadedModel, report: dict[str, Any]) -> dict[str, Any]:
    """A report as the page takes it: `inputs`, what to show of each token of the text, and attention in two characters
    a weight: a head of 128 tokens is then 16 kB."""
    attention = [[_packed(head) for head in layer] for layer in report["attention"]]
    return {**report, "inputs": inputs(model, report["tokens"]), "attention": attention}


def packed_attention(attention: Floats) -> list[list[str]]:
    """Weights [n_layer][n_head][n_tokens][n_tokens] as a page takes them."""
    return [[_packed(_triangle(head)) for head in layer] for layer in attention]


def inputs(model: LoadedModel, tokens: Sequence[int]) -> list[str]:
    """What to show of each token of a text: as visible does, but a token that is a part of a character as that
    character, and which of its parts it is (😀₁, 😀₂)."""
    texts = [model.tokenizer.decode_bytes([token]) for token in tokens]
    shown: list[str] = []
    while len(shown) < len(texts):
        n = _n_of_character(texts[len(shown) :])
        whole = b"".join(texts[len(shown) : len(shown) + n])
        label = harmless(whole.decode("utf-8", "surrogateescape")).replace(" ", "␣")
        shown += [label] if n == 1 else [label + str(part).translate(SUBSCRIPT) for part in range(1, n + 1)]
    return shown


def _n_of_character(texts: Sequence[bytes]) -> int:
    """How many tokens it takes until a character ends where a token does; 1 where that is never."""
    whole = b""
    for n, text in enumerate(texts[:MAX_PARTS], 1):
        whole += text
        try:
            whole.decode()
            return n
        except UnicodeDecodeError as error:
            if error.end < len(whole) or error.reason != "unexpected end of data":
                return 1
    return 1


def _packed(head: list[list[float]]) -> str:
    """Each weight as the root of it in 12 bits, two digits of base 64."""
    weights = np.array([weight for row in head for weight in row])
    roots = np.round(np.sqrt(weights) * 4095).astype(np.int64)
    digits: bytes = BASE64[np.stack([roots >> 6, roots & 63], axis=1).ravel()].tobytes()
    return digits.decode()


def _rounded(numbers: Doubles) -> Any:
    """Nested lists, 4 digits of each number."""
    short = [float(f"{number:.4g}") for number in numbers.ravel().tolist()]
    return np.array(short).reshape(numbers.shape).tolist()


def _triangle(attention: Floats) -> list[list[float]]:
    rows = np.round(attention.astype(np.float64), 4).tolist()
    return [row[: i + 1] for i, row in enumerate(rows)]
