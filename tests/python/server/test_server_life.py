"""How a server begins and ends."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import SCRIPT, TIMEOUT, assert_complains, run, start
from served import Served, serving, serving_with

LONG = {"prompt": "Once upon a time", "max_tokens": 400, "ignore_eos": True, "stream": True}


def begin(server: Served, **body: Any) -> http.client.HTTPConnection:
    connection = server.connect()
    connection.request("POST", "/v1/completions", json.dumps(LONG | body))
    return connection


def test_sigterm_lets_streams_end() -> None:
    """All that are at work end whole; meanwhile new requests get 503, and so does /ready; the status is 0."""
    with serving("--max-batch", "8") as server:
        whole = server.events("/v1/completions", **LONG, seed=1)
        connections = [begin(server, seed=1) for _ in range(8)]
        answers = [connection.getresponse() for connection in connections]
        idle = server.connect()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("SIGTERM")
        assert server.request("GET", "/ready")[0] == 503
        assert server.request("GET", "/health")[0] == 200
        status, headers, data = server.request("POST", "/v1/completions", {"prompt": "a"})
        assert status == 503 and json.loads(data)["error"]["code"] == "shutting_down" and "retry-after" in headers
        for answer in answers:
            events = answer.read().decode().split("\n\n")
            assert len(events) == len(whole) + 1 and events[-2] == "data: [DONE]"
        assert server.process.wait(TIMEOUT) == 0
        idle.close()


def test_sigterm_fails_what_takes_too_long() -> None:
    """After --shutdown-timeout a stream gets an error event, and no [DONE]; the status is 0."""
    with serving("--shutdown-timeout", "0.2") as server:
        connection = begin(server, max_tokens=10**6, on_overflow="slide")
        answer = connection.getresponse()
        server.process.send_signal(signal.SIGTERM)
        *_, last, rest = answer.read().decode().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down" and rest == ""
        assert server.process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number: signal.Signals) -> None:
    """With the status of the signal."""
    with serving() as server:
        connection = begin(server, max_tokens=10**6, on_overflow="slide")
        connection.getresponse()
        server.process.send_signal(number)
        server.wait_for(number.name)
        server.process.send_signal(number)
        assert server.process.wait(TIMEOUT) == 128 + number


def test_idle_connections_do_not_keep_it() -> None:
    """Neither one that has sent nothing, nor one that is kept alive, nor one whose reader has stalled."""
    with serving() as server:
        silent, kept = server.open(), server.connect()
        kept.request("GET", "/health")
        kept.getresponse().read()
        assert server.stop() == 0
        silent.close()


def test_while_it_loads() -> None:
    """It lives, and is not ready; a signal ends it."""
    with serving_with("Settings(port=0)", load="threading.Event().wait()", is_ready=False) as server:
        assert server.get("/health") == {"status": "ok"}
        assert server.request("GET", "/ready")[0] == 503
        status, _, data = server.request("POST", "/v1/completions", {"prompt": "a"})
        assert status == 503 and json.loads(data)["error"]["code"] == "loading"
        assert server.stop() == 0


def test_a_killed_server_can_be_started_again() -> None:
    """kill -9: its port is free at once."""
    with serving() as server:
        port = server.address[1]
        begin(server).getresponse()
        server.process.kill()
        server.process.wait(TIMEOUT)
    with serving("--port", str(port)) as server:
        assert server.address[1] == port and server.get("/ready")


def test_a_port_that_is_taken(served: Served) -> None:
    """One line says so."""
    assert_complains(run("serve", "--port", str(served.address[1])), 1, "--port")


def request_through(path: Path) -> bytes:
    """The answer of a server behind a socket file."""
    with socket.socket(socket.AF_UNIX) as opened:
        opened.settimeout(TIMEOUT)
        opened.connect(str(path))
        opened.sendall(b"GET /ready HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: opened.recv(4096), b""))


def test_a_socket_file(tmp_path: Path) -> None:
    """Others cannot open it; it is gone after the end; one that was left is replaced, and no other file is."""
    path = tmp_path / "socket"
    with serving("--uds", path) as server:
        assert b"200 OK" in request_through(path)
        assert path.stat().st_mode & 0o007 == 0
        assert_complains(run("serve", "--uds", path), 1, str(path))
        server.process.kill()
        server.process.wait(TIMEOUT)
    with serving("--uds", path) as server:
        assert b"200 OK" in request_through(path)
        assert server.stop() == 0 and not path.exists()
    path.write_text("precious")
    assert_complains(run("serve", "--uds", path), 1, str(path))
    assert path.read_text() == "precious"


def test_a_socket_of_the_service_manager() -> None:
    """As systemd hands it over: descriptor 3, with LISTEN_FDS and LISTEN_PID."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        hand_over = (
            f"import os, sys; os.dup2({opened.fileno()}, 3); os.set_inheritable(3, True); "
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[1], sys.argv[1:])"
        )
        command = [sys.executable, "-c", hand_over, *SCRIPT, "serve"]
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        with start(command, pass_fds=[opened.fileno()], **pipes) as process:
            try:
                server = Served(process)
                server.url = "http://{}:{}".format(*opened.getsockname())
                server.wait_for("is ready")
                assert server.get("/ready")
                assert server.stop() == 0
            finally:
                process.kill()


def test_tls(tmp_path: Path) -> None:
    """https, where there is a certificate."""
    ssl = pytest.importorskip("ssl")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    with serving("--ssl-certfile", certificate, "--ssl-keyfile", key) as server:
        assert server.url.startswith("https://")
        context = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection(*server.address, timeout=TIMEOUT, context=context)
        connection.request("GET", "/ready")
        assert connection.getresponse().status == 200
