"""Which token comes next: the logits processor, the constraint and the sampler of one text, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastgpt_c.engine.sampler import Sampler
from fastgpt_c.generation.constraints import constraint_on
from fastgpt_c.native.arguments import Floats

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel
    from fastgpt_c.generation.options import Options


class Chooser:
    """Chooses the tokens of one text.

    seed  of the sampler

    Raises UsageError for options out of range or a wrong constraint, MissingExtraError for one without its library.
    """

    def __init__(self, model: LoadedModel, options: Options, prompt_tokens: Sequence[int]) -> None:
        self._sampler = options.sampler(model.n_vocab, model.eos_token)
        self._sampler.accept_prompt(prompt_tokens)
        self._processor = options.logits_processor
        self._constraint = constraint_on(model, options.regex, options.json_schema, options.grammar)
        self._eos_token = model.eos_token
        self.seed = self._sampler.seed

    def choose(self, tokens: Sequence[int], logits: Floats, draw: Callable[[Sampler, Floats], int]) -> int:
        """The token after tokens, drawn and noted; logits [n_vocab] may be changed.  draw is the sample of the session
        that the logits are from, so that its profile counts the draw."""
        token = draw(self._sampler, self._allowed(tokens, logits))
        self.take(token)
        return token

    def adjusted(self, tokens: Sequence[int], logits: Floats) -> Floats:
        """float32 [n_vocab]: logits as they are before temperature and filters, -infinity where a token is banned;
        logits [n_vocab] may be changed."""
        return self._sampler.adjusted(self._allowed(tokens, logits))

    def take(self, token: int) -> None:
        """Notes the token that comes next."""
        self._sampler.accept([token])
        if self._constraint is not None and token != self._eos_token:
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
