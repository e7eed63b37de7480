"""A Hugging Face hub of one repository on the loopback interface: the routes that huggingface_hub needs."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


@dataclass
class Hub:
    """repository has the files of folder; any other name is unknown, except for one gated repository.

    drop_after: file -> number of bytes after which its next transfer is cut off, once.
    requests:   (method, path, Range header) of everything that was asked for.
    """

    repository: str
    folder: Path
    drop_after: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def fetched(self) -> list[str]:
        """The files that GET requests asked for, in order."""
        return [path.rpartition("/")[2] for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]

    def listing(self) -> list[dict[str, object]]:
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        return [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": etag(f)} for f in files]


def etag(path: Path) -> str:
    return hashlib.sha1(path.name.encode() + path.read_bytes()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        name = self.hub.repository
        if path.startswith(f"/api/models/{name}/revision/"):
            siblings = [{"rfilename": file["path"]} for file in self.hub.listing()]
            self._send_json({"id": name, "sha": COMMIT, "siblings": siblings})
        elif path.startswith(f"/api/models/{name}/tree/"):
            self._send_json(self.hub.listing())
        elif path.startswith(f"/{name}/resolve/"):
            self._send_file(self.hub.folder / path.rpartition("/")[2])
        elif "/gated/" in path:
            self._send_error(403, "GatedRepo")
        else:
            self._send_error(404, "RepoNotFound")

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send_error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code})

    def _send_file(self, path: Path) -> None:
        if not path.is_file():
            return self._send_error(404, "EntryNotFound")
        data, status = path.read_bytes(), 200
        headers = {"ETag": f'"{etag(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start, status = int(match[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        limit = self.hub.drop_after.pop(path.name, None) if self.command == "GET" else None
        self._send(status, data, headers, limit)

    def _send(self, status: int, body: bytes, headers: dict[str, str], limit: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:limit])
        if limit is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Silent: requests are kept in the hub."""


@contextmanager
def serve(repository: str, folder: Path) -> Iterator[Hub]:
    hub = Hub(repository, folder)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
