"""Logits -> token."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgpt_c._lib import check, create, ffi, float_pointer, lib
from fastgpt_c.errors import UsageError
from fastgpt_c.session import Floats, Tokens, checked_int, token_array

# As the error about a value outside of it says; fastgpt_sampler_create decides.
RANGES = {
    "temperature": "a number in [0, 1e6]",
    "top_k": "an integer in [0, 2^31)",
    "top_p": "a number in [0, 1]",
    "min_p": "a number in [0, 1]",
    "repetition_penalty": "a number in [0, 1e6]",
    "seed": "an integer in [0, 2^64)",
}


class Sampler:
    """Sampling parameters, a random generator and a history, for one sequence and one thread at a time.

    Filters apply in this order, which is that of Hugging Face transformers:

    logit_bias          {token: number added to its logit}; -inf bans a token
    repetition_penalty  logits of tokens in the history are divided (or, if negative, multiplied) by it
    temperature         logits are divided by it; 0 = greedy: the largest, the first of equals
    top_k               keep the k largest logits, and what equals the last of them; 0 = all
    top_p               keep the likeliest tokens until their probabilities sum to top_p, in (0, 1]; 0 or 1 = all
    min_p               keep tokens at least min_p times as likely as the likeliest, in [0, 1]

    seed of the PCG32 generator, in [0, 2^64); None = a fresh one, which .seed tells.  The same seed and logits give
    the same draws on every machine.  Raises UsageError for a value outside its range.
    """

    def __init__(
        self,
        n_vocab: int,
        *,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 0.95,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
    ) -> None:
        self.n_vocab = n_vocab
        self.seed = secrets.randbits(64) if seed is None else seed
        values = {
            "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
            "repetition_penalty": repetition_penalty, "seed": self.seed,
        }  # fmt: skip
        try:
            self._handle = _new_handle(n_vocab, values)
        except (TypeError, OverflowError, UsageError) as error:
            raise UsageError(_complaint(n_vocab, values)) from error
        for token, bias in (logit_bias or {}).items():
            check(
                lib.fastgpt_sampler_set_bias(self._handle, checked_int("token", token), bias),
                f"logit_bias {bias} of token {token}: tokens are in [0, {n_vocab}), a bias is below infinity",
            )

    @property
    def handle(self) -> Any:
        """The fastgpt_sampler *, alive as long as this object."""
        return self._handle

    def accept(self, tokens: Tokens) -> None:
        """Adds tokens to the history: the prompt, once, and every token taken.  UsageError for one out of range."""
        array = token_array(tokens)
        check(lib.fastgpt_sampler_accept(self._handle, ffi.from_buffer("int32_t[]", array), len(array)))

    def sample(self, logits: npt.ArrayLike) -> int:
        """Draws a token from logits [n_vocab]; UsageError for NaN, +infinity, or nothing but -infinity."""
        token = ffi.new("int32_t *")
        check(lib.fastgpt_sampler_sample(self._handle, float_pointer(self._row(logits)), token))
        return int(token[0])

    def probabilities(self, logits: npt.ArrayLike) -> Floats:
        """float32 [n_vocab]: what sample would draw from; 0 for tokens filtered out.  Draws nothing."""
        out = np.empty(self.n_vocab, np.float32)
        check(lib.fastgpt_sampler_probabilities(self._handle, float_pointer(self._row(logits)), float_pointer(out)))
        return out

    def reset(self) -> None:
        """Empties the history and starts the generator again from the seed."""
        check(lib.fastgpt_sampler_reset(self._handle))

    def _row(self, logits: npt.ArrayLike) -> npt.NDArray[Any]:
        row = np.ascontiguousarray(logits, np.float32)
        if row.shape != (self.n_vocab,):
            raise UsageError(f"logits have shape {row.shape}, not ({self.n_vocab},)")
        return row


def _new_handle(n_vocab: int, values: Mapping[str, Any]) -> Any:
    """A fastgpt_sampler *; a value that is not given is off."""
    params = ffi.new("fastgpt_sampler_params *", {"struct_size": ffi.sizeof("fastgpt_sampler_params"), **values})
    return create(
        lib.fastgpt_sampler_create, checked_int("n_vocab", n_vocab), params,
        free=lib.fastgpt_sampler_free, sizeof=lib.fastgpt_sampler_sizeof,
    )  # fmt: skip


def _complaint(n_vocab: int, values: Mapping[str, Any]) -> str:
    """Names the value that is refused even when it is the only one: so the library alone knows the rules."""
    for name, value in values.items():
        try:
            _new_handle(1, {name: value})
        except (TypeError, OverflowError, UsageError):
            return f"{name} is {value!r}, not {RANGES[name]}"
    return f"n_vocab is {n_vocab!r}, not an integer in [1, 2^31)"
