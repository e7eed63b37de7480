"""Completions in OpenAI's form: what a choice of /v1/completions says, in records of a batch file and over HTTP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastgpt_c.engine.log_probs import TokenLogProb
from fastgpt_c.generation.completion import Completion

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel


def choice(index: int, completion: Completion, model: LoadedModel) -> dict[str, Any]:
    """A text as a choice."""
    logprobs = completion.logprobs
    return {
        "index": index,
        "text": completion.text,
        "logprobs": None if logprobs is None else LogProbLists(model).of(logprobs),
        "finish_reason": finish_reason(completion),
        "seed": completion.seed,
    }


def finish_reason(completion: Completion) -> str:
    """OpenAI knows no other two."""
    return "length" if completion.finish_reason == "length" else "stop"


class LogProbLists:
    """Four lists with an element for each token, of a text that comes in parts.

    offset  characters before the first token; text_offset counts from there those that are complete before a token
    """

    def __init__(self, model: LoadedModel, offset: int = 0) -> None:
        self._model, self._offset = model, offset
        self._decoder = model.tokenizer.stream() if model.has_tokenizer else None

    def of(self, rows: Sequence[TokenLogProb]) -> dict[str, Any]:
        """Of the next tokens; a log-probability that is NaN, of a text's first token, is null."""
        offsets = []
        for row in rows:
            offsets.append(self._offset)
            self._offset += len(self._decoder.push(row.token)) if self._decoder else 0
        return {
            "tokens": [token_text(row.token, self._model) for row in rows],
            "token_logprobs": [None if math.isnan(row.logprob) else row.logprob for row in rows],
            "top_logprobs": [None if math.isnan(row.logprob) else top_logprobs(row, self._model) for row in rows],
            "text_offset": offsets,
        }


def top_logprobs(row: TokenLogProb, model: LoadedModel) -> dict[str, float]:
    """By text, likeliest first; with the token itself, as OpenAI does, so there may be one more than asked for.  Of
    tokens with the same text the likeliest counts."""
    values: dict[str, float] = {}
    for token, logprob in (*row.top, (row.token, row.logprob)):
        values.setdefault(token_text(token, model), logprob)
    return values


def token_text(token: int, model: LoadedModel) -> str:
    """As OpenAI writes tokens; "token_id:5" for a model without tokenizer."""
    if not model.has_tokenizer:
        return f"token_id:{token}"
    data = model.tokenizer.decode_bytes([token])
    try:
        return data.decode()
    except UnicodeDecodeError:  # a part of a character
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def usage(n_prompt: int, n_new: int) -> dict[str, Any]:
    """Tokens that were read and written."""
    return {"prompt_tokens": n_prompt, "completion_tokens": n_new, "total_tokens": n_prompt + n_new}
