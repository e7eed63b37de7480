"""GET /health, /ready and /metrics: for whoever runs the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from fastgpt_c.server.service import Service

# With work to do, no step takes so long.
MOST_SECONDS_A_STEP = 30.0


async def health(_: Request) -> Response:
    """It lives, busy or not."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """Whether it is worth sending requests."""
    service: Service = request.app.state.service
    service.check_ready(MOST_SECONDS_A_STEP)
    return JSONResponse({"status": "ready"})


async def metrics(request: Request) -> Response:
    """For Prometheus."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
