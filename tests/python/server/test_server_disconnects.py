"""Clients that go away: their work ends, and nobody else's changes."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

from served import Served, wait_until

NEIGHBOURS = [{"prompt": prompt, "max_tokens": 250, "seed": 1, "ignore_eos": True} for prompt in ("Once", "Tom", "The")]
N_A_ROUND = 40
N_ROUNDS = -(-int(os.environ.get("FASTGPT_TEST_DISCONNECTS", "40")) // N_A_ROUND)


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


def _one_round(server: Served, rng: random.Random) -> list[str]:
    """The neighbours' texts, while others come and go."""
    connections = [_ask(server, body) for body in NEIGHBOURS]
    threads = [
        threading.Thread(target=_disturb, args=(server, number, random.Random(rng.random())))
        for number in range(N_A_ROUND)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.002)
    for thread in threads:
        thread.join()
    answers = [json.loads(connection.getresponse().read()) for connection in connections]
    for connection in connections:
        connection.close()
    return [answer["choices"][0]["text"] for answer in answers]


def _resident(server: Served) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_disconnects_cancel(exact: Served) -> None:
    """Slots, queue and descriptors are free again, memory does not grow, and neighbours' texts are those of an
    undisturbed run."""
    texts = [exact.post("/v1/completions", **body)["choices"][0]["text"] for body in NEIGHBOURS]
    n_files, rng = exact.n_files(), random.Random(5)
    n_before = [exact.metric("request_success_total", finished_reason=reason) for reason in ("length", "cancelled")]
    memory = []
    for _ in range(N_ROUNDS):
        assert _one_round(exact, rng) == texts
        exact.wait_idle()
        memory.append(_resident(exact))
    wait_until(lambda: exact.n_files() <= n_files)
    n_after = [exact.metric("request_success_total", finished_reason=reason) for reason in ("length", "cancelled")]
    n_whole, n_cancelled = (after - before for after, before in zip(n_after, n_before, strict=True))
    n_whole -= N_ROUNDS * len(NEIGHBOURS)
    n_disturbances = N_ROUNDS * N_A_ROUND
    # The others were gone before they had been read.
    assert n_cancelled >= n_disturbances / 2 and n_whole + n_cancelled <= n_disturbances
    if N_ROUNDS > 10:
        assert memory[-1] <= 1.02 * memory[N_ROUNDS // 4], memory


def test_a_slot_is_free_after_a_step(exact: Served) -> None:
    """With all room taken by texts of many steps whose clients go, a short one does not wait for their ends."""
    long = {"prompt": "Once", "max_tokens": 100_000, "ignore_eos": True, "on_overflow": "slide"}
    connections = [_ask(exact, long) for _ in range(4)]
    wait_until(lambda: exact.metric("num_requests_running") >= 2)
    for connection in connections:
        connection.close()
    assert exact.post("/v1/completions", prompt="a", max_tokens=1)
    exact.wait_idle()
