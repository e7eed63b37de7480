"""One prompt of a batch, from its tokens to its completion."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.generation.completion import Completion
from fastgpt_c.generation.options import Options
from fastgpt_c.generation.prompt import Prompt, prompt_tokens
from fastgpt_c.generation.token_selector import TokenSelector
from fastgpt_c.generation.transcript import Transcript
from fastgpt_c.native.arguments import Floats

if TYPE_CHECKING:
    from fastgpt_c.engine.edits import Edit
    from fastgpt_c.engine.log_probs import TokenLogProb
    from fastgpt_c.engine.model import LoadedModel
    from fastgpt_c.engine.sampler import Sampler


# Options that read several tokens a step for one text.
NOT_BATCHABLE = ("prompt_lookup", "draft", "penalty_alpha")


def check_batchable(options: Options) -> None:
    """Raises UsageError for options that a batch does not support."""
    for name in NOT_BATCHABLE:
        if getattr(options, name) != getattr(Options, name):
            raise UsageError(f"{name} works for one text at a time, not in a batch")


class NewToken(NamedTuple):
    """A token, the text that it makes certain, and how likely it was, where the options ask for that."""

    token: int
    text: str
    logprob: TokenLogProb | None


class RequestState:
    """A sample of a prompt in a batch: what the scheduler needs to know of it, and the tokens drawn so far.

    tag         identifies the prompt for the caller
    sample      which of a prompt's n samples it is, from 0
    ended       nothing more is to be drawn
    error       why it failed, or None
    prompt      token ids to read before the first token is drawn
    n_positions of a KV cache that it needs
    edits       what changes every step for it: its control vector
    steers      steer has to be called before each draw
    tokens      what was drawn, without the end-of-text token
    streams     its text is wanted piece by piece, see take_piece

    Making one encodes the prompt and compiles the constraint, which may take a while: not for an event loop.
    """

    def __init__(
        self,
        tag: Any,
        sample: int,
        model: LoadedModel,
        prompt: Prompt,
        options: Callable[[], Options],
        *,
        streams: bool = False,
    ) -> None:
        """options may raise, too: any FastGPTError is noted as .error."""
        self.tag, self.sample, self.streams = tag, sample, streams
        self.prompt: list[int] = []
        self.n_positions = 0
        self.steers = False
        self.edits: list[Edit] = []
        self._piece, self._n_taken = "", 0
        self.error: FastGPTError | None = None
        self.tokens: list[int] = []
        try:
            self._prepare(model, prompt, options())
        except FastGPTError as error:
            self.fail(error)

    def _prepare(self, model: LoadedModel, prompt: Prompt, options: Options) -> None:
        check_batchable(options)
        if options.control_vector is not None:
            options.control_vector.check(model)
            self.edits = options.control_vector.edits()
        self.prompt = prompt_tokens(model, prompt, options)
        self.n_positions = min(len(self.prompt) + options.max_new_tokens, model.n_ctx)
        self._selector = TokenSelector(model, options, self.prompt)
        self.steers = self._selector.looks
        self.ended = options.max_new_tokens == 0
        self._model, self._max_new_tokens = model, options.max_new_tokens
        self._ends = options.ends(model.eos_tokens)
        self._notes_logprobs = options.logprobs is not None
        self._reason = "length"
        # Only stop strings and streams need the text while it grows.
        self._transcript = Transcript(model, options.stop_strings) if options.stop or self.streams else None
        self._begin = self._first = 0.0
        self._n_reused = 0

    @property
    def sampler(self) -> Sampler:
        """Knows the prompt, and draws the tokens."""
        return self._selector.sampler

    def fail(self, error: FastGPTError) -> None:
        """Ends it without a completion."""
        self.error, self.ended = error, True

    def start(self, n_reused: int) -> None:
        """It takes a slot of the batch, whose cache holds the first n_reused tokens of its prompt."""
        self._begin, self._n_reused = time.perf_counter(), n_reused

    def cancel(self) -> None:
        """Ends it with what it has so far."""
        self._reason, self.ended = "cancelled", True

    def steer(self, text: Callable[[], list[int]], logits: Floats) -> None:
        """Before a draw: runs the logits processor and sets the constraint's mask.

        text    gives the tokens so far, for a processor
        logits  [n_vocab] the model's; what is to be drawn from is written there

        Whatever these raise ends the request, and no other."""
        try:
            chosen = self._selector.allowed(text() if self._selector.has_processor else (), logits)
            if chosen is not logits:
                logits[:] = self.sampler.row(chosen)
        except FastGPTError as error:
            self.fail(error)
        except Exception as error:
            self.fail(FastGPTError(f"the logits processor raised {type(error).__name__}: {error}"))

    def refusal(self, logits: Floats) -> FastGPTError:
        """Why its sampler refuses logits [n_vocab]."""
        return self._selector.refusal(logits)

    def accept(self, token: int) -> bool:
        """Records the token that was drawn; whether the text ends with it."""
        self._first = self._first or time.perf_counter()
        try:
            self._selector.note(token)
        except FastGPTError as error:
            self.fail(error)
            return True
        if token in self._ends:
            self._reason = "eos"
            self.ended = True
            return True
        self.tokens.append(token)
        if self._selector.complete:
            self._reason = "stop"
        self.ended = self._finds_stop(token) or self._selector.complete or len(self.tokens) == self._max_new_tokens
        return self.ended

    def _finds_stop(self, token: int) -> bool:
        if self._transcript is None:
            return False
        self._piece += self._transcript.push(token)
        return self._transcript.stopped

    def take_piece(self) -> str:
        """What is new of its text: whole characters, and nothing that may be a part of a stop string.  After result all
        of the rest.  Empty unless it streams or has stop strings."""
        piece, self._piece = self._piece, ""
        return piece

    def take_token(self) -> NewToken | None:
        """The next of .tokens that it has not returned yet, with take_piece."""
        if self._n_taken == len(self.tokens):
            return None
        logprob = self._selector.logprobs[self._n_taken] if self._notes_logprobs else None
        token = NewToken(self.tokens[self._n_taken], self.take_piece(), logprob)
        self._n_taken += 1
        return token

    def result(self) -> Completion | FastGPTError:
        """Its completion, or why it failed; once it has ended."""
        return self.error or self.completion()

    def completion(self) -> Completion:
        """The completion, once it has ended without error; its seconds include the work on other requests."""
        end = time.perf_counter()
        text = self._text()
        stopped = self._transcript is not None and self._transcript.stopped
        return Completion(
            text,
            self.tokens,
            "stop" if stopped else self._reason,
            len(self.prompt),
            self._selector.seed,
            (self._first or end) - (self._begin or end),
            end - (self._first or end),
            self._n_reused,
            logprobs=tuple(self._selector.logprobs[: len(self.tokens)]) if self._notes_logprobs else None,
        )

    def _text(self) -> str:
        if self._transcript is not None:
            self._piece += self._transcript.finish()
            return self._transcript.text
        return self._model.decode(self.tokens) if self._model.has_tokenizer else ""
