"""The body of a request: read within limits, and parsed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from fastgpt_c.batching.parameters import JSON, BadRequest, json_object
from fastgpt_c.server.errors import HTTPError
from fastgpt_c.server.settings import Limits

# Of a body that is too long, so much is taken and dropped: a client that is still sending sees no answer.
MOST_DROPPED = 1 << 26


async def json_body(request: Request, limits: Limits) -> JSON:
    """The object in the body.  Raises HTTPError 400, 408 or 413, BadRequest, and ClientDisconnect."""
    try:
        data = await asyncio.wait_for(_read(request, limits), limits.body_seconds)
    except asyncio.TimeoutError:
        raise HTTPError(
            408, f"the body took more than {limits.body_seconds:g} s", headers={"Connection": "close"}
        ) from None
    body = json_object(data)
    if data.count(b"[") + data.count(b"{") > limits.max_depth:
        _check_depth(body, limits.max_depth)
    return body


async def _read(request: Request, limits: Limits) -> bytes:
    if _announced(request) > MOST_DROPPED:
        raise _too_long(limits)
    data, n_dropped = bytearray(), 0
    async for piece in request.stream():
        if n_dropped or len(data) + len(piece) > limits.max_body:
            n_dropped += len(data) + len(piece)
            data.clear()
            if n_dropped > MOST_DROPPED:
                break
        else:
            data += piece
    if n_dropped:
        raise _too_long(limits)
    return bytes(data)


def _announced(request: Request) -> int:
    """Its content-length, which the parser has checked; 0 where it has none."""
    return int(request.headers.get("content-length", "0"))


def _too_long(limits: Limits) -> HTTPError:
    return HTTPError(413, f"a body may have {limits.max_body} bytes", headers={"Connection": "close"})


def _check_depth(body: JSON, max_depth: int) -> None:
    level: list[Any] = [body]
    for _ in range(max_depth):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise BadRequest(f"the JSON is nested deeper than {max_depth} levels")


def _children(value: Any) -> Iterator[Any]:
    """Arrays and objects in an array or object."""
    values = value.values() if isinstance(value, dict) else value
    return (child for child in values if isinstance(child, list | dict))


__all__ = ["ClientDisconnect", "json_body"]
