"""POST /v1/embeddings."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from fastgpt_c.errors import FastGPTError
from fastgpt_c.generation.prompt import Prompt, tokens_of_prompt
from fastgpt_c.native.arguments import Floats
from fastgpt_c.server.bodies import json_body
from fastgpt_c.server.errors import HTTPError, encoded, from_library
from fastgpt_c.server.parameters import EMBEDDINGS

if TYPE_CHECKING:
    from fastgpt_c.model import Model
    from fastgpt_c.server.service import Service


async def embeddings(request: Request) -> Response:
    """Each text as one vector."""
    service: Service = request.app.state.service
    limits = service.settings.limits
    values = EMBEDDINGS.read(await json_body(request, limits))
    service.check_ready()
    inputs: list[Prompt] = values["inputs"]
    if len(inputs) > limits.max_inputs:
        raise HTTPError(400, f"input has {len(inputs)} texts, more than {limits.max_inputs}", param="input")
    pooling, form = values.get("pooling", "last"), values.get("encoding_format", "float")
    pieces = [partial(_embed, service.model, one, pooling) for one in inputs]
    results = await service.side.run(request, pieces)
    data = [
        {"object": "embedding", "index": i, "embedding": _written(vector, form)}
        for i, (vector, _) in enumerate(results)
    ]
    n_tokens = sum(n for _, n in results)
    body = {
        "object": "list",
        "data": data,
        "model": service.model_name,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }
    return Response(encoded(body), media_type="application/json")


def _embed(model: Model, text: Prompt, pooling: str) -> tuple[Floats, int]:
    """Of a text: its vector, and its number of tokens."""
    try:
        tokens = tokens_of_prompt(model, text)
        return model.embed(tokens, pooling), len(tokens)
    except FastGPTError as error:
        raise from_library(error, "input") from None


def _written(vector: Floats, form: str) -> Any:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if form == "base64" else vector.tolist()
