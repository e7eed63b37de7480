"""Many prompts -> their texts, by one scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fastgpt_c.batching.request_state import Job, check_batchable
from fastgpt_c.batching.scheduler import Scheduler
from fastgpt_c.errors import BatchError, FastGPTError, UsageError
from fastgpt_c.generation.completion import Completion
from fastgpt_c.generation.options import Options
from fastgpt_c.generation.prompt import Prompt
from fastgpt_c.native.arguments import check_names, made, shown

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel
    from fastgpt_c.profiling.profile import Profile

Result = tuple[int, Completion | FastGPTError]

# Of the fields of Options, those that the prompts of a batch have in common.
COMMON = ("kv_cache", "kv_type", "deterministic", "n_threads")


class Request:
    """A prompt with options of its own: Request("Once upon a time", seed=7, stop="\\n").

    changes  fields of Options, but none of COMMON; raises UsageError for any other
    """

    def __init__(self, prompt: Prompt, **changes: Any) -> None:
        own = [field.name for field in fields(Options) if field.name not in COMMON]
        check_names(changes, own, "option of a single prompt")
        self.prompt, self.changes = prompt, changes


class Batch:
    """The settings of a batch, of which run may be called many times."""

    def __init__(
        self, model: LoadedModel, options: Options, *, max_batch: int, max_tokens_in_flight: int | None
    ) -> None:
        if not options.kv_cache:
            raise UsageError("kv_cache=False: a batch cannot do without KV caches")
        check_batchable(options)
        options.sampler(model.n_vocab, model.eos_tokens)  # refuses what no prompt could use
        self._model, self._options = model, options
        self._scheduler = Scheduler(
            model,
            max_batch=max_batch,
            max_tokens=max_tokens_in_flight,
            deterministic=options.deterministic,
            n_threads=options.n_threads,
            kv_type=options.kv_type,
        )

    def run(self, requests: Iterable[tuple[Any, Prompt | Request]]) -> Iterator[Job]:
        """The jobs of (tag, prompt), as they end."""
        return self._scheduler.run(self._job(tag, prompt) for tag, prompt in requests)

    def profile(self, n_events: int = 200_000) -> Profile:
        """with batch.profile() as p: times each op of the steps in the block, and the drawing of their tokens; as
        Session.profile does for one sequence."""
        return self._scheduler.profile(n_events)

    def _job(self, tag: Any, prompt: Prompt | Request) -> Job:
        request = prompt if isinstance(prompt, Request) else Request(prompt)
        return Job(tag, self._model, request.prompt, lambda: made(Options, "options", self._options, request.changes))


def checked_prompts(prompts: Iterable[Prompt | Request]) -> Iterable[Prompt | Request]:
    """prompts; UsageError for one prompt where many belong."""
    if isinstance(prompts, str | bytes | Request | Mapping) or not isinstance(prompts, Iterable):
        raise UsageError(
            f"prompts is {shown(prompts)}, not a list of prompts: for a single one write [prompt], or use generate"
        )
    return prompts


def stream(batch: Batch, prompts: Iterable[Prompt | Request]) -> Iterator[Result]:
    """See Model.stream_batch."""
    for job in batch.run(enumerate(prompts)):
        yield job.tag, job.error or job.completion()


def in_order(results: Iterable[Result]) -> list[Completion]:
    """All completions by index; raises BatchError if there is an error among them."""
    ordered = [result for _, result in sorted(results, key=lambda result: result[0])]
    completions = [result for result in ordered if isinstance(result, Completion)]
    if len(completions) < len(ordered):
        raise BatchError(ordered)
    return completions
