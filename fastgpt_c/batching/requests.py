"""Many prompts -> their texts, by one scheduler."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fastgpt_c.batching.request_state import RequestState, check_batchable
from fastgpt_c.batching.scheduler import Scheduler
from fastgpt_c.errors import BatchError, FastGPTError, UsageError
from fastgpt_c.generation.completion import Completion
from fastgpt_c.generation.options import Options, RequestKeywords
from fastgpt_c.generation.prompt import Prompt
from fastgpt_c.native.arguments import check_names, checked_int, merge_options, shown
from fastgpt_c.native.typing_unpack import Unpack

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel
    from fastgpt_c.profiling.profile import Profile

Result = tuple[int, Completion | FastGPTError]

# The fields of Options that hold for a whole batch, not for single prompts.
BATCH_WIDE = ("kv_cache", "kv_type", "deterministic", "n_threads")


MOST_SAMPLES = 128


class Request:
    """A prompt with options of its own: Request("Once upon a time", seed=7, stop="\\n").

    prompt   text or token ids
    n        completions of it, in [1, 128], see Model.generate_batch; None = as the batch says
    changes  the other fields of Options, but for those of the whole batch: kv_cache, kv_type, deterministic, n_threads

    Raises UsageError for another name, or n out of range.  Values are checked when the request's turn comes.
    """

    def __init__(self, prompt: Prompt, *, n: int | None = None, **changes: Unpack[RequestKeywords]) -> None:
        own = [field.name for field in fields(Options) if field.name not in BATCH_WIDE]
        check_names(changes, own, "option of a single prompt")
        self.prompt, self.changes = prompt, changes
        self.n = None if n is None else checked_int("n", n, 1, MOST_SAMPLES)

    def __repr__(self) -> str:
        changes = {"n": self.n} | self.changes if self.n is not None else self.changes
        return f"Request({', '.join([shown(self.prompt), *(f'{name}={shown(v)}' for name, v in changes.items())])})"


class Batch:
    """The settings of a batch, whose threads and KV caches serve many runs, one at a time.

    Arguments are those of Model.stream_batch, and raise what it raises.
    """

    def __init__(
        self,
        model: LoadedModel,
        options: Options,
        *,
        n: int = 1,
        max_batch: int = 32,
        max_tokens_in_flight: int | None = None,
        prefill_chunk: int | None = None,
        prefix_cache: int | None = None,
    ) -> None:
        if not options.kv_cache:
            raise UsageError("kv_cache=False: a batch cannot do without KV caches")
        check_batchable(options)
        options.sampler(model.n_vocab, model.eos_tokens)  # raises for options that no prompt could use
        self._model, self._options = model, options
        self._n = checked_int("n", n, 1, MOST_SAMPLES)
        self._scheduler = Scheduler(
            model,
            max_batch=max_batch,
            max_tokens=max_tokens_in_flight,
            deterministic=options.deterministic,
            n_threads=options.n_threads,
            kv_type=options.kv_type,
            prefill_chunk=prefill_chunk,
            max_idle=prefix_cache,
        )

    def run(self, requests: Iterable[tuple[Any, Prompt | Request]]) -> Iterator[RequestState]:
        """The states of (tag, prompt) pairs, n for each, as they end: see RequestState."""
        return self._scheduler.run(state for tag, prompt in requests for state in self._states_of(tag, prompt))

    def __repr__(self) -> str:
        return f"Batch({self._model!r}, {self._options!r}, max_batch={self._scheduler.max_batch})"

    def profile(self, n_events: int = 200_000) -> Profile:
        """with batch.profile() as p: times each op of the steps in the block, and the drawing of tokens; as
        Session.profile."""
        return self._scheduler.profile(n_events)

    def _states_of(self, tag: Any, prompt: Prompt | Request) -> Iterator[RequestState]:
        request = prompt if isinstance(prompt, Request) else Request(prompt)
        for sample in range(request.n or self._n):
            yield RequestState(tag, sample, self._model, request.prompt, partial(self._options_of, request, sample))

    def _options_of(self, request: Request, sample: int) -> Options:
        """Each sample draws from a seed of its own: the first from that of the options, the others from seeds that are
        made of it, or all from fresh ones."""
        options = merge_options(Options, "options", self._options, request.changes)
        if sample == 0 or options.seed is None:
            return options
        return replace(options, seed=derived_seed(options.seed, str(sample)))


def derived_seed(seed: int, text: str) -> int:
    """64 bits of SHA-256 over both."""
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode("utf-8", "surrogatepass")).digest()[:8], "big")


def checked_prompts(prompts: Iterable[Prompt | Request]) -> Iterable[Prompt | Request]:
    """prompts itself; raises UsageError for a single prompt in its place."""
    if isinstance(prompts, str | bytes | Request | Mapping) or not isinstance(prompts, Iterable):
        raise UsageError(
            f"prompts is {shown(prompts)}, not a list of prompts: for a single one write [prompt], or use generate"
        )
    return prompts


def stream(batch: Batch, prompts: Iterable[Prompt | Request]) -> Iterator[Result]:
    """See Model.stream_batch."""
    for state in batch.run(enumerate(prompts)):
        yield state.tag, state.result()


def in_order(batch: Batch, prompts: Iterable[Prompt | Request]) -> list[Completion]:
    """All completions, by prompt and sample; raises BatchError if there is an error among them."""
    results = [((state.tag, state.sample), state.result()) for state in batch.run(enumerate(prompts))]
    ordered = [result for _, result in sorted(results, key=lambda pair: pair[0])]
    completions = [result for result in ordered if isinstance(result, Completion)]
    if len(completions) < len(ordered):
        raise BatchError(ordered)
    return completions
