"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from fastgpt_c.batching.parameters import BadRequest
from fastgpt_c.errors import ContextFullError, FastGPTError, MissingExtraError, UsageError

MOST_CHARACTERS = 500  # of a message, which may quote megabytes of a request

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class HTTPError(Exception):
    """An answer that is an error.

    param    the field that is wrong, if it is one
    code     for programs
    headers  besides those that every answer has
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = {},
    ) -> None:
        super().__init__(status, message)
        self.status, self.param, self.code, self.headers = status, param, code, dict(headers)

    def __str__(self) -> str:
        return str(self.args[1])

    def body(self) -> dict[str, Any]:
        """As JSON has it."""
        message = str(self)
        shortened = message if len(message) <= MOST_CHARACTERS else message[:MOST_CHARACTERS] + "..."
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        param = self.param and self.param[:MOST_CHARACTERS]
        return {"error": {"message": shortened, "type": kind, "param": param, "code": self.code}}

    def encoded(self) -> bytes:
        """The JSON, in UTF-8."""
        return encoded(self.body())

    def response(self) -> Response:
        """What is sent."""
        return Response(self.encoded(), self.status, self.headers, "application/json")


def encoded(value: Any) -> bytes:
    """JSON in UTF-8; half of a surrogate pair, which UTF-8 cannot express, becomes JSON's escape for it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def from_library(error: FastGPTError, param: str | None = None) -> HTTPError:
    """The answer for an error of the library: a request's own fault where it could have been another one."""
    if isinstance(error, ContextFullError):
        return HTTPError(400, str(error), param=param, code="context_length_exceeded")
    if isinstance(error, UsageError | MissingExtraError):
        return HTTPError(400, str(error), param=param)
    return HTTPError(500, str(error), code="engine_error")


def overloaded(message: str, seconds: int) -> HTTPError:
    """Too much is waiting; it is worth asking again after so many seconds."""
    return HTTPError(429, message, code="overloaded", headers={"Retry-After": str(seconds)})


def unavailable(message: str, code: str) -> HTTPError:
    """Not now: loading, or about to end."""
    return HTTPError(503, message, code=code, headers={"Retry-After": "1"})


# ---- For Starlette ----


async def on_http_error(_: Request, error: Exception) -> Response:
    """Errors of our own."""
    assert isinstance(error, HTTPError)
    return error.response()


async def on_bad_request(_: Request, error: Exception) -> Response:
    """What a table refuses."""
    assert isinstance(error, BadRequest)
    return HTTPError(400, str(error), param=error.param).response()


async def on_library_error(_: Request, error: Exception) -> Response:
    """What the library refuses."""
    assert isinstance(error, FastGPTError)
    return from_library(error).response()


async def on_starlette_error(request: Request, error: Exception) -> Response:
    """No such path, or no such method there."""
    assert isinstance(error, HTTPException)
    headers = error.headers or {}
    if error.status_code == 404:
        return HTTPError(404, f"there is no {request.url.path}; /openapi.json lists what there is").response()
    message = f"{request.method} is not for {request.url.path}" if error.status_code == 405 else error.detail
    return HTTPError(error.status_code, message, headers=headers).response()


async def on_fault(_: Request, error: Exception) -> Response:
    """A fault of the server; its log has the traceback."""
    return HTTPError(500, f"the server failed: {type(error).__name__}", code="internal_error").response()


HANDLERS = {
    HTTPError: on_http_error,
    BadRequest: on_bad_request,
    FastGPTError: on_library_error,
    HTTPException: on_starlette_error,
    Exception: on_fault,
}
