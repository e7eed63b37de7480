"""Prompt -> text: reads the prompt, then samples token after token until something ends it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastgpt_c.errors import ContextFullError, UsageError
from fastgpt_c.sampling import Sampler
from fastgpt_c.session import Floats, Session, check_kv_type, checked_n_threads, token_array

if TYPE_CHECKING:
    from fastgpt_c.model import Model

Prompt = str | Sequence[int]

OVERFLOW_MODES = ("error", "truncate", "slide")


@dataclass(frozen=True)
class Options:
    """How to generate.

    max_new_tokens  stop after so many tokens ("length")
    temperature, top_k, top_p, min_p, repetition_penalty, logit_bias, seed
                    see sampling.Sampler
    stop            strings that end the text ("stop"); they are not part of it
    on_overflow     what to do when prompt + max_new_tokens exceeds n_ctx: "error" refuses before the first token,
                    "truncate" drops the oldest tokens of the prompt, "slide" generates until the context is full, then
                    forgets its older half and reads the rest again (GPT-2's positions are absolute)
    kv_cache        False computes everything anew for each token, to teach and to measure
    kv_type         what the KV cache holds: "f32", "f16" or "bf16"
    deterministic   the same text to the bit with or without KV cache, alone or in a batch; see session.Session
    n_threads       None = the model's
    """

    max_new_tokens: int = 100
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    stop: Sequence[str] = ()
    on_overflow: str = "error"
    kv_cache: bool = True
    kv_type: str = "f32"
    deterministic: bool = False
    n_threads: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        if self.max_new_tokens < 0:
            raise UsageError(f"max_new_tokens is {self.max_new_tokens}; it must not be negative")
        if self.on_overflow not in OVERFLOW_MODES:
            raise UsageError(f"on_overflow is {self.on_overflow!r}; it must be one of {', '.join(OVERFLOW_MODES)}")
        if not all(self.stop):
            raise UsageError("a stop string is empty")
        check_kv_type(self.kv_type)
        checked_n_threads(self.n_threads)

    def sampler(self, n_vocab: int) -> Sampler:
        """A sampler with these parameters."""
        return Sampler(
            n_vocab,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            logit_bias=self.logit_bias,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Completion:
    """What was generated.

    text            the continuation, without the prompt and without what ended it
    tokens          token ids, without the end-of-text token
    finish_reason   "length", "stop" (a stop string) or "eos" (the end-of-text token)
    n_prompt        tokens of the prompt that were read
    seed            what reproduces it
    prefill_seconds until the logits after the prompt; decode_seconds from there to the end
    n_reused        tokens of the prompt that a KV cache held already, so that they were not read again
    """

    text: str
    tokens: list[int]
    finish_reason: str
    n_prompt: int
    seed: int
    prefill_seconds: float
    decode_seconds: float
    n_reused: int = 0


class Reader:
    """Keeps a session in step with a row of tokens: what the session holds already is not read again.

    held    the tokens that are in the session at first
    n_kept  tokens that the last call found there
    """

    def __init__(self, session: Session, held: Sequence[int] = ()) -> None:
        self.session = session
        self.n_kept = 0
        self._held = list(held)

    def logits_after(self, tokens: Sequence[int]) -> Floats:
        """float32 [n_vocab], the logits after all of tokens; len(tokens) >= 1."""
        tokens = list(tokens)
        n_kept = self.n_kept = min(n_common(self._held, tokens), len(tokens) - 1)
        # An interrupt may come at any point below, even between a decode and the note that it happened.  So _held never
        # says more than what the session holds, and the session is asked how much that is.
        del self._held[n_kept:]
        if n_kept < self.session.n_past:
            self.session.truncate(n_kept)
        new = tokens[n_kept:]
        logits = self.session.decode(new[0]) if len(new) == 1 else self.session.prefill(new)
        self._held = tokens
        return logits

    def forget(self) -> None:
        """Empties the session."""
        self._held = []
        self.session.truncate(0)


def n_common(a: list[int], b: list[int]) -> int:
    """Length of the common beginning; quick where one is the beginning of the other."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])


class StopFinder:
    """Text in, text out up to the first stop string; holds back what may be the beginning of one.

    The first is the one that is complete first, and of those the longest: how the text is cut into pieces is all one.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What can be shown for sure."""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.found = True
            self._held = ""
            return text[: min(found)[1]]
        n_held = max((_n_possible(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def finish(self) -> str:
        """What was held back, now that no more text comes."""
        rest, self._held = self._held, ""
        return rest


def _n_possible(text: str, stop: str) -> int:
    """Length of the longest end of text that stop begins with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class Transcript:
    """Tokens in, text out up to the first stop string; a model without tokenizer has no text."""

    def __init__(self, model: Model, stop: Sequence[str]) -> None:
        self._decoder = model.tokenizer.stream() if model.has_tokenizer else None
        self._stopper = StopFinder(stop)
        self._shown: list[str] = []

    def push(self, token: int) -> str:
        """What of the text can be shown for sure."""
        if not self._decoder:
            return ""
        return self._show(self._stopper.push(self._decoder.push(token)))

    def finish(self) -> str:
        """The rest, now that no more tokens come."""
        if not self._decoder or self.stopped:
            return ""
        return self._show(self._stopper.push(self._decoder.finish()) + self._stopper.finish())

    def _show(self, piece: str) -> str:
        self._shown.append(piece)
        return piece

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._stopper.found

    @property
    def text(self) -> str:
        """All that was shown."""
        return "".join(self._shown)


@dataclass
class TextGeneration:
    """An iterator over pieces of text; afterwards .completion says how it went.

    reader  a session to go on with instead of a new one
    """

    model: Model
    prompt: Prompt
    options: Options = field(default_factory=Options)
    reader: Reader | None = None

    def __post_init__(self) -> None:
        tokens = prompt_tokens(self.model, self.prompt, self.options)
        self._loop = _Loop(self.model, self.options, self.options.sampler(self.model.n_vocab), tokens)
        self._pieces = self._loop.pieces(self.reader)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def completion(self) -> Completion | None:
        """None before the end."""
        return self._loop.completion

    def finish(self) -> Completion:
        """Generates what is left and returns all of it."""
        for _ in self:
            pass
        if self.completion is None:
            raise UsageError("the generation was interrupted")
        return self.completion


def prompt_tokens(model: Model, prompt: Prompt, options: Options) -> list[int]:
    """What is to be read before the first token is drawn, one token at least, cut or refused as on_overflow says.

    An empty prompt is the end-of-text token: a text begins where the one before it ended.
    """
    tokens = model.encode(prompt) if isinstance(prompt, str) else token_array(prompt).tolist()
    if tokens:
        return _fit(tokens, model.n_ctx, options)
    if model.eos_token is None:
        raise UsageError("the prompt is empty, and the model has no end-of-text token to begin with")
    return _fit([model.eos_token], model.n_ctx, options)


def _fit(tokens: list[int], n_ctx: int, options: Options) -> list[int]:
    n_new = options.max_new_tokens
    if len(tokens) + n_new <= n_ctx:
        return tokens
    if options.on_overflow == "slide":
        return tokens if len(tokens) <= n_ctx else newer_half(tokens, n_ctx)
    if options.on_overflow == "truncate" and n_new < n_ctx:
        return tokens[len(tokens) + n_new - n_ctx :]
    raise ContextFullError(
        f"{len(tokens)} prompt tokens and {n_new} new ones exceed the model's n_ctx of {n_ctx}; "
        f'shorten either, or choose on_overflow "truncate" or "slide"'
    )


class _Loop:
    """Samples until something ends it.

    Apart from TextGeneration, so that nobody who walks away from the pieces leaves a cycle of references behind: the
    session is freed at once, not when the garbage collector comes by.
    """

    def __init__(self, model: Model, options: Options, sampler: Sampler, prompt_tokens: list[int]) -> None:
        self.completion: Completion | None = None
        self._model, self._options, self._sampler, self._prompt_tokens = model, options, sampler, prompt_tokens
        self._sampler.accept(prompt_tokens)
        self._tokens: list[int] = []
        self._reason = "length"
        self._seconds = [0.0, 0.0]  # prefill, decode
        self._n_reused = 0

    def pieces(self, reader: Reader | None) -> Iterator[str]:
        """The text as it comes; sets .completion at the end."""
        if reader is not None:
            yield from self._pieces_from(reader)
            return
        o = self._options
        with self._model.session(n_threads=o.n_threads, kv_type=o.kv_type, deterministic=o.deterministic) as session:
            yield from self._pieces_from(Reader(session))

    def _pieces_from(self, reader: Reader) -> Iterator[str]:
        transcript = Transcript(self._model, self._options.stop)
        for token in self._sampled(reader):
            if piece := transcript.push(token):
                yield piece
            if transcript.stopped:
                break
        rest = transcript.finish()
        self.completion = Completion(
            transcript.text,
            self._tokens,
            "stop" if transcript.stopped else self._reason,
            len(self._prompt_tokens),
            self._sampler.seed,
            prefill_seconds=self._seconds[0],
            decode_seconds=self._seconds[1],
            n_reused=self._n_reused,
        )
        if rest:
            yield rest

    def _sampled(self, reader: Reader) -> Iterator[int]:
        tokens = list(self._prompt_tokens)
        for i in range(self._options.max_new_tokens):
            begin = time.perf_counter()
            if len(tokens) > self._model.n_ctx:
                tokens = newer_half(tokens, self._model.n_ctx)
            if not self._options.kv_cache:
                reader.forget()
            token = self._sampler.sample(reader.logits_after(tokens))
            self._sampler.accept([token])
            tokens.append(token)
            self._seconds[i > 0] += time.perf_counter() - begin
            if i == 0:
                self._n_reused = reader.n_kept
            if token == self._model.eos_token:
                self._reason = "eos"
                return
            self._tokens.append(token)
            yield token


def newer_half(tokens: list[int], n_ctx: int) -> list[int]:
    """The newest tokens, as many as fill half of the context."""
    return tokens[-max(n_ctx // 2, 1) :]
