"""From the body of a request to its texts: what completions and chats have in common.

values of a table -> Plan (a RequestState for each text) -> the engine -> a body, or a stream of events
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from fastgpt_c.batching.live_engine import Event
from fastgpt_c.batching.openai_choices import usage
from fastgpt_c.batching.parameters import JSON
from fastgpt_c.batching.request_state import RequestState
from fastgpt_c.batching.requests import derived_seed
from fastgpt_c.engine.log_probs import TokenLogProb
from fastgpt_c.errors import FastGPTError
from fastgpt_c.generation.completion import Completion
from fastgpt_c.generation.options import Options
from fastgpt_c.generation.prompt import Prompt
from fastgpt_c.server.engine_link import Group
from fastgpt_c.server.errors import HTTPError, encoded, from_library
from fastgpt_c.server.forms import Form
from fastgpt_c.server.side_work import rows_of
from fastgpt_c.server.streams import DONE, EventStream, event

if TYPE_CHECKING:
    from fastgpt_c.server.service import Service

log = logging.getLogger("fastgpt_c.server")

# A prompt of more characters is encoded beside the event loop.
MOST_CHARACTERS_IN_LOOP = 4096
CONSTRAINTS = ("regex", "json_schema", "grammar")
# OpenAI's, where a request does not say.
DEFAULTS = {"temperature": 1.0, "top_p": 1.0}


@dataclass(frozen=True)
class Plan:
    """What a request asks for.

    prompts     text or token ids
    n           texts of each prompt that are wanted, and n_drawn of which they are the likeliest
    options     fields of Options for all texts
    stream, include_usage
                piece by piece, with a last event that has the usage
    states      n_drawn of each prompt
    prompt_rows log-probabilities of the tokens of each prompt, where they are wanted
    """

    prompts: Sequence[Prompt]
    n: int
    n_drawn: int
    options: Mapping[str, Any]
    stream: bool
    include_usage: bool
    states: list[RequestState] = field(default_factory=list)
    prompt_rows: list[list[TokenLogProb]] = field(default_factory=list)

    @property
    def n_prompt_tokens(self) -> int:
        """Each prompt counts once."""
        return sum(len(state.prompt) for state in self.states[:: self.n_drawn])


def make_plan(values: JSON, prompts: Sequence[Prompt], options: Mapping[str, Any], max_choices: int) -> Plan:
    """values are those of a table, from which n, best_of, stream and include_usage are taken.  Raises HTTPError 400."""
    n = values.pop("n", 1)
    n_drawn = values.pop("best_of", n)
    stream = values.pop("stream", False)
    include_usage = values.pop("include_usage", None)
    if n_drawn < n:
        raise HTTPError(400, f"best_of is {n_drawn}, less than n, which is {n}", param="best_of")
    if stream and n_drawn > n:
        raise HTTPError(400, "best_of chooses among whole texts: leave stream or best_of out", param="best_of")
    if include_usage is not None and not stream:
        raise HTTPError(400, "stream_options needs stream", param="stream_options")
    if len(prompts) * n_drawn > max_choices:
        raise HTTPError(400, f"{len(prompts)} prompts with {n_drawn} texts each exceed {max_choices} texts", param="n")
    if n_drawn > n and options.get("logprobs") is None:
        options = {**options, "logprobs": 0}  # to choose by
    return Plan(prompts, n, n_drawn, {**DEFAULTS, **options}, stream, bool(include_usage))


async def prepare(service: Service, plan: Plan, param: str) -> Plan:
    """plan with its states, none of which has failed.  Raises HTTPError; param names the field of the prompts."""
    service.link.check_room()
    make = partial(_states, service, plan)
    is_long = sum(len(prompt) for prompt in plan.prompts) * plan.n_drawn > MOST_CHARACTERS_IN_LOOP
    has_constraint = any(plan.options.get(name) is not None for name in CONSTRAINTS)
    if is_long or has_constraint:
        states = await asyncio.get_running_loop().run_in_executor(service.preparing, make)
    else:
        states = make()
    for i, state in enumerate(states):
        if state.error is not None:
            error = from_library(state.error, _param_of(state.error, plan, param))
            number = i // plan.n_drawn
            if len(plan.prompts) > 1:
                error.args = (error.status, f"prompt {number}: {error}")
            raise error
    return replace(plan, states=states)


async def with_prompt_rows(service: Service, request: Request, plan: Plan, n_top: int) -> Plan:
    """plan with the log-probabilities of its prompts' tokens, the first NaN; none of an empty prompt."""
    read = [
        state.prompt if prompt else [] for prompt, state in zip(plan.prompts, plan.states[:: plan.n_drawn], strict=True)
    ]
    rows = await service.side.run(request, [partial(_rows, service, tokens, n_top) for tokens in read])
    return replace(plan, prompt_rows=rows)


def _rows(service: Service, tokens: list[int], n_top: int) -> list[TokenLogProb]:
    return rows_of(service.side.scores(tokens, n_top)) if tokens else []


def _param_of(error: FastGPTError, plan: Plan, prompt: str) -> str:
    """Which field an error of a state is about: an option or a constraint that it names, else the prompt."""
    message = str(error)
    name = message.partition(" ")[0]
    if name in Options.__dataclass_fields__:
        return name
    given = (name for name in CONSTRAINTS if plan.options.get(name) is not None)
    return next((name for name in given if name in message), prompt)


def _states(service: Service, plan: Plan) -> list[RequestState]:
    return [
        RequestState(None, sample, service.model, prompt, partial(_options, plan, sample), streams=plan.stream)
        for prompt in plan.prompts
        for sample in range(plan.n_drawn)
    ]


def _options(plan: Plan, sample: int) -> Options:
    """As a batch has it: the first text draws from the seed, the others from seeds that are made of it."""
    options = Options(**plan.options)
    if sample == 0 or options.seed is None:
        return options
    return replace(options, seed=derived_seed(options.seed, str(sample)))


# ---- Answers ----


async def answer(service: Service, request: Request, plan: Plan, form: Form) -> Response:
    """The texts of a plan in a form.  Raises HTTPError."""
    group = service.link.submit(plan.states, service.client_of(request))
    if plan.stream:
        pieces = _pieces(service, request, group, plan, form)
        return EventStream(await anext(pieces), pieces)  # an error before the first has a status of its own
    async with _attended(service, request, group):
        completions = await _completions(group, len(plan.states))
    service.log_texts(plan.prompts, completions)
    head = _head(service, form, form.object)
    chosen = _chosen(plan, completions)
    body = head | {
        "choices": [form.choice(i, completion) for i, completion in enumerate(chosen)],
        "usage": _usage(plan, completions),
    }
    return Response(encoded(body), media_type="application/json")


def _head(service: Service, form: Form, kind: str) -> JSON:
    return {
        "id": f"{form.prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": service.model_name,
    }


def _usage(plan: Plan, completions: Sequence[Completion]) -> JSON:
    n_new = sum(len(completion.tokens) for completion in completions)
    n_reused = sum(completion.n_reused for completion in completions[:: plan.n_drawn])
    return usage(plan.n_prompt_tokens, n_new) | {"prompt_tokens_details": {"cached_tokens": n_reused}}


def _chosen(plan: Plan, completions: Sequence[Completion]) -> list[Completion]:
    """Of each prompt the n likeliest, by the mean log-probability of a token; all of them in their order."""
    if plan.n == plan.n_drawn:
        return list(completions)
    chosen: list[Completion] = []
    for first in range(0, len(completions), plan.n_drawn):
        chosen += sorted(completions[first : first + plan.n_drawn], key=_likelihood, reverse=True)[: plan.n]
    return chosen


def _likelihood(completion: Completion) -> float:
    rows = completion.logprobs or ()
    return sum(row.logprob for row in rows) / max(len(rows), 1)


async def _completions(group: Group, n: int) -> list[Completion]:
    """Waits for all texts.  Raises HTTPError for the first that fails."""
    ends: list[Completion | None] = [None] * n
    while group.n_left or None in ends:
        for number, happened in await group.next():
            if isinstance(happened.end, FastGPTError):
                raise from_library(happened.end)
            if happened.end is not None:
                ends[number] = happened.end
    return [end for end in ends if end is not None]


async def _pieces(
    service: Service, request: Request, group: Group, plan: Plan, form: Form
) -> AsyncGenerator[bytes, None]:
    """The events of a stream."""
    stream = Stream(_head(service, form, form.chunk_object), form, plan)
    has_begun = False
    try:
        async with _attended(service, request, group):
            while group.n_left or stream.n_open:
                data = stream.events(await group.next())
                if data:
                    yield data
                    has_begun = True
    except HTTPError as error:
        if not has_begun:
            raise
        yield event(error.encoded())
        return
    service.log_texts(plan.prompts, stream.completions)
    if plan.include_usage:
        yield stream.chunk([], _usage(plan, stream.completions))
    yield DONE


class Stream:
    """What has happened -> events in a form.

    n_open       texts that have not ended
    completions  of those that have
    """

    def __init__(self, head: JSON, form: Form, plan: Plan) -> None:
        self._form = form
        # An event is this, its choice, and the end; only the choice is made anew for each.
        self._begin = b"data: " + encoded(head)[:-1] + b',"choices":['
        self._end = b'],"usage":null}\n\n' if plan.include_usage else b"]}\n\n"
        self._has_opened = [False] * len(plan.states)
        self._completions: dict[int, Completion] = {}
        self.n_open = len(plan.states)

    @property
    def completions(self) -> list[Completion]:
        return [completion for _, completion in sorted(self._completions.items())]

    def events(self, happened: Sequence[tuple[int, Event]]) -> bytes:
        """The events of what has happened, often none.  Raises HTTPError for a text that failed."""
        choices: list[bytes] = []
        for number, one in happened:
            if isinstance(one.end, FastGPTError):
                raise from_library(one.end)
            if not self._has_opened[number]:
                self._has_opened[number] = True
                choices += self._form.opening(number)
            if one.end is None:
                piece = self._form.piece(number, one)
                choices += [] if piece is None else [piece]
            else:
                self.n_open -= 1
                self._completions[number] = one.end
                choices.append(self._form.ending(number, one.text, one.end))
        return b"".join([self._begin + choice + self._end for choice in choices])

    def chunk(self, choices: Sequence[JSON], counted: JSON) -> bytes:
        """An event with the usage."""
        return self._begin + b",".join(map(encoded, choices)) + b'],"usage":' + encoded(counted) + b"}\n\n"


@asynccontextmanager
async def _attended(service: Service, request: Request, group: Group) -> AsyncIterator[None]:
    """In the block, a client that goes away or a time that is over ends the group; after it, nothing of it is left."""
    loop = asyncio.get_running_loop()
    watcher = asyncio.ensure_future(_watch(request, group))
    seconds = service.settings.limits.request_seconds
    timer = None if seconds is None else loop.call_later(seconds, group.fail, _took_too_long(seconds))
    try:
        yield
    finally:
        watcher.cancel()
        if timer is not None:
            timer.cancel()
        service.link.leave(group)


async def _watch(request: Request, group: Group) -> None:
    """The body has been read, so the next message is the client's going away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    group.fail(HTTPError(499, "the client has gone"))


def _took_too_long(seconds: float) -> HTTPError:
    return HTTPError(
        504, f"the request took more than {seconds:g} s", code="request_timeout", headers={"x-should-retry": "false"}
    )
