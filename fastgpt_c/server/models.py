"""GET /v1/models and /v1/models/ID."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fastgpt_c.server.errors import HTTPError

if TYPE_CHECKING:
    from fastgpt_c.server.service import Service


async def models(request: Request) -> Response:
    """The one model."""
    service: Service = request.app.state.service
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": "GET, HEAD, OPTIONS"})
    service.check_ready()
    return JSONResponse({"object": "list", "data": [_described(service)]})


async def model(request: Request) -> Response:
    """The model of that name."""
    service: Service = request.app.state.service
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": "GET, HEAD, OPTIONS"})
    service.check_ready()
    name = request.path_params["name"]
    if name != service.model_name:
        raise HTTPError(
            404, f"there is no model {name!r} here; there is {service.model_name!r}", param="model",
            code="model_not_found",
        )  # fmt: skip
    return JSONResponse(_described(service))


def _described(service: Service) -> dict[str, Any]:
    loaded = service.model
    return {
        "id": service.model_name,
        "object": "model",
        "created": service.created,
        "owned_by": "fastgpt-c",
        "max_model_len": loaded.n_ctx,
        "meta": {
            "n_params": loaded.n_params, "n_layer": loaded.n_layer, "n_head": loaded.n_head, "n_embd": loaded.n_embd,
            "n_vocab": loaded.n_vocab, "n_ctx": loaded.n_ctx, "type": loaded.type,
        },
    }  # fmt: skip
