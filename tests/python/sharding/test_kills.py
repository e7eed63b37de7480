"""Whatever dies, and whenever: in the end every line is there once, every sha256 is right, and nothing is left over."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ENVIRONMENT, output_of, run, running
from paths import ROOT
from shard_jobs import EPOCH, OPTIONS, expected_of, lines_with_everything

SUPPORT = ROOT / "tests" / "support"
N_KILLS = int(os.environ.get("FASTGPT_TEST_KILLS", "2"))
STEP = int(os.environ.get("FASTGPT_TEST_STEP", "7"))
TIMEOUT = 3000


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    path = tmp_path_factory.mktemp("shim") / "file_calls.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *options, SUPPORT / "file_calls.c", "-o", path, "-ldl"], check=True)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines_with_everything(9))
    return path


@pytest.mark.parametrize(
    ("mode", "number"), [("kill", STEP), ("full", STEP), ("twice", 2 * N_KILLS)], ids=["kill", "full disk", "two"]
)
def test_each_moment(
    library: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, number: int
) -> None:
    """kill -9 after a write, link, rename, removal or sync; a disk that is full from a write on; two processes that do
    the same at once.  The next run completes all, to the byte."""
    expected = tmp_path / "expected"
    expected.write_bytes(expected_of(source, monkeypatch))
    command = [sys.executable, SUPPORT / "killed_jobs.py", source, tmp_path / "job", expected, mode, str(number)]
    environment = ENVIRONMENT | {
        "LD_PRELOAD": str(library), "PYTHONPATH": str(SUPPORT), "SOURCE_DATE_EPOCH": EPOCH,
        "FASTGPT_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith(("moments", "rounds")), done.stdout
    if mode == "full":
        assert "No space left on device" in done.stderr


def test_kills_at_random_moments(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of the command itself, between two of whose runs nothing is lost."""
    source.write_bytes(lines_with_everything(40))
    expected, out = expected_of(source, monkeypatch), tmp_path / "out"
    size = str(source.stat().st_size // 4)
    run("batch", source, f"{out}/", "--shard-bytes", size, "--check-ids", *OPTIONS, SOURCE_DATE_EPOCH=EPOCH)
    rng = random.Random(0)
    for _ in range(N_KILLS):
        with running("batch", out, "--shard", "0/1") as process:
            time.sleep(rng.uniform(0.2, 1.5))
            process.kill()
    run("batch", out, "--shard", "0/1")
    said = output_of("batch", out, "--json")
    assert json.loads(said)["done"] == json.loads(said)["shards"]
    run("batch", out, "--merge", tmp_path / "merged")
    assert (tmp_path / "merged").read_bytes() == expected
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
