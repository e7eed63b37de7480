"""How to generate: every option of a text, and which of them go together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastgpt_c.engine.defaults import TEMPERATURE, TOP_P
from fastgpt_c.engine.sampler import Sampler, Sampling, SamplingKeywords
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, checked_int

if TYPE_CHECKING:
    from fastgpt_c.engine.control_vector import ControlVector
    from fastgpt_c.engine.model import LoadedModel

LogitsProcessor = Callable[[Sequence[int], Floats], "Floats | None"]
"""Called as processor(tokens, logits) with all tokens so far, which it must leave alone, and the model's own float32
logits [n_vocab].  It changes them in place, or returns others; then bias, penalties, bans and filters follow.  A call
costs less than a microsecond, a NumPy operation over the logits of GPT-2's 50257 tokens about 5 (bench/choosing.py)."""

# Options that only matter where tokens are drawn, each with the values at which it is off or at its default.
DRAWING: dict[str, tuple[float, ...]] = {
    "temperature": (0, TEMPERATURE, 1), "top_p": (0, TOP_P, 1), "min_p": (0,), "typical_p": (0, 1), "top_n_sigma": (0,),
    "mirostat_tau": (0,),
}  # fmt: skip


class RequestKeywords(SamplingKeywords, total=False):
    """The fields of Options that each prompt of a batch may have for itself, as keywords."""

    max_new_tokens: int
    stop: str | Iterable[str] | None
    on_overflow: str
    logprobs: int | None
    control_vector: ControlVector | None
    ignore_eos: bool
    regex: str | None
    json_schema: str | Mapping[str, Any] | None
    grammar: str | None
    logits_processor: LogitsProcessor | None


class BatchKeywords(RequestKeywords, total=False):
    """The fields of Options that a batch may have."""

    kv_cache: bool
    kv_type: str
    deterministic: bool
    n_threads: int | None


class OptionKeywords(BatchKeywords, total=False):
    """The fields of Options as keywords."""

    prompt_lookup: int
    draft: LoadedModel | None
    penalty_alpha: float | None


@dataclass(frozen=True, kw_only=True, repr=False)
class Options(Sampling):
    """How to generate: the fields of Sampling, which say how tokens are drawn, and

    max_new_tokens  stop after so many tokens ("length")
    stop            strings that end the text ("stop"); they are not part of it.  One, or several of any iterable, which
                    is read once; None = none
    logprobs        k: note the log-probability and rank of each new token, and the k likeliest in its place, in
                    Completion.logprobs; k in [0, n_vocab].  They are the model's own: before processor, bias,
                    penalties, temperature and filters.  None = do not
    ignore_eos      an end-of-text token does not end the text: it is a token like any other
    on_overflow     what to do when prompt + max_new_tokens exceeds n_ctx: "error" refuses before the first token,
                    "truncate" drops the oldest tokens of the prompt, "slide" generates until the context is full, then
                    forgets its older half and reads the rest again (GPT-2's positions are absolute)
    kv_cache        False computes everything anew for each token, to teach and to measure
    kv_type         what the KV cache holds: "f32", "f16", "bf16", "q8_0", or "auto": "f32" for f32 weights, else "f16"
    deterministic   the same text to the bit with or without KV cache, alone or in a batch; see Session
    n_threads       None = the model's
    regex, json_schema, grammar
                    one of them: the new text matches this regular expression, JSON schema (text or dict), or grammar
                    (Lark, as llguidance reads it), and ends where nothing can follow ("stop"); cut by max_new_tokens,
                    it is only the beginning of a match.  Needs the extra fastgpt-c[constraints]
    logits_processor
                    called before each draw, as LogitsProcessor says
    prompt_lookup   guess so many tokens at once, as they followed the same tokens before
    draft           guess with this smaller model of the same vocabulary.  Neither changes the text: see speculative.py
    penalty_alpha   contrastive search among the top_k likeliest tokens, see contrastive_search.py: how much being
                    unlike the text before counts, in [0, 1]; 0 = greedy.  Tokens are not drawn, so nothing that draws
                    goes with it
    control_vector  steers the text: a ControlVector, such as fastgpt_c.steer(model, vector, layer, strength), is added
                    to the residual stream at every position.  What a given reader holds already stays as it was read
    """

    max_new_tokens: int = 100
    stop: str | Iterable[str] | None = ()
    on_overflow: str = "error"
    logprobs: int | None = None
    ignore_eos: bool = False
    kv_cache: bool = True
    kv_type: str = "auto"
    deterministic: bool = False
    n_threads: int | None = None
    regex: str | None = None
    json_schema: str | Mapping[str, Any] | None = None
    grammar: str | None = None
    logits_processor: LogitsProcessor | None = None
    prompt_lookup: int = 0
    draft: LoadedModel | None = None
    penalty_alpha: float | None = None
    control_vector: ControlVector | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_constraints(regex=self.regex, json_schema=self.json_schema, grammar=self.grammar)
        if self.ignore_eos and any(one is not None for one in (self.regex, self.json_schema, self.grammar)):
            raise UsageError("a text that matches a constraint ends with it: leave ignore_eos or the constraint out")
        if self.prompt_lookup and self.draft is not None:
            raise UsageError("give prompt_lookup or draft, not both")
        if self.penalty_alpha is not None:
            check_contrastive(self)
        if self.control_vector is not None:
            check_steered(self)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """stop as it is kept."""
        assert isinstance(self.stop, tuple)
        return self.stop

    def ends(self, eos_tokens: Sequence[int]) -> Sequence[int]:
        """Those of a model's end-of-text tokens that end a text."""
        return () if self.ignore_eos else eos_tokens

    def sampler(self, n_vocab: int, eos_tokens: Sequence[int]) -> Sampler:
        """A sampler with these parameters.  Raises UsageError for what a model of n_vocab tokens cannot do."""
        if self.logprobs is not None:
            checked_int("logprobs", self.logprobs, 0, n_vocab)
        return Sampler(n_vocab, self, eos_tokens=eos_tokens)


def check_constraints(**given: Any) -> None:
    """Raises UsageError where more than one of regex, json_schema and grammar is given."""
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"give one of {' and '.join(names)}, not both")


def check_steered(options: Options) -> None:
    """Raises UsageError where a control vector meets a search that reads tokens in another way."""
    for name in ("prompt_lookup", "draft", "penalty_alpha"):
        if getattr(options, name) not in (None, 0):
            raise UsageError(
                f"control_vector changes each step, and {name} has steps of its own: leave one of them out"
            )


def check_contrastive(options: Options) -> None:
    """Raises UsageError where penalty_alpha meets an option that has no meaning beside it."""
    if options.top_k < 1:
        raise UsageError("penalty_alpha chooses among the top_k likeliest tokens: give top_k too, such as 4")
    for name, off in DRAWING.items():
        if getattr(options, name) not in off:
            raise UsageError(
                f"{name} is for drawing tokens, and contrastive search draws none: leave {name} or penalty_alpha out"
            )
    if options.prompt_lookup or options.draft is not None:
        raise UsageError(
            "contrastive search reads candidates, not guesses: leave prompt_lookup and draft, or penalty_alpha, out"
        )
    if not options.kv_cache:
        raise UsageError("contrastive search forks the KV cache: leave kv_cache=False or penalty_alpha out")
    if options.on_overflow == "slide":
        raise UsageError(
            'contrastive search compares with the whole text, of which on_overflow="slide" forgets half: '
            'choose "truncate" or "error"'
        )
