"""The side of an engine: a process that loads a model once and answers requests, one JSON object a line.

    python -m engines.pytorch serve      answers on stdin and stdout until stdin ends
    python -m engines.pytorch whole '{"model": ..., "type": ..., "threads": 2, "prompt": ..., "n_new": 20}'
                                         generates once, and prints the tokens and the seconds that loading took

Standard library only: this runs inside the environment of each peer.  All engines compute the same: a prompt of
tokens, then one given token at a time, and the logits of the last token of each sequence; or a whole job.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

Rows = list[list[int]]
N_CTX = 1024  # of the models


class Engine:
    """What an engine must do; sequences have equal lengths."""

    def load(self, model: str, type: str, n_threads: int) -> None:
        """Makes the model ready to compute with n_threads; type is that of harness.plan."""
        raise NotImplementedError

    def reset(self, n_sequences: int, n_ctx: int) -> None:
        """Forgets everything; n_sequences come next, of at most n_ctx tokens each."""
        raise NotImplementedError

    def feed(self, rows: Rows) -> Any:
        """Appends row i to sequence i, computed -> logits of each last token, so that result[i].argmax() works."""
        raise NotImplementedError

    def generate_text(self, model: str, prompt: str, n_new: int) -> list[int]:
        """Greedy tokens after a text, with the engine's own tokenizer and loop; the model is loaded already."""
        raise NotImplementedError

    # ---- What is timed ----

    def time_prefill(self, tokens: list[int]) -> float:
        """Seconds for a whole prompt."""
        self.reset(1, N_CTX)
        begin = time.perf_counter()
        self.feed([tokens])
        return time.perf_counter() - begin

    def time_step(self, prompt: list[int], tokens: list[int], n_sequences: int) -> float:
        """Seconds a step in which each of n_sequences takes one of tokens, after prompt and a step more."""
        self.reset(n_sequences, len(prompt) + len(tokens))
        self.feed([prompt] * n_sequences)
        self.feed([tokens[:1]] * n_sequences)
        begin = time.perf_counter()
        for token in tokens[1:]:
            self.feed([[token]] * n_sequences)
        return (time.perf_counter() - begin) / (len(tokens) - 1)

    def time_job(self, prompts: Rows, n_new: int, sampled: bool) -> float:
        """Seconds for n_new tokens after each of the prompts, with what the engine has for batches and for drawing."""
        begin = time.perf_counter()
        found = self.continue_all(prompts, n_new, sampled)
        seconds = time.perf_counter() - begin
        if [len(tokens) for tokens in found] != [n_new] * len(prompts):
            raise RuntimeError("a text ended early")
        return seconds

    def continue_all(self, prompts: Rows, n_new: int, sampled: bool) -> Rows:
        """n_new tokens after each of the prompts, in step; for an engine that has batches, its own way."""
        if sampled:
            raise NotImplementedError("it draws no tokens for many sequences")
        self.reset(len(prompts), len(prompts[0]) + n_new)
        found: Rows = [[] for _ in prompts]
        rows = prompts
        for _ in range(n_new):
            logits = self.feed(rows)
            rows = [[int(row.argmax())] for row in logits]
            for tokens, new in zip(found, rows, strict=True):
                tokens += new
        return found

    def time_generate(self, prompt: list[int], n_new: int, kv_cache: bool) -> tuple[float, list[int]]:
        """Seconds for n_new greedy tokens after prompt, and the tokens; without a cache all is computed each time."""
        begin = time.perf_counter()
        self.reset(1, N_CTX)
        tokens, logits = list(prompt), self.feed([prompt])
        for i in range(n_new):
            tokens.append(int(logits[0].argmax()))
            if i + 1 == n_new:
                break
            if not kv_cache:
                self.reset(1, N_CTX)
            logits = self.feed([tokens[-1:] if kv_cache else tokens])
        return time.perf_counter() - begin, tokens[len(prompt) :]

    def roofline(self) -> dict[str, float]:
        """The machine's ceilings with the engine's threads; only ours knows how."""
        raise NotImplementedError


def main(engine: Engine) -> None:
    if sys.argv[1] == "serve":
        serve(engine)
    else:
        request = json.loads(sys.argv[2])
        begin = time.perf_counter()
        engine.load(request["model"], request["type"], request["threads"])
        seconds = time.perf_counter() - begin
        tokens = engine.generate_text(request["model"], request["prompt"], request["n_new"])
        print(json.dumps({"tokens": tokens, "load_seconds": seconds}))


def serve(engine: Engine) -> None:
    """Answers {"do": ..., ...} with {"result": ...} or {"error": text}; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": _do(engine, request.pop("do"), request)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _do(engine: Engine, what: str, arguments: dict[str, Any]) -> object:
    if what == "memory":
        return resident_bytes(arguments["models"])
    return {
        "load": engine.load,
        "prefill": engine.time_prefill,
        "step": engine.time_step,
        "job": engine.time_job,
        "generate": engine.time_generate,
        "roofline": engine.roofline,
    }[what](**arguments)


def resident_bytes(models: str) -> dict[str, int]:
    """Memory of this process: {"all", "model"}, the second the pages of files in the folder models."""
    total = mapped = 0
    in_models = False
    with Path("/proc/self/smaps").open() as smaps:
        for line in smaps:
            key, _, rest = line.partition(" ")
            if not key.endswith(":"):
                in_models = models in line
            elif key == "Rss:":
                n = 1024 * int(rest.split()[0])
                total += n
                mapped += n if in_models else 0
    return {"all": total, "model": mapped}
