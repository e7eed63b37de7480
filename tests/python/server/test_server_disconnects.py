"""Clients that go away: their work ends, and nobody else's changes."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from typing import Any

from served import Served, wait_until

NEIGHBOURS = [{"prompt": prompt, "max_tokens": 250, "seed": 1, "ignore_eos": True} for prompt in ("Once", "Tom", "The")]
N_DISTURBANCES = 60


def _ask(server: Served, body: dict[str, Any]) -> http.client.HTTPConnection:
    connection = server.connect()
    connection.request("POST", "/v1/completions", json.dumps(body))
    return connection


def _disturb(server: Served, number: int, rng: random.Random) -> None:
    """Sends a request and goes away: in the queue or while its prompt is read, at once; in the text, after a piece."""
    kind, is_streamed = ("queue", "prefill", "text")[number % 3], number % 2 == 0
    prompt = "a b " * 150 if kind == "prefill" else f"Number {number}"
    connection = _ask(server, {"prompt": prompt, "max_tokens": 180, "ignore_eos": True, "stream": is_streamed})
    if kind == "text" and is_streamed:
        connection.getresponse().read(10)
    else:
        time.sleep(rng.random() * 0.03)
    connection.close()


def test_disconnects_cancel(exact: Served) -> None:
    """Slots, queue and descriptors are free again, and neighbours' texts are those of an undisturbed run."""
    texts = [exact.post("/v1/completions", **body)["choices"][0]["text"] for body in NEIGHBOURS]
    n_files, rng = exact.n_files(), random.Random(5)
    n_before = exact.metric("request_success_total", finished_reason="length")
    connections = [_ask(exact, body) for body in NEIGHBOURS]
    threads = [
        threading.Thread(target=_disturb, args=(exact, number, random.Random(rng.random())))
        for number in range(N_DISTURBANCES)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.002)
    for thread in threads:
        thread.join()
    answers = [json.loads(connection.getresponse().read()) for connection in connections]
    assert [answer["choices"][0]["text"] for answer in answers] == texts
    for connection in connections:
        connection.close()
    exact.wait_idle()
    wait_until(lambda: exact.n_files() <= n_files)
    n_ended = exact.metric("request_success_total", finished_reason="length") - n_before - len(NEIGHBOURS)
    assert exact.metric("request_success_total", finished_reason="cancelled") >= N_DISTURBANCES - n_ended - 1
    assert n_ended < N_DISTURBANCES / 2


def test_a_slot_is_free_after_a_step(exact: Served) -> None:
    """With all room taken by texts of many steps whose clients go, a short one does not wait for their ends."""
    long = {"prompt": "Once", "max_tokens": 100_000, "ignore_eos": True, "on_overflow": "slide"}
    connections = [_ask(exact, long) for _ in range(4)]
    wait_until(lambda: exact.metric("num_requests_running") >= 2)
    for connection in connections:
        connection.close()
    assert exact.post("/v1/completions", prompt="a", max_tokens=1)
    exact.wait_idle()
