"""Prompt -> text: reads the prompt, then samples token after token until something ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fastgpt_c.engine.log_probs import TokenLogProb
from fastgpt_c.engine.model import LoadedModel
from fastgpt_c.engine.reader import Reader, reader_of
from fastgpt_c.engine.session import Session
from fastgpt_c.errors import UsageError
from fastgpt_c.generation.completion import Completion
from fastgpt_c.generation.options import Options
from fastgpt_c.generation.prompt import Prompt, newest_half, prompt_tokens
from fastgpt_c.generation.token_selector import TokenSelector
from fastgpt_c.generation.transcript import Transcript
from fastgpt_c.native.arguments import merge_options, shown


@dataclass(repr=False)
class TextGeneration:
    """A text being generated: an iterator over its pieces, each as soon as its characters are complete.

    model, prompt, options
            as in Model.generate, which raises the same errors
    reader  a Session, or a Reader of one, to continue with instead of a new one

    For one thread.  Leaving it before the end frees its session.
    """

    model: LoadedModel
    prompt: Prompt
    options: Options = field(default_factory=Options)
    reader: Reader | Session | None = None

    def __post_init__(self) -> None:
        self.options = merge_options(Options, "options", self.options, {})
        reader = None if self.reader is None else reader_of(self.reader)
        if self.options.control_vector is not None:
            self.options.control_vector.check(self.model)
        tokens = prompt_tokens(self.model, self.prompt, self.options)
        self._loop = _Loop(self.model, self.options, tokens)
        self._pieces = self._loop.pieces(reader)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def __repr__(self) -> str:
        state = "not at its end" if self.completion is None else repr(self.completion)
        return f"TextGeneration({shown(self.prompt)}, {state})"

    @property
    def completion(self) -> Completion | None:
        """None before the end."""
        return self._loop.completion

    @property
    def logprobs(self) -> tuple[TokenLogProb, ...] | None:
        """Completion.logprobs of the tokens so far; some of them may be in no piece yet."""
        return self._loop.logprobs

    def finish(self) -> Completion:
        """Generates what is left and returns all of it."""
        for _ in self:
            pass
        if self.completion is None:
            raise UsageError("the generation was interrupted")
        return self.completion


class _Loop:
    """Selects tokens until one of the end conditions is met.

    It is separate from TextGeneration so that an abandoned iterator leaves no reference cycle: the session is freed at
    once, not by the garbage collector.
    """

    def __init__(self, model: LoadedModel, options: Options, prompt_tokens: list[int]) -> None:
        self.completion: Completion | None = None
        self._model, self._options, self._prompt_tokens = model, options, prompt_tokens
        self._selector = TokenSelector(model, options, prompt_tokens)
        self._tokens: list[int] = []
        self._reason = "length"
        self._seconds = [0.0, 0.0]  # prefill, decode
        self._n_reused = 0

    @property
    def logprobs(self) -> tuple[TokenLogProb, ...] | None:
        """Of the tokens so far, without the end-of-text token; None where nobody asked."""
        return None if self._options.logprobs is None else tuple(self._selector.logprobs[: len(self._tokens)])

    def pieces(self, reader: Reader | None) -> Iterator[str]:
        """Pieces of text as they become complete; sets .completion at the end."""
        if reader is not None:
            yield from self._pieces_from(_guessing(reader, self._model, self._options))
            return
        o = self._options
        with self._model.session(n_threads=o.n_threads, kv_type=o.kv_type, deterministic=o.deterministic) as session:
            yield from self._pieces_from(_guessing(Reader(session), self._model, o))

    def _pieces_from(self, reader: Reader) -> Iterator[str]:
        vector = self._options.control_vector
        reader.edits = [] if vector is None else vector.edits()
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
            self._selector.seed,
            prefill_seconds=self._seconds[0],
            decode_seconds=self._seconds[1],
            n_reused=self._n_reused,
            n_guessed=reader.n_guessed,
            n_right=reader.n_right,
            logprobs=self.logprobs,
        )
        if rest:
            yield rest

    def _sampled(self, reader: Reader) -> Iterator[int]:
        tokens, next_token = list(self._prompt_tokens), self._token_function(reader)
        ends = self._options.ends(self._model.eos_tokens)
        for i in range(self._options.max_new_tokens):
            begin = time.perf_counter()
            if len(tokens) > self._model.n_ctx:
                tokens = newest_half(tokens, self._model.n_ctx)
            if not self._options.kv_cache:
                reader.forget()
            token = next_token(tokens)
            tokens.append(token)
            self._seconds[i > 0] += time.perf_counter() - begin
            if i == 0:
                self._n_reused = reader.n_kept
            if token in ends:
                self._reason = "eos"
                return
            self._tokens.append(token)
            if self._selector.complete:
                self._reason = "stop"
            yield token
            if self._selector.complete:
                return

    def _token_function(self, reader: Reader) -> Callable[[list[int]], int]:
        """A function from the tokens so far to the next one."""
        if self._options.penalty_alpha is None:
            return lambda tokens: self._selector.select(tokens, reader.logits_after(tokens), reader.session.sample)
        from fastgpt_c.generation.contrastive_search import ContrastiveSearch

        return ContrastiveSearch(reader, self._selector, self._options).next_token


def _guessing(reader: Reader, model: LoadedModel, options: Options) -> Reader:
    """The reader itself, or one for speculative decoding, which is imported only where it is asked for."""
    if not options.prompt_lookup and options.draft is None:
        return reader
    from fastgpt_c.generation.speculative import guessing

    return guessing(reader, model, options)
