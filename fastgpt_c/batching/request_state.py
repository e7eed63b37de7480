"""One prompt of a batch, from its tokens to its completion."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.generation.completion import Completion
from fastgpt_c.generation.options import Options
from fastgpt_c.generation.prompt import Prompt, prompt_tokens
from fastgpt_c.generation.token_selector import bans_of
from fastgpt_c.generation.transcript import Transcript

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel


# Options that do something between two steps of one text, while a batch draws all its tokens in one call.
ALONE = ("regex", "json_schema", "grammar", "logits_processor", "prompt_lookup", "draft", "penalty_alpha")


def check_batchable(options: Options) -> None:
    """Raises UsageError for options that a batch cannot follow."""
    for name in ALONE:
        if getattr(options, name) != getattr(Options, name):
            raise UsageError(f"{name} works for one text at a time, not in a batch")


class Job:
    """What a scheduler needs to know of a prompt, and what it has drawn for it.

    tag         whatever the caller knows it by
    ended       nothing more is to be drawn
    error       why it failed, or None
    prompt      token ids to read before the first token is drawn
    n_positions of a KV cache that it needs
    sampler     engine.sampler.Sampler; knows the prompt
    bans        names of the options that can ban tokens
    tokens      what was drawn, without the end-of-text token
    """

    def __init__(self, tag: Any, model: LoadedModel, prompt: Prompt, options: Callable[[], Options]) -> None:
        """options may raise, too: any FastGPTError is noted as .error."""
        self.tag = tag
        self.error: FastGPTError | None = None
        self.tokens: list[int] = []
        try:
            self._prepare(model, prompt, options())
        except FastGPTError as error:
            self.fail(error)

    def _prepare(self, model: LoadedModel, prompt: Prompt, options: Options) -> None:
        check_batchable(options)
        self.prompt = prompt_tokens(model, prompt, options)
        self.n_positions = min(len(self.prompt) + options.max_new_tokens, model.n_ctx)
        self.sampler = options.sampler(model.n_vocab, model.eos_tokens)
        self.sampler.accept_prompt(self.prompt)
        self.bans = bans_of(options)
        self.ended = options.max_new_tokens == 0
        self._model, self._max_new_tokens = model, options.max_new_tokens
        self._reason = "length"
        # Only stop strings need the text while it grows.
        self._transcript = Transcript(model, options.stop_strings) if options.stop else None
        self._begin = self._first = 0.0
        self._n_reused = 0

    def fail(self, error: FastGPTError) -> None:
        """Ends it without a completion."""
        self.error, self.ended = error, True

    def start(self, n_reused: int) -> None:
        """It has its place in the batch now, and so much of its prompt is read."""
        self._begin, self._n_reused = time.perf_counter(), n_reused

    def accept(self, token: int) -> bool:
        """Notes the token that was drawn; whether the text ends with it."""
        self._first = self._first or time.perf_counter()
        if token in self._model.eos_tokens:
            self._reason = "eos"
            self.ended = True
            return True
        self.tokens.append(token)
        self.ended = self._finds_stop(token) or len(self.tokens) == self._max_new_tokens
        return self.ended

    def _finds_stop(self, token: int) -> bool:
        if self._transcript is None:
            return False
        self._transcript.push(token)
        return self._transcript.stopped

    def completion(self) -> Completion:
        """What came of it, once it has ended without error.  Other jobs had their share of the seconds."""
        end = time.perf_counter()
        text = self._text()
        stopped = self._transcript is not None and self._transcript.stopped
        return Completion(
            text,
            self.tokens,
            "stop" if stopped else self._reason,
            len(self.prompt),
            self.sampler.seed,
            (self._first or end) - (self._begin or end),
            end - (self._first or end),
            self._n_reused,
        )

    def _text(self) -> str:
        if self._transcript is not None:
            self._transcript.finish()
            return self._transcript.text
        return self._model.decode(self.tokens) if self._model.has_tokenizer else ""
