"""Logits -> token."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.defaults import MIROSTAT_ETA, TEMPERATURE, TOP_P
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Checked, Floats, Tokens, checked_int, float_array, made, shown, token_array
from fastgpt_c.native.lib import check, create, ffi, float_pointer, lib


@dataclass(frozen=True, kw_only=True)
class Adjustments(Checked):
    """What happens to logits first, in this order.  It is that of Hugging Face transformers, as far as it has these.

    logit_bias            {token: number added to its logit}; -inf bans a token
    repetition_penalty    logits of tokens in the prompt and the text are divided (or, if negative, multiplied) by it
    frequency_penalty     taken from a token's logit for each time that it is in the text, the prompt not counted
    presence_penalty      taken from the logit of every token in the text, the prompt not counted
    no_repeat_ngram_size  n: no n tokens in a row come twice, those of the prompt included
    min_new_tokens        bans every end-of-text token until there are so many

    0 turns each of them off.  Raises UsageError for a value that arguments.OPTIONS does not allow, or another name.
    """

    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    min_new_tokens: int = 0
    logit_bias: Mapping[int, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Sampling(Adjustments):
    """What happens to logits before a token is drawn: the fields of Adjustments, then, in this order, again that of
    transformers; fastgpt.h names the papers.

    temperature           logits are divided by it; 0 = greedy: the largest, the first of equals; no filter matters
    top_n_sigma           keep logits at most so many standard deviations below the largest
    top_k                 keep the k largest logits, and what equals the last of them
    top_p                 keep the likeliest tokens until their probabilities sum to top_p, in [0, 1], and at least one,
                          so 0 is greedy; 1 = all
    min_p                 keep tokens at least min_p times as likely as the likeliest, in [0, 1]
    typical_p             keep the tokens nearest to the expected surprise until they sum to typical_p; 1 = all
    mirostat_tau          bits of surprise a token to aim at; mirostat_eta is how fast.  The paper has no other filter:
                          top_p=1
    seed                  of the PCG32 generator, in [0, 2^64); None = a fresh one.  The same seed and logits give the
                          same draws on every machine

    0 turns each of them off but top_p, which 1 turns off.  fastgpt_c.Options has these fields, too.
    """

    temperature: float = TEMPERATURE
    top_k: int = 0
    top_p: float = TOP_P
    min_p: float = 0.0
    typical_p: float = 0.0
    top_n_sigma: float = 0.0
    mirostat_tau: float = 0.0
    mirostat_eta: float = MIROSTAT_ETA
    seed: int | None = None


# What fastgpt_sampler_params has by the same names.
PARAMETERS = [field.name for field in fields(Sampling) if field.name != "logit_bias"]

# Keeps the likeliest token alone.  Zero, which means the same here and elsewhere, turns top_p off in the C struct.
SMALLEST_TOP_P = float(np.finfo(np.float32).tiny)


class Sampler:
    """Parameters, a random generator and a history, for one sequence and one thread at a time.

    sampling    its parameters; keywords change single ones
    eos_tokens  what min_new_tokens bans; eos_token is one more
    seed        of its generator, also where Sampling has none

    Raises UsageError for a value outside its range.
    """

    def __init__(
        self,
        n_vocab: int,
        sampling: Sampling | None = None,
        *,
        eos_token: int | None = None,
        eos_tokens: Sequence[int] = (),
        **changes: Any,
    ) -> None:
        sampling = made(Sampling, "sampling", sampling, changes)
        self.n_vocab = n_vocab
        self.seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        checked_int("n_vocab", n_vocab, 1)
        values = {name: getattr(sampling, name) for name in PARAMETERS} | {"seed": self.seed}
        values["top_p"] = max(sampling.top_p, SMALLEST_TOP_P)
        self._handle = _new_handle(n_vocab, {**values, "eos_token": -1})
        ends = [*([] if eos_token is None else [eos_token]), *eos_tokens]
        checked_ends = [checked_int("eos_token", token, 0, n_vocab - 1) for token in ends]
        check(lib.fastgpt_sampler_set_eos_tokens(self._handle, checked_ends, len(checked_ends)))
        for token, bias in (sampling.logit_bias or {}).items():
            check(
                lib.fastgpt_sampler_set_bias(self._handle, checked_int("token", token), bias),
                f"logit_bias {bias} of token {token}: tokens are in [0, {n_vocab}), a bias is below infinity",
            )

    @property
    def handle(self) -> Any:
        """The fastgpt_sampler *, alive as long as this object."""
        return self._handle

    def allow(self, tokens: Tokens | None) -> None:
        """Allows only these tokens, from the next draw until another call; None = all.  UsageError out of range."""
        if tokens is None:
            self.allow_mask(None)
            return
        array = token_array(tokens)
        if array.size and not (array.min() >= 0 and array.max() < self.n_vocab):
            raise UsageError(f"an allowed token is outside [0, {self.n_vocab})")
        allowed = np.zeros(-(-self.n_vocab // 32) * 32, np.bool_)
        allowed[array] = True
        self.allow_mask(np.packbits(allowed, bitorder="little").tobytes())

    def allow_mask(self, mask: bytes | None) -> None:
        """The same with a bit for each token, the lowest first: ceil(n_vocab / 32) * 4 bytes."""
        n_bytes = -(-self.n_vocab // 32) * 4
        if mask is not None and not isinstance(mask, bytes | bytearray | memoryview):
            raise UsageError(f"a mask is {shown(mask)}, not bytes")
        if mask is not None and len(mask) != n_bytes:
            raise UsageError(f"a mask of {self.n_vocab} tokens has {n_bytes} bytes, not {len(mask)}")
        words = ffi.NULL if mask is None else ffi.from_buffer("uint32_t[]", mask)
        check(lib.fastgpt_sampler_set_allowed(self._handle, words))

    def accept_prompt(self, tokens: Tokens) -> None:
        """Adds the prompt's tokens to the history, once.  UsageError for one out of range."""
        self._add(lib.fastgpt_sampler_accept_prompt, tokens)

    def accept(self, tokens: Tokens) -> None:
        """Adds tokens that were taken to the history; sample does not.  UsageError for one out of range."""
        self._add(lib.fastgpt_sampler_accept, tokens)

    def _add(self, function: Any, tokens: Tokens) -> None:
        array = token_array(tokens)
        check(function(self._handle, ffi.from_buffer("int32_t[]", array), len(array)))

    def sample(self, logits: npt.ArrayLike) -> int:
        """Draws a token from logits [n_vocab]; UsageError for NaN, +infinity, or where every token is banned."""
        token = ffi.new("int32_t *")
        check(lib.fastgpt_sampler_sample(self._handle, float_pointer(self.row(logits)), token))
        return int(token[0])

    def probabilities(self, logits: npt.ArrayLike) -> Floats:
        """float32 [n_vocab]: what sample would draw from; 0 for tokens filtered out.  Draws nothing."""
        out = np.empty(self.n_vocab, np.float32)
        check(lib.fastgpt_sampler_probabilities(self._handle, float_pointer(self.row(logits)), float_pointer(out)))
        return out

    def adjusted(self, logits: npt.ArrayLike) -> Floats:
        """float32 [n_vocab]: logits after bias, penalties and bans, before temperature and filters; -infinity for what
        is banned, which may be every token.  UsageError for NaN or +infinity."""
        out = np.empty(self.n_vocab, np.float32)
        check(lib.fastgpt_sampler_adjust(self._handle, float_pointer(self.row(logits)), float_pointer(out)))
        return out

    def reset(self) -> None:
        """Empties the history and starts the generator and mirostat again; biases and allowed tokens stay."""
        check(lib.fastgpt_sampler_reset(self._handle))

    def row(self, logits: npt.ArrayLike) -> Floats:
        """logits as float32 [n_vocab], without a copy where they are that already; UsageError for another shape."""
        row = float_array("logits", logits)
        if row.shape != (self.n_vocab,):
            raise UsageError(f"logits have shape {row.shape}, not ({self.n_vocab},)")
        return row


def _new_handle(n_vocab: int, values: Mapping[str, Any]) -> Any:
    """A fastgpt_sampler *; a value that is not given is off."""
    params = ffi.new("fastgpt_sampler_params *", {"struct_size": ffi.sizeof("fastgpt_sampler_params"), **values})
    return create(
        lib.fastgpt_sampler_create, n_vocab, params,
        free=lib.fastgpt_sampler_free, sizeof=lib.fastgpt_sampler_sizeof,
    )  # fmt: skip
