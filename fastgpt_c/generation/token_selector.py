"""Which token comes next: the logits processor, the constraint and the sampler of one text, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.log_probs import TokenLogProb, token_log_prob
from fastgpt_c.engine.sampler import Sampler
from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.generation.constraints import constraint_on
from fastgpt_c.native.arguments import Floats

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel
    from fastgpt_c.generation.options import Options


def bans_of(options: Options) -> list[str]:
    """The names of the options that can ban tokens, a constraint first."""
    names = ("regex", "json_schema", "grammar", "no_repeat_ngram_size", "min_new_tokens", "logit_bias")
    return [name for name in names if getattr(options, name)]


def refusal(logits: npt.ArrayLike, bans: Sequence[str]) -> FastGPTError:
    """The error for logits [n_vocab] of a model from which a sampler drew nothing; bans are those of the options."""
    if not np.all(np.asarray(logits, np.float64) < np.inf):  # also false for NaN
        return FastGPTError("the model gives logits that are NaN or infinite: its weights are damaged")
    return UsageError(f"every token is banned{' by ' * bool(bans)}{' and '.join(bans)}")


@contextmanager
def explained(logits: npt.ArrayLike, bans: Sequence[str] = ()) -> Iterator[None]:
    """In the block, an error of a sampler that refuses a model's logits is replaced by one that says why."""
    try:
        yield
    except UsageError as error:
        raise refusal(logits, bans) from error


class TokenSelector:
    """Selects the tokens of one text, and remembers them.

    sampler   draws them
    seed      of the sampler
    logprobs  of the tokens so far, the end-of-text token included, where options.logprobs asks for them

    Raises UsageError for options out of range or a wrong constraint, MissingExtraError for one without its library.
    """

    def __init__(self, model: LoadedModel, options: Options, prompt_tokens: Sequence[int]) -> None:
        self.sampler = options.sampler(model.n_vocab, model.eos_tokens)
        self.sampler.accept_prompt(prompt_tokens)
        self._processor = options.logits_processor
        self._constraint = constraint_on(model, options.regex, options.json_schema, options.grammar)
        self._eos_tokens = model.eos_tokens
        self._bans = bans_of(options)
        self.seed = self.sampler.seed
        self.logprobs: list[TokenLogProb] = []
        self._n_top = options.logprobs
        self._model_logits: Floats | None = None  # [n_vocab] that the next token is selected from

    def select(self, tokens: Sequence[int], logits: Floats, draw: Callable[[Sampler, Floats], int]) -> int:
        """Draws the token that follows tokens, and accepts it; logits [n_vocab] may be changed.  draw is the sample
        method of the session that the logits are from, so that its profile counts the draw."""
        logits = self.allowed(tokens, logits)
        with self._explained(logits):
            token = draw(self.sampler, logits)
        self.accept(token)
        return token

    def adjusted(self, tokens: Sequence[int], logits: Floats) -> Floats:
        """float32 [n_vocab]: logits as they are before temperature and filters, -infinity where a token is banned;
        logits [n_vocab] may be changed."""
        logits = self.allowed(tokens, logits)
        with self._explained(logits):
            return self.sampler.adjusted(logits)

    def refusal(self, logits: Floats) -> FastGPTError:
        """Why no token can follow, where a sampler refuses logits [n_vocab]."""
        if self._processor is None:
            return refusal(logits, self._bans)
        return UsageError("the logits processor leaves no token: its logits are NaN, infinite, or banned altogether")

    def _explained(self, logits: Floats) -> AbstractContextManager[None]:
        """Nothing is explained where a processor has changed the logits: the model may not be the cause."""
        return explained(logits, self._bans) if self._processor is None else nullcontext()

    def accept(self, token: int) -> None:
        """Adds the selected token to the histories of sampler and constraint, and to logprobs."""
        self.sampler.accept([token])
        self.note(token)

    def note(self, token: int) -> None:
        """accept, of a token that the sampler has accepted already."""
        if self._n_top is not None and self._model_logits is not None:
            self.logprobs.append(token_log_prob(self._model_logits, token, self._n_top))
        if self._constraint is not None and token not in self._eos_tokens:
            self._constraint.accept(token)

    def allowed(self, tokens: Sequence[int], logits: Floats) -> Floats:
        """Logits after the processor, if there is one, which alone needs tokens; passes the constraint's mask to the
        sampler.  note takes the log-probability of the next token from these logits."""
        if self._n_top is not None:  # a processor may change them in place
            self._model_logits = logits if self._processor is None else logits.copy()
        if self._processor is not None:
            processed = self._processor(tokens, logits)
            logits = logits if processed is None else processed
        if self._constraint is not None:
            self.sampler.allow_mask(self._constraint.mask())
        return logits

    @property
    def has_processor(self) -> bool:
        """Whether there is a logits processor."""
        return self._processor is not None

    @property
    def looks(self) -> bool:
        """Whether allowed has to be called before each draw, with the model's logits."""
        return self._processor is not None or self._constraint is not None or self._n_top is not None

    @property
    def complete(self) -> bool:
        """Whether the constraint is met and no token can follow."""
        return self._constraint is not None and self._constraint.complete
