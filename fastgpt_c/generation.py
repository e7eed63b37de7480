"""Prompt -> text: reads the prompt, then samples token after token until something ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastgpt_c.arguments import made, shown
from fastgpt_c.choosing import Chooser, LogitsProcessor
from fastgpt_c.constraints import check_constraints
from fastgpt_c.errors import ContextFullError, UsageError
from fastgpt_c.sampling import Sampler, Sampling
from fastgpt_c.session import Floats, Session, token_array

if TYPE_CHECKING:
    from fastgpt_c.model import Model

Prompt = str | Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Options(Sampling):
    """How to generate: the fields of Sampling, which say how tokens are drawn, and

    max_new_tokens  stop after so many tokens ("length")
    stop            strings that end the text ("stop"); they are not part of it.  One, or several of any iterable, which
                    is read once; None = none
    on_overflow     what to do when prompt + max_new_tokens exceeds n_ctx: "error" refuses before the first token,
                    "truncate" drops the oldest tokens of the prompt, "slide" generates until the context is full, then
                    forgets its older half and reads the rest again (GPT-2's positions are absolute)
    kv_cache        False computes everything anew for each token, to teach and to measure
    kv_type         what the KV cache holds: "f32", "f16" or "bf16"
    deterministic   the same text to the bit with or without KV cache, alone or in a batch; see session.Session
    n_threads       None = the model's
    regex, json_schema, grammar
                    one of them: the new text matches this regular expression, JSON schema (text or dict), or grammar
                    (Lark, as llguidance reads it), and ends where nothing can follow ("stop"); cut by max_new_tokens,
                    it is only the beginning of a match.  Needs the extra fastgpt-c[constraints]
    logits_processor
                    called before each draw, as choosing.LogitsProcessor says
    prompt_lookup   guess so many tokens at once, as they followed the same tokens before
    draft           guess with this smaller model of the same vocabulary.  Neither changes the text: see speculative.py
    penalty_alpha   contrastive search among the top_k likeliest tokens, see contrastive.py: how much being unlike the
                    text before counts, in [0, 1]; 0 = greedy.  Tokens are not drawn, so nothing that draws goes with it
    """

    max_new_tokens: int = 100
    stop: str | Iterable[str] | None = ()
    on_overflow: str = "error"
    kv_cache: bool = True
    kv_type: str = "f32"
    deterministic: bool = False
    n_threads: int | None = None
    regex: str | None = None
    json_schema: str | Mapping[str, Any] | None = None
    grammar: str | None = None
    logits_processor: LogitsProcessor | None = None
    prompt_lookup: int = 0
    draft: Model | None = None
    penalty_alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_constraints(regex=self.regex, json_schema=self.json_schema, grammar=self.grammar)
        if self.prompt_lookup and self.draft is not None:
            raise UsageError("give prompt_lookup or draft, not both")
        if self.penalty_alpha is not None:
            from fastgpt_c.contrastive import check_contrastive  # here, since few need it

            check_contrastive(self)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """stop as it is kept."""
        assert isinstance(self.stop, tuple)
        return self.stop

    def sampler(self, n_vocab: int, eos_token: int | None) -> Sampler:
        """A sampler with these parameters."""
        return Sampler(n_vocab, self, eos_token=eos_token)


@dataclass(frozen=True)
class Completion:
    """What was generated.

    text            the continuation, without the prompt and without what ended it
    tokens          token ids, without the end-of-text token
    finish_reason   "length", "stop" (a stop string, or a constraint that nothing can follow) or "eos" (the end-of-text
                    token)
    n_prompt        tokens of the prompt that were read
    seed            what reproduces it
    prefill_seconds until the logits after the prompt; decode_seconds from there to the end
    n_reused        tokens of the prompt that a KV cache held already, so that they were not read again
    n_guessed, n_right
                    guesses of speculative decoding, and how many of them were the text's next tokens
    """

    text: str
    tokens: list[int]
    finish_reason: str
    n_prompt: int
    seed: int
    prefill_seconds: float
    decode_seconds: float
    n_reused: int = 0
    n_guessed: int = 0
    n_right: int = 0


class Reader:
    """Keeps a session in step with a row of tokens: what the session holds already is not read again.

    held    the tokens that are in the session at first
    n_kept  tokens that the last call found there
    n_guessed, n_right
            see speculative.SpeculativeReader
    """

    n_guessed = n_right = 0

    def __init__(self, session: Session, held: Sequence[int] = ()) -> None:
        self.session = session
        self.n_kept = 0
        self._held = list(held)

    def logits_after(self, tokens: Sequence[int]) -> Floats:
        """float32 [n_vocab], the logits after all of tokens; len(tokens) >= 1."""
        tokens = list(tokens)
        logits = self.read(self.new_tokens(tokens))
        self._held = tokens
        return logits

    def read(self, new: list[int]) -> Floats:
        """float32 [n_vocab], the logits after these tokens more."""
        return self.session.decode(new[0]) if len(new) == 1 else self.session.prefill(new)

    def new_tokens(self, tokens: list[int]) -> list[int]:
        """What the session still has to read of tokens, the last one at least; it forgets what is none of them."""
        n_kept = self.n_kept = min(n_common(self._held, tokens), len(tokens) - 1)
        # An interrupt may come at any point below, even between a decode and the note that it happened.  So _held never
        # says more than what the session holds, and the session is asked how much that is.
        del self._held[n_kept:]
        if n_kept < self.session.n_past:
            self.session.truncate(n_kept)
        return tokens[n_kept:]

    def hand_over(self) -> list[int]:
        """The tokens in the session, with which another reader goes on; this one forgets them."""
        held, self._held = self._held, []
        return held

    def forget(self) -> None:
        """Empties the session."""
        self._held = []
        self.session.truncate(0)


def reader_of(given: Reader | Session) -> Reader:
    """given, or a reader of that session, which knows what the session holds."""
    if isinstance(given, Session):
        return Reader(given, given.tokens.tolist())
    if isinstance(given, Reader):
        return given
    raise UsageError(f"reader is {shown(given)}, not a Session, or a generation.Reader of one")


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

    reader  a Session, or a Reader of one, to go on with instead of a new one
    """

    model: Model
    prompt: Prompt
    options: Options = field(default_factory=Options)
    reader: Reader | Session | None = None

    def __post_init__(self) -> None:
        self.options = made(Options, "options", self.options, {})
        reader = None if self.reader is None else reader_of(self.reader)
        tokens = prompt_tokens(self.model, self.prompt, self.options)
        self._loop = _Loop(self.model, self.options, tokens)
        self._pieces = self._loop.pieces(reader)

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
    tokens = tokens_of_prompt(model, prompt)
    if tokens:
        return _fit(tokens, model.n_ctx, options)
    if model.eos_token is None:
        raise UsageError("the prompt is empty, and the model has no end-of-text token to begin with")
    return _fit([model.eos_token], model.n_ctx, options)


def tokens_of_prompt(model: Model, prompt: Prompt) -> list[int]:
    """Raises UsageError for what is neither text nor token ids."""
    if isinstance(prompt, str):
        return model.encode(prompt)
    if isinstance(prompt, list | tuple) and any(isinstance(part, str) for part in prompt):
        raise UsageError(
            f"the prompt is {shown(prompt)}, more than one text: generate_batch and stream_batch take a list of them"
        )
    try:
        return token_array(prompt).tolist()  # type: ignore[no-any-return]
    except UsageError as error:
        raise UsageError(f"the prompt is {shown(prompt)}, not text or a row of token ids: {error}") from None


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

    def __init__(self, model: Model, options: Options, prompt_tokens: list[int]) -> None:
        self.completion: Completion | None = None
        self._model, self._options, self._prompt_tokens = model, options, prompt_tokens
        self._chooser = Chooser(model, options, prompt_tokens)
        self._tokens: list[int] = []
        self._reason = "length"
        self._seconds = [0.0, 0.0]  # prefill, decode
        self._n_reused = 0

    def pieces(self, reader: Reader | None) -> Iterator[str]:
        """The text as it comes; sets .completion at the end."""
        if reader is not None:
            yield from self._pieces_from(_guessing(reader, self._model, self._options))
            return
        o = self._options
        with self._model.session(n_threads=o.n_threads, kv_type=o.kv_type, deterministic=o.deterministic) as session:
            yield from self._pieces_from(_guessing(Reader(session), self._model, o))

    def _pieces_from(self, reader: Reader) -> Iterator[str]:
        transcript = Transcript(self._model, self._options.stop_strings)
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
            self._chooser.seed,
            prefill_seconds=self._seconds[0],
            decode_seconds=self._seconds[1],
            n_reused=self._n_reused,
            n_guessed=reader.n_guessed,
            n_right=reader.n_right,
        )
        if rest:
            yield rest

    def _sampled(self, reader: Reader) -> Iterator[int]:
        tokens, next_token = list(self._prompt_tokens), self._way_to_choose(reader)
        for i in range(self._options.max_new_tokens):
            begin = time.perf_counter()
            if len(tokens) > self._model.n_ctx:
                tokens = newer_half(tokens, self._model.n_ctx)
            if not self._options.kv_cache:
                reader.forget()
            token = next_token(tokens)
            tokens.append(token)
            self._seconds[i > 0] += time.perf_counter() - begin
            if i == 0:
                self._n_reused = reader.n_kept
            if token == self._model.eos_token:
                self._reason = "eos"
                return
            self._tokens.append(token)
            if self._chooser.complete:
                self._reason = "stop"
            yield token
            if self._chooser.complete:
                return

    def _way_to_choose(self, reader: Reader) -> Callable[[list[int]], int]:
        """Gives the token that follows others."""
        if self._options.penalty_alpha is None:
            return lambda tokens: self._chooser.choose(tokens, reader.logits_after(tokens), reader.session.sample)
        from fastgpt_c.contrastive import ContrastiveSearch

        return ContrastiveSearch(reader, self._chooser, self._options).next_token


def _guessing(reader: Reader, model: Model, options: Options) -> Reader:
    """The reader itself, or one for speculative decoding in its place, which only those import who ask for it."""
    if not options.prompt_lookup and options.draft is None:
        return reader
    from fastgpt_c.speculative import guessing

    return guessing(reader, model, options)


def newer_half(tokens: list[int], n_ctx: int) -> list[int]:
    """The newest tokens, as many as fill half of the context."""
    return tokens[-max(n_ctx // 2, 1) :]
