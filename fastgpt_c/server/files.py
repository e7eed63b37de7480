"""The page and its files, as they lie in the package."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from fastgpt_c.server.errors import HTTPError

if TYPE_CHECKING:
    from importlib.abc import Traversable

TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png",
}  # fmt: skip

# The browser itself holds the page to its promise: it talks to this server alone.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def page(_: Request) -> Response:
    """The page itself."""
    return _file(_folder() / "studio" / "index.html", "index.html")


async def file(request: Request) -> Response:
    """A file of the folder pages/."""
    parts = request.path_params["name"].split("/")
    found: Traversable = _folder()
    for part in parts:
        if not part or part.startswith(".") or "\\" in part or not found.is_dir():
            raise _absent(request)
        found = found / part
    if not found.is_file():
        raise _absent(request)
    return _file(found, parts[-1])


def _folder() -> Traversable:
    return importlib.resources.files("fastgpt_c") / "pages"


def _file(found: Traversable, name: str) -> Response:
    kind = TYPES.get(name[name.rfind(".") :])
    if kind is None or not found.is_file():
        raise HTTPError(404, "there is no such file")
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}
    return Response(found.read_bytes(), media_type=kind, headers=headers)


def _absent(request: Request) -> HTTPError:
    return HTTPError(404, f"there is no {request.url.path}")
