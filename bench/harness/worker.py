"""The side that asks: an engine's process, which is stopped by a signal except while it answers."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parents[1]


class EngineError(Exception):
    """An engine could not do it, or died; the text says why."""


class Worker:
    """Runs `python -m engines.NAME serve`.  Use it in a with statement: the process ends with it."""

    def __init__(self, command: Sequence[str | Path], log: Path, n_threads: int, timeout: float = 600) -> None:
        self.log, self.timeout = log, timeout
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*command, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=BENCH,
                env=environment(n_threads), text=True,
            )  # fmt: skip

    def ask(self, do: str, **arguments: Any) -> Any:
        """The engine's result.  Raises EngineError when it fails, dies or takes longer than the timeout."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._answer()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineError(f"its process ended with status {self._process.wait()}; {self._last_words()}")
        self._process.send_signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer["result"]

    def _answer(self) -> str:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], self.timeout)
        if not ready:
            self.close()
            raise EngineError(f"no answer within {self.timeout:.0f} s")
        return self._process.stdout.readline()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"{self.log} ends with: {lines[-1]}" if lines else f"{self.log} is empty"

    def close(self) -> None:
        """Ends the process at once; doing so twice is harmless."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def environment(n_threads: int) -> dict[str, str]:
    """What libraries look at for their number of threads, and no downloads."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(n_threads))
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **counts, **quiet}
