"""A server of the command's, in a process of its own."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from command import SCRIPT, TIMEOUT, start

# A server with settings for which the command has no options.
PROGRAM = """\
import sys, threading
from fastgpt_c.model import load
from fastgpt_c.server.run import Server
from fastgpt_c.server.settings import Limits, Settings
from fastgpt_c.server.sockets import shown_address
def say(what): print(what, file=sys.stderr, flush=True)
Server(eval(sys.argv[1]), lambda: eval(sys.argv[2]),
       on_listening=lambda opened: say(f"listening on {shown_address(opened[0], tls=False)}"),
       on_ready=lambda model: say("the model is ready")).run()
"""


class Served:
    """A server that runs: process, url, log (lines of stderr so far)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.url, self.log = process, "", list[str]()
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.log.append(line.decode().rstrip("\n"))
                self._changed.notify_all()

    def wait_for(self, text: str) -> str:
        """The first line of the log with text in it."""

        def found() -> str | None:
            return next((line for line in self.log if text in line), None)

        with self._changed:
            assert self._changed.wait_for(found, TIMEOUT), self.log
            return found() or ""

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (small letters) and body; a body that is no bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = self.connect()
        try:
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def post(self, path: str, **body: Any) -> Any:
        """The JSON of an answer that is no error."""
        status, _, data = self.request("POST", path, body)
        assert status == 200, data
        return json.loads(data)

    def get(self, path: str) -> Any:
        """Likewise."""
        status, _, data = self.request("GET", path)
        assert status == 200, data
        return json.loads(data)

    def events(self, path: str, **body: Any) -> list[Any]:
        """The data of a stream's events, in JSON but for the last one's."""
        status, headers, data = self.request("POST", path, {**body, "stream": True})
        assert status == 200 and headers["content-type"].startswith("text/event-stream"), data
        events = data.decode().split("\n\n")
        assert events.pop() == "" and all(event.startswith("data: ") for event in events), data
        return [event[6:] if event[6:] == "[DONE]" else json.loads(event[6:]) for event in events]

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own."""
        return http.client.HTTPConnection(self.address[0], self.address[1], timeout=TIMEOUT)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def open(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(self.address, TIMEOUT)

    def metric(self, name: str, **labels: str) -> float:
        """A figure of /metrics, 0 where there is none."""
        wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
        begin = f"fastgpt:{name}{{{wanted}}} " if wanted else f"fastgpt:{name} "
        lines = self.request("GET", "/metrics")[2].decode().splitlines()
        return next((float(line[len(begin) :]) for line in lines if line.startswith(begin)), 0.0)

    def n_files(self) -> int:
        """Descriptors that the process has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def wait_idle(self) -> None:
        """Until no text is at work or waits."""
        wait_until(lambda: not self.metric("num_requests_running") and not self.metric("num_requests_waiting"))

    def stop(self) -> int:
        """Asks it to end -> its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)


def wait_until(is_true: Any) -> None:
    """Fails if that takes too long."""
    end = time.monotonic() + TIMEOUT
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def serving(*options: str | Path, is_ready: bool = True) -> Iterator[Served]:
    """fastgpt-c serve with options, at a port of its own."""
    with _served([*SCRIPT, "serve", "--port", "0", *options], is_ready) as served:
        yield served


@contextmanager
def serving_with(settings: str, *, load: str = "load()", is_ready: bool = True) -> Iterator[Served]:
    """A server with the Settings that an expression makes, and the model that another one gives."""
    with _served([sys.executable, "-c", PROGRAM, settings, load], is_ready) as served:
        yield served


@contextmanager
def _served(command: list[str | Path], is_ready: bool) -> Iterator[Served]:
    with start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            served = Served(process)
            served.url = served.wait_for("listening on ").rpartition("listening on ")[2]
            if is_ready:
                served.wait_for("is ready")
            yield served
        finally:
            process.kill()
