"""examples/compress, the proof of deterministic sessions: compressed alone, decompressed in company."""

from __future__ import annotations

import gzip
import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import ENVIRONMENT, OUTSIDE, TIMEOUT
from paths import ROOT

TEXT = (ROOT / "tests" / "data" / "fairy_tales_heldout.txt").read_bytes()[:5500]
NOISE = np.random.default_rng(0).permutation(np.arange(600) % 256).astype(np.uint8).tobytes()


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    command = [sys.executable, ROOT / "examples" / "compress" / "compress.py", *arguments]
    return subprocess.run(
        command, cwd=OUTSIDE, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def compressed(data: bytes, folder: Path) -> Path:
    """By one thread, block after block, whole windows at once."""
    (folder / "in").write_bytes(data)
    assert run("--threads", "1", folder / "in", folder / "small").returncode == 0
    return folder / "small"


@pytest.mark.parametrize("data", [TEXT, NOISE, b"", b"\xff", "Größe 寿司 🙂<|endoftext|>".encode() * 3])
def test_any_bytes_come_back(data: bytes, tmp_path: Path) -> None:
    """Text of several windows and blocks, all 256 bytes, nothing, and half a character: two threads, all blocks in a
    batch, token by token."""
    small = compressed(data, tmp_path)
    result = run("-d", "--threads", "2", small, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out").read_bytes() == data
    if data == TEXT:
        best = min(len(gzip.compress(data)), len(lzma.compress(data, preset=9)))
        assert len(small.read_bytes()) < best / 2


def test_damage_is_told(tmp_path: Path) -> None:
    """No traceback, and nothing is written."""
    small = compressed(TEXT[:400], tmp_path)
    good = small.read_bytes()
    for bad in (b"", good[:-1], good + b"x", b"x" + good, good[:-3] + bytes([good[-3] ^ 64]) + good[-2:]):
        small.write_bytes(bad)
        result = run("-d", small, tmp_path / "out")
        assert result.returncode == 1 and result.stderr.startswith("compress.py: ") and result.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()
