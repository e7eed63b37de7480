"""Signal handlers that raise (a time limit by SIGALRM, SIGTERM as servers have it) at random moments.

The law: whatever exception arrives whenever, a step has ended before Python goes on, and the session is as before or as
after it.  FASTGPT_TEST_MOMENTS says how many moments of each kind of work (default 5); the last of the tests runs on
each Python of FASTGPT_TEST_PYTHONS, paths between colons, which have fastgpt_c's wheel installed (default: this one).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from models import write_random_gguf
from paths import ROOT

N_MOMENTS = int(os.environ.get("FASTGPT_TEST_MOMENTS", "5"))
PYTHONS = os.environ.get("FASTGPT_TEST_PYTHONS", sys.executable).split(":")
PROGRAM = ROOT / "tests" / "support" / "signal_moments.py"

# As many servers have it.
ENDED_BY_SIGTERM = """
import signal, sys, fastgpt_c
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
model = fastgpt_c.load(sys.argv[1], n_threads=1)
print("ready", flush=True)
while True:
    model.generate([i % model.n_vocab for i in range(model.n_ctx - 1)], max_new_tokens=1)
"""


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signals") / "model.gguf"
    return write_random_gguf(path, n_layer=3, n_head=4, n_embd=64, n_ctx=2048, n_vocab=300)


def test_sys_exit_in_a_handler_ends_the_process(model_file: Path) -> None:
    """With the status that it was given, not by a signal, also in the middle of the first, long step."""
    rng = random.Random(5)
    for _ in range(max(N_MOMENTS // 10, 2)):
        command = [sys.executable, "-c", ENDED_BY_SIGTERM, str(model_file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 7


@pytest.mark.parametrize("python", PYTHONS)
def test_after_any_moment_everything_is_as_ever(model_file: Path, python: str) -> None:
    """No crash, no part of a step, and the next call gives the same to the bit, on each Python."""
    command = [python, str(PROGRAM), str(model_file), str(N_MOMENTS), "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300 + 60 * N_MOMENTS)
    print(result.stdout)
    assert result.returncode == 0, result.stderr[-2000:]
