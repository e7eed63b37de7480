"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from fastgpt_c.batching.parameters import BadRequest
from fastgpt_c.server.bodies import json_body
from fastgpt_c.server.completions import options_of
from fastgpt_c.server.errors import HTTPError
from fastgpt_c.server.forms import ChatForm
from fastgpt_c.server.generations import answer, make_plan, prepare
from fastgpt_c.server.parameters import CHAT
from fastgpt_c.server.steering import steered

if TYPE_CHECKING:
    from fastgpt_c.server.service import Service


async def chat(request: Request) -> Response:
    """The assistant's next turn."""
    service: Service = request.app.state.service
    values = CHAT.read(await json_body(request, service.settings.limits))
    service.check_ready()
    if not service.model.has_tokenizer:
        raise HTTPError(400, "the model has no tokenizer, and chats are text; use /v1/completions with token ids")
    messages, wants_logprobs = values.pop("messages"), values.pop("wants_logprobs", False)
    n_top = values.pop("top_logprobs", None)
    if n_top is not None and not wants_logprobs:
        raise BadRequest("top_logprobs needs logprobs", "top_logprobs")
    prompt = service.template.tokens(messages)
    options = options_of(values)
    options["logprobs"] = (n_top or 0) if wants_logprobs else None
    options["stop"] = (*options.get("stop", ()), *service.template.stop)
    # Where a chat does not say how long its answer may be, it may fill the context.
    options.setdefault("max_new_tokens", max(service.model.n_ctx - len(prompt), 1))
    options = steered(options, service.settings.control_vectors)
    plan = make_plan(values, [prompt], options, service.settings.limits.max_choices)
    plan = await prepare(service, plan, "messages")
    return await answer(service, request, plan, ChatForm(service.model))
