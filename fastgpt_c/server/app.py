"""The application: which path is answered by what."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp

from fastgpt_c.server.chat import chat
from fastgpt_c.server.completions import completions
from fastgpt_c.server.embeddings import embeddings
from fastgpt_c.server.errors import HANDLERS
from fastgpt_c.server.files import file, page
from fastgpt_c.server.health import health, metrics, ready
from fastgpt_c.server.looks import inspect, score
from fastgpt_c.server.models import model, models
from fastgpt_c.server.openapi import openapi
from fastgpt_c.server.security import Gate
from fastgpt_c.server.service import Service
from fastgpt_c.server.tokens import detokenize, tokenize, tokenizer_info

ROUTES = [
    Route("/", page),
    Route("/pages/{name:path}", file),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/chat/completions", chat, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/score", score, methods=["POST"]),
    Route("/v1/inspect", inspect, methods=["POST"]),
    Route("/v1/models", models, methods=["GET", "OPTIONS"]),
    Route("/v1/models/{name:path}", model, methods=["GET", "OPTIONS"]),
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
    Route("/tokenizer_info", tokenizer_info),
    Route("/health", health),
    Route("/ready", ready),
    Route("/metrics", metrics),
    Route("/openapi.json", openapi),
]


def make_app(service: Service) -> ASGIApp:
    """The application around a service, which may be opened later."""
    app = Starlette(routes=ROUTES, middleware=[Middleware(Gate, service=service)], exception_handlers=dict(HANDLERS))
    app.router.redirect_slashes = False
    app.state.service = service
    return app
