"""An object store on this machine: moto's S3 on a free port, well or ill."""

from __future__ import annotations

import random
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret-key",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
ILLNESSES = (("500 Internal Server Error", "InternalError"), ("503 Service Unavailable", "SlowDown"))


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Nothing."""


class ObjectStore:
    """share     of calls that are answered 500 or 503; half of those are done nevertheless
    refused   answers 403 to all
    n_calls, n_ill
              answered in all, and so
    environment
              what makes a client use it
    """

    def __init__(self) -> None:
        self.share, self.refused, self.n_calls, self.n_ill = 0.0, False, 0, 0
        self._rng, self._lock = random.Random(0), threading.Lock()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.environment = ENVIRONMENT | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}"}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.n_calls += 1
            is_ill, is_done = self._rng.random() < self.share, self._rng.random() < 0.5
            status, code = self._rng.choice(ILLNESSES)
            self.n_ill += is_ill
        if self.refused or (is_ill and not is_done):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # or the client's writing breaks off
        if self.refused:
            return _error(environ, start, "403 Forbidden", "AccessDenied")
        if not is_ill:
            return list(self._moto(environ, start))
        if is_done:
            list(self._moto(environ, lambda *_: lambda _: None))
        return _error(environ, start, status, code)


def _error(environ: dict[str, Any], start: Callable[..., Any], status: str, code: str) -> list[bytes]:
    error = ElementTree.Element("Error")
    ElementTree.SubElement(error, "Code").text = code
    ElementTree.SubElement(error, "Message").text = f"a test says {code}"
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else ElementTree.tostring(error)
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body))), ("Connection", "close")])
    return [body]


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """With an empty bucket BUCKET."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    store = ObjectStore()
    try:
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        backend.reset()
        backend.create_bucket(BUCKET, "us-east-1")
        yield store
    finally:
        store.close()
