"""Which token comes next: the logits processor, the constraint and the sampler of one text, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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
    """Why a sampler drew nothing from a model's logits [n_vocab], under these options."""
    if not np.all(np.asarray(logits, np.float64) < np.inf):  # also false for NaN
        return FastGPTError("the model gives logits that are NaN or infinite: its weights are damaged")
    return UsageError(f"every token is banned{' by ' * bool(bans)}{' and '.join(bans)}")


@contextmanager
def explained(logits: npt.ArrayLike, bans: Sequence[str] = ()) -> Iterator[None]:
    """Where a sampler refuses a model's logits in the block, the error says why."""
    try:
        yield
    except UsageError as error:
        raise refusal(logits, bans) from error


class Chooser:
    """Chooses the tokens of one text.

    seed  of the sampler

    Raises UsageError for options out of range or a wrong constraint, MissingExtraError for one without its library.
    """

    def __init__(self, model: LoadedModel, options: Options, prompt_tokens: Sequence[int]) -> None:
        self._sampler = options.sampler(model.n_vocab, model.eos_tokens)
        self._sampler.accept_prompt(prompt_tokens)
        self._processor = options.logits_processor
        self._constraint = constraint_on(model, options.regex, options.json_schema, options.grammar)
        self._eos_tokens = model.eos_tokens
        self._bans = bans_of(options)
        self.seed = self._sampler.seed

    def choose(self, tokens: Sequence[int], logits: Floats, draw: Callable[[Sampler, Floats], int]) -> int:
        """The token after tokens, drawn and noted; logits [n_vocab] may be changed.  draw is the sample of the session
        that the logits are from, so that its profile counts the draw."""
        logits = self._allowed(tokens, logits)
        with self._explained(logits):
            token = draw(self._sampler, logits)
        self.take(token)
        return token

    def adjusted(self, tokens: Sequence[int], logits: Floats) -> Floats:
        """float32 [n_vocab]: logits as they are before temperature and filters, -infinity where a token is banned;
        logits [n_vocab] may be changed."""
        logits = self._allowed(tokens, logits)
        with self._explained(logits):
            return self._sampler.adjusted(logits)

    def refusal(self, logits: Floats) -> FastGPTError:
        """Why no token can follow, where all of logits [n_vocab] are banned."""
        return refusal(logits, self._bans)

    def _explained(self, logits: Floats) -> AbstractContextManager[None]:
        """What a processor gave is no fault of the model."""
        return explained(logits, self._bans) if self._processor is None else nullcontext()

    def take(self, token: int) -> None:
        """Notes the token that comes next."""
        self._sampler.accept([token])
        if self._constraint is not None and token not in self._eos_tokens:
            self._constraint.accept(token)

    def _allowed(self, tokens: Sequence[int], logits: Floats) -> Floats:
        """What the processor makes of logits; the sampler learns what the constraint allows."""
        if self._processor is not None:
            processed = self._processor(tokens, logits)
            logits = logits if processed is None else processed
        if self._constraint is not None:
            self._sampler.allow_mask(self._constraint.mask())
        return logits

    @property
    def complete(self) -> bool:
        """Whether nothing may follow."""
        return self._constraint is not None and self._constraint.complete
