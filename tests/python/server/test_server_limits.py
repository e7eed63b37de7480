"""Clients that are slow, or send too much head: an error, or an end, and nobody else waits for them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import TIMEOUT
from served import Served, serving_with, wait_until

LIMITS = "Limits(head_seconds=0.5, body_seconds=0.5, stall_seconds=0.5, keep_alive_seconds=0.5)"
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def hasty() -> Iterator[Served]:
    """Waits half a second for anything."""
    with serving_with(f"Settings(port=0, limits={LIMITS})") as server:
        yield server


def rest_of(opened: socket.socket) -> bytes:
    """All that still comes, until the server closes."""
    data = b""
    try:
        while piece := opened.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def said(server: Served, *parts: bytes, pause: float = 0.0) -> bytes:
    """The answer to bytes that come in parts."""
    with server.open() as opened:
        for part in parts:
            opened.sendall(part)
            time.sleep(pause)
        return rest_of(opened)


def assert_is(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert json.loads(body)["error"].keys() == {"message", "type", "param", "code"}


def test_slow_heads(hasty: Served) -> None:
    """408 for one that begins and does not end, however often a byte comes; an end for a client that says nothing."""
    assert_is(said(hasty, HEAD), 408)
    assert_is(said(hasty, *([HEAD] + [b"X-A: b\r\n"] * 5), pause=0.11), 408)
    assert said(hasty) == b""


def test_slow_bodies(hasty: Served) -> None:
    """408, of a length that is said and of one that is not."""
    assert_is(said(hasty, HEAD + b"Content-Length: 100\r\n\r\n{"), 408)
    assert_is(said(hasty, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"), 408)


def test_long_heads(hasty: Served) -> None:
    """431 for many bytes, in one field or many, complete or not, and for many fields; others are served."""
    assert_is(said(hasty, b"GET /health HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n"), 431)
    assert_is(said(hasty, b"GET /health HTTP/1.1\r\nX: " + b"a" * 17000), 431)
    assert_is(said(hasty, b"GET /" + b"a" * 17000 + b" HTTP/1.1\r\n\r\n"), 431)
    assert_is(said(hasty, b"GET /health HTTP/1.1\r\n" + b"".join(b"X%d: a\r\n" % i for i in range(65)) + b"\r\n"), 431)
    fields = b"".join(b"X%d: %s\r\n" % (i, b"a" * 200) for i in range(60))
    end = b"Connection: close\r\nHost: localhost\r\n\r\n"
    assert b"200 OK" in said(hasty, b"GET /health HTTP/1.1\r\n" + fields + end)


def test_what_is_no_http(hasty: Served) -> None:
    """400, as JSON."""
    assert_is(said(hasty, b"\x16\x03\x01 hello\r\n\r\n"), 400)
    assert_is(said(hasty, HEAD + b"Content-Length: -1\r\n\r\n"), 400)


def test_bounds_hold_for_every_request_of_a_connection(hasty: Served) -> None:
    """The second one's head is counted and timed as the first one's; between two, it may be idle for a while."""
    fine = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert b" 431 " in said(hasty, fine, b"GET /health HTTP/1.1\r\nX: " + b"a" * 17000, pause=0.1)
    assert b" 408 " in said(hasty, fine, b"GET /hea", pause=0.1)
    answer = said(hasty, fine)
    assert answer.count(b"200 OK") == 1 and answer.endswith(b'{"status":"ok"}')


def test_readers_that_take_nothing_are_cut(tmp_path: Path) -> None:
    """A stream that nobody reads ends, its texts are cancelled, and its connection is closed."""
    path = tmp_path / "socket"  # the kernel keeps less of it than of a connection by address
    limits = LIMITS.replace("Limits(", "Limits(max_unread=65536, ")
    with serving_with(f"Settings(uds=__import__('pathlib').Path({str(path)!r}), limits={limits})") as server:
        n_files = server.n_files()
        body = json.dumps(
            {"prompt": "a", "n": 16, "max_tokens": 500, "logprobs": 20, "stream": True, "ignore_eos": True}
        ).encode()
        with socket.socket(socket.AF_UNIX) as opened:
            opened.settimeout(TIMEOUT)
            opened.connect(str(path))
            opened.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: server.n_files() > n_files)
            wait_until(lambda: server.n_files() == n_files)
            assert b"[DONE]" not in rest_of(opened)


def test_health_answers_beside_slow_clients(hasty: Served) -> None:
    """Hundreds of clients that send nothing delay nobody."""
    opened = [hasty.open() for _ in range(200)]
    for one in opened:
        one.sendall(HEAD)
    assert hasty.get("/health")
    for one in opened:
        one.close()
