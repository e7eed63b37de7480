"""POST /v1/completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from fastgpt_c.batching.parameters import BadRequest
from fastgpt_c.server.bodies import json_body
from fastgpt_c.server.forms import CompletionForm
from fastgpt_c.server.generations import Plan, answer, make_plan, prepare, with_prompt_rows
from fastgpt_c.server.parameters import COMPLETIONS
from fastgpt_c.server.steering import FIELD, steered

if TYPE_CHECKING:
    from fastgpt_c.server.service import Service

# OpenAI's, where a request does not say.
MAX_TOKENS = 16

_OF_PLAN = ("n", "best_of", "stream", "include_usage")


def options_of(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of Options among the values of a table."""
    return {name: value for name, value in values.items() if name not in _OF_PLAN}


async def completions(request: Request) -> Response:
    """Texts that continue prompts."""
    service: Service = request.app.state.service
    values = COMPLETIONS.read(await json_body(request, service.settings.limits))
    service.check_ready()
    prompts, echo = values.pop("prompts"), values.pop("echo", False)
    token_ids = values.pop("return_token_ids", False)
    options = {"max_new_tokens": MAX_TOKENS} | options_of(values)
    options = steered(options, service.settings.control_vectors)
    plan = make_plan(values, prompts, options, service.settings.limits.max_choices)
    plan = await prepare(service, plan, "prompt")
    if echo and values.get("logprobs") is not None:
        if options.get(FIELD) is not None:
            raise BadRequest(
                "echo scores prompts without control vectors: leave it, logprobs or control_vector out", FIELD
            )
        plan = await with_prompt_rows(service, request, plan, values["logprobs"])
    texts = [_text_of(service, plan, i) for i in range(len(prompts))]
    wants_logprobs = values.get("logprobs") is not None
    form = CompletionForm(
        service.model, plan.n, texts, plan.prompt_rows, echo=echo, logprobs=wants_logprobs, token_ids=token_ids
    )
    return await answer(service, request, plan, form)


def _text_of(service: Service, plan: Plan, i: int) -> str:
    """The text of prompt i; the end of it where it was cut."""
    prompt, read = plan.prompts[i], plan.states[i * plan.n_drawn].prompt
    if isinstance(prompt, str) and (not prompt or len(service.model.encode(prompt)) == len(read)):
        return prompt
    return service.model.decode(read) if prompt and service.model.has_tokenizer else ""
