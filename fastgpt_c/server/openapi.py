"""GET /openapi.json: what the server answers, made of the tables that it reads requests by."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fastgpt_c import __version__
from fastgpt_c.batching.parameters import Table
from fastgpt_c.server import parameters

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

# Path, what it does, and the table of its requests.
POSTS: dict[str, tuple[str, Table]] = {
    "/v1/completions": ("Continues prompts.", parameters.COMPLETIONS),
    "/v1/chat/completions": ("Answers in a chat.", parameters.CHAT),
    "/v1/embeddings": ("Texts as vectors.", parameters.EMBEDDINGS),
    "/v1/score": ("How likely the tokens of a text are.", parameters.SCORE),
    "/v1/inspect": ("What happens inside the model while it reads a text.", parameters.INSPECT),
    "/tokenize": ("Text to token ids.", parameters.TOKENIZE),
    "/detokenize": ("Token ids to text.", parameters.DETOKENIZE),
}
STREAMS = ("/v1/completions", "/v1/chat/completions")
GETS = {
    "/v1/models": "The model, as a list of one.",
    "/v1/models/{name}": "The model of a name.",
    "/tokenizer_info": "The tokenizer's special tokens and the chat template.",
    "/health": "200 while the server lives.",
    "/ready": "200 while it is worth sending requests.",
    "/metrics": "Figures for Prometheus.",
    "/openapi.json": "This document.",
}
OPEN = ("/health", "/ready")


def document() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, Any] = {path: {"post": _post(path, about, table)} for path, (about, table) in POSTS.items()}
    paths |= {path: {"get": _get(path, about)} for path, about in GETS.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "fastgpt-c", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _post(path: str, about: str, table: Table) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if path in STREAMS:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    errors = _errors(400, 401, 403, 408, 413, 429, 503, 504)
    return {
        "summary": about,
        "requestBody": {"required": True, "content": {"application/json": {"schema": table.schema()}}},
        "responses": {"200": {"description": "OK", "content": content}} | errors,
        "security": [{}, {"key": []}],
    }


def _get(path: str, about: str) -> dict[str, Any]:
    kind = "text/plain" if path == "/metrics" else "application/json"
    found: dict[str, Any] = {
        "summary": about,
        "responses": {"200": {"description": "OK", "content": {kind: {}}}} | _errors(401, 403, 404, 503),
        "security": [{}] if path in OPEN else [{}, {"key": []}],
    }
    if "{name}" in path:
        found["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    return found


def _errors(*statuses: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    answer = {"description": "An error.", "content": {"application/json": {"schema": schema}}}
    return {str(status): answer for status in statuses}


async def openapi(_: Request) -> Response:
    """The document."""
    return JSONResponse(document())
