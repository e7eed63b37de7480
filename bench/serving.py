"""What a server costs: the same texts by generate_batch and by clients over HTTP, in turns.

    python bench/serving.py [MODEL] [--clients 32] [--tokens 128] [--prompt 64] [--rounds 3]

MODEL is what fastgpt-c takes after -m; the demo model if not given.  Each client asks for one text as a stream of
events, and the clients share a thread that only counts bytes, so that they take little of the machine.  Printed are
tokens a second of both; the share of the first that is left; the time to the first token; and how much CPU the event
loop of the server takes a token: HTTP, JSON and events, without the engine's thread.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import selectors
import socket
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import fastgpt_c

Row = dict[str, float]
HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


def prompts_of(n: int, n_tokens: int, n_vocab: int, seed: int) -> list[list[int]]:
    """Random ids: nothing is shared, and nothing was read before."""
    rng = random.Random(seed)
    return [[rng.randrange(n_vocab) for _ in range(n_tokens)] for _ in range(n)]


def by_batch(model: fastgpt_c.Model, prompts: list[list[int]], n_new: int) -> float:
    """Tokens a second."""
    begin = time.perf_counter()
    found = model.generate_batch(prompts, max_new_tokens=n_new, ignore_eos=True, seed=1, temperature=1, top_p=1)
    return sum(len(completion.tokens) for completion in found) / (time.perf_counter() - begin)


def by_clients(address: tuple[str, int], prompts: list[list[int]], n_new: int) -> tuple[float, list[float]]:
    """Tokens a second, and for each client the seconds to its first token."""
    selector = selectors.DefaultSelector()
    begin, first, n_tokens = time.perf_counter(), {}, 0
    for number, prompt in enumerate(prompts):
        asked = {"prompt": prompt, "max_tokens": n_new, "ignore_eos": True, "seed": 1}
        body = json.dumps(asked | {"stream": True, "return_token_ids": True})
        opened = socket.create_connection(address)
        opened.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        selector.register(opened, selectors.EVENT_READ, number)
    while selector.get_map():
        for key, _ in selector.select():
            data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
            n_tokens += data.count(b'"token_ids"')
            if b"data:" in data:
                first.setdefault(key.data, time.perf_counter() - begin)
            if not data:
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
    return n_tokens / (time.perf_counter() - begin), list(first.values())


def loop_seconds(pid: int) -> float:
    """CPU seconds of the thread in which the event loop runs: the first of the process."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_server(model: str | None, options: argparse.Namespace) -> tuple[subprocess.Popen[bytes], tuple[str, int]]:
    command = [Path(sysconfig.get_path("scripts")) / "fastgpt-c", "serve", "--port", "0"]
    command += ["--max-batch", str(options.clients)] + (["-m", model] if model else [])
    process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE)
    assert process.stderr is not None
    address: Any = None
    for line in process.stderr:
        address = re.search(rb"listening on http://([\d.]+):(\d+)", line) or address
        if b"is ready" in line:
            return process, (address[1].decode(), int(address[2]))
    sys.exit("the server has ended")


def measure(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with fastgpt_c.load(options.model) as model:
        process, address = start_server(options.model, options)
        try:
            for round_ in range(options.rounds + 1):
                prompts = prompts_of(options.clients, options.prompt, model.n_vocab, round_)
                batch = by_batch(model, prompts, options.tokens)
                before = loop_seconds(process.pid)
                served, first = by_clients(address, prompts, options.tokens)
                cpu = (loop_seconds(process.pid) - before) / (options.clients * options.tokens)
                row = {"batch": batch, "served": served, "share": served / batch, "first": statistics.median(first)}
                if round_:  # the first warms caches
                    rows.append(row | {"cpu": cpu * 1e6})
        finally:
            process.terminate()
            process.wait()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    rows = measure(parser.parse_args())
    for row in rows:
        print(
            f"generate_batch {row['batch']:8.1f} tokens/s   server {row['served']:8.1f} ({100 * row['share']:.1f}%)   "
            f"first token {1000 * row['first']:7.1f} ms   event loop {row['cpu']:.1f} us a token, "
            f"{row['cpu'] * 2000 / 1e4:.1f}% of a core at 2,000 tokens/s"
        )
    print(f"median {100 * statistics.median(row['share'] for row in rows):.1f}%")


if __name__ == "__main__":
    main()
