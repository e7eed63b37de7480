"""The gate that every request passes: who may ask, from where, under which name; and what every answer carries.

A page of another site can make a browser send requests to this machine.  So a request must name this server as its
Host (against names that an attacker's DNS points here), and one that a page of another origin makes is refused unless
the operator has named that origin.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastgpt_c.server.errors import HTTPError

if TYPE_CHECKING:
    from fastgpt_c.server.service import Service

log = logging.getLogger("fastgpt_c.server.access")

# Without a key: whether the server lives, and the page, which asks for the key.
OPEN_PATHS = frozenset(["/", "/health", "/ready", "/favicon.ico"])
OPEN_FOLDER = "/pages/"

_ID = re.compile(r"[\x21-\x7e]{1,128}")
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]/@]+))(?::\d{1,5})?")

ALLOWED_HEADERS = (
    "authorization", "content-type", "x-request-id", "x-stainless-arch", "x-stainless-async",
    "x-stainless-helper-method", "x-stainless-lang", "x-stainless-os", "x-stainless-package-version",
    "x-stainless-poll-helper",
    "x-stainless-custom-poll-interval", "x-stainless-read-timeout", "x-stainless-retry-count", "x-stainless-runtime",
    "x-stainless-runtime-version", "x-stainless-timeout", "openai-organization", "openai-project", "openai-beta",
)  # fmt: skip
EXPOSED_HEADERS = ("x-request-id", "retry-after")

# For everything but the page: nothing of an answer is a document.
API_POLICY = "default-src 'none'; frame-ancestors 'none'"


class Gate:
    """ASGI middleware around app."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        settings = service.settings
        self._keys = [key.encode() for key in settings.keys]
        self._origins = frozenset(settings.origins)
        self._hosts = frozenset(host.lower() for host in (*settings.hosts, settings.host))
        self._is_local_file = settings.uds is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        answer = _Answer(send, self._headers(headers))
        self._service.n_at_work += 1
        begun = time.monotonic()
        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                await refusal(scope, receive, answer.send)
            else:
                await self._app(scope, receive, answer.send)
        finally:
            self._service.n_at_work -= 1
            self._note(scope, answer, time.monotonic() - begun)

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        """The answer of the gate itself, or None: the request may pass."""
        origin = headers.get("origin")
        if not self._knows_host(headers.get("host", "")):
            message = "the request is for another host; name those of this server with --allowed-host"
            return HTTPError(403, message, code="foreign_host").response()
        if origin is not None and not self._knows_origin(origin, scope, headers):
            message = "the request comes from a page of another origin; allow it with --cors-origin"
            return HTTPError(403, message, code="foreign_origin").response()
        if origin is not None and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            return Response(status_code=204)
        if self._keys and not is_open(scope["path"]) and not self._has_key(headers):
            return HTTPError(
                401, "no such API key; send it as Authorization: Bearer KEY", code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            ).response()  # fmt: skip
        return None

    def _has_key(self, headers: Headers) -> bool:
        """All keys are compared, each in a time that does not depend on what is equal."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given_key = given.strip().encode()
        matches = [hmac.compare_digest(given_key, key) for key in self._keys]
        return scheme.lower() == "bearer" and any(matches)

    def _knows_host(self, host: str) -> bool:
        if self._is_local_file or "*" in self._hosts:
            return True
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = (found["v6"] or found["name"]).lower().rstrip(".")
        return name == "localhost" or name in self._hosts or _is_address(name)

    def _knows_origin(self, origin: str, scope: Scope, headers: Headers) -> bool:
        own = f"{scope['scheme']}://{headers.get('host', '')}"
        return origin == own or origin in self._origins or "*" in self._origins

    def _headers(self, headers: Headers) -> dict[str, str]:
        """Those of the answer."""
        given = headers.get("x-request-id", "")
        answered = {
            "x-request-id": given if _ID.fullmatch(given) else f"req_{secrets.token_hex(12)}",
            "x-content-type-options": "nosniff",
        }
        origin = headers.get("origin")
        if origin is not None and self._origins and (origin in self._origins or "*" in self._origins):
            answered |= {
                "access-control-allow-origin": origin,
                "access-control-allow-methods": "GET, POST, OPTIONS",
                "access-control-allow-headers": ", ".join(ALLOWED_HEADERS),
                "access-control-expose-headers": ", ".join(EXPOSED_HEADERS),
                "access-control-max-age": "600",
                "vary": "Origin",
            }
        return answered

    def _note(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        route = scope.get("route")
        path = getattr(route, "path", "other")  # what clients make up would fill the metrics
        self._service.metrics.answers.labels(path, str(answer.status)).inc()
        log.info("%s %s %s %d %.3f s", answer.headers["x-request-id"], scope["method"], path, answer.status, seconds)


class _Answer:
    """Adds headers to an answer, and notes its status; 0 = there was none."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send, self.headers = send, headers
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            for name, value in self.headers.items():
                headers.setdefault(name, value)
            headers.setdefault("content-security-policy", API_POLICY)
            message = {**message, "headers": headers.raw}
        await self._send(message)


def is_open(path: str) -> bool:
    """Whether a path is served to everybody."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def _is_address(name: str) -> bool:
    """Names can be made to point here; addresses cannot."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a socket of that host."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def clean_keys(lines: Iterable[str]) -> tuple[str, ...]:
    """Keys, one a line; blank lines and those that begin with # do not count."""
    stripped = (line.strip() for line in lines)
    return tuple(line for line in stripped if line and not line.startswith("#"))
