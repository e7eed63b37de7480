"""fastgpt-c bench and info --system: what they count, and that they stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import TIMEOUT, output_here, running
from harness import files

import fastgpt_c
from fastgpt_c.analysis import benchmark
from fastgpt_c.native.lib import lib
from fastgpt_c.profiling import machine

TINY = ("--prefill", "1,20", "--decode", "0,17", "--batch", "3", "--rounds", "1", "--threads", "1,2")


def test_bench_command(capfd: pytest.CaptureFixture[str]) -> None:
    """A row for each wanted work and number of threads, with what it moved and did."""
    found = json.loads(output_here(capfd, "bench", *TINY, "--json"))
    works = [
        (row["n_threads"], row["work"], row["n_tokens"], row["n_sequences"], row["n_past"]) for row in found["rows"]
    ]
    assert works == [
        (n, *work)
        for n in (1, 2)
        for work in [("prefill", 1, 1, 0), ("prefill", 20, 1, 0), ("decode", 1, 1, 0), ("decode", 1, 1, 17),
                     ("batch", 3, 3, benchmark.BATCH_N_PAST)]
    ]  # fmt: skip
    for row in found["rows"]:
        assert 0 < row["best_seconds"] <= row["seconds"] < TIMEOUT
        assert row["tokens_per_second"] == pytest.approx(row["n_tokens"] / row["seconds"])
    assert [one["n_threads"] for one in found["machine"]] == [1, 2]
    decoded = [row for row in found["rows"] if row["work"] == "decode"]
    assert decoded[1]["n_bytes"] > decoded[0]["n_bytes"] and decoded[1]["n_operations"] > decoded[0]["n_operations"]


def test_bench_table(capfd: pytest.CaptureFixture[str]) -> None:
    """For people: the ceilings, then a line a row."""
    lines = output_here(capfd, "bench", *TINY[:-1], "1").splitlines()
    assert "GB/s" in lines[0] and "of bandwidth" in lines[1]
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "prefill 1", "prefill 20", "decode after 0", "decode after 17", "3 sequences after 16",
    ]  # fmt: skip


def test_bench_stops_at_once() -> None:
    """Ctrl-C ends a bench of many rounds with status 130 and no traceback."""
    with running("bench", "--prefill", "", "--batch", "", "--decode", "0", "--rounds", "100000000") as process:
        assert process.stdout and process.stderr
        assert b"GB/s" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
        assert process.stderr.read().strip() == b""


@pytest.fixture(scope="module")
def demo() -> Iterator[fastgpt_c.Model]:
    with fastgpt_c.load() as model:
        yield model


def test_operations_add_up(demo: fastgpt_c.Model) -> None:
    """A prefill does what decoding its tokens one by one does, but for the logits of all but the last."""
    n = 9
    one_by_one = sum(benchmark.operations(demo, 1, n_past=i) for i in range(n))
    logits = 2 * demo.n_embd * demo.n_vocab
    assert benchmark.operations(demo, n) == one_by_one - (n - 1) * logits
    assert benchmark.operations(demo, 1, 5, 7) == 5 * benchmark.operations(demo, 1, 1, 7)


def test_step_bytes_are_those_of_the_file(demo: fastgpt_c.Model, long_model: fastgpt_c.Model) -> None:
    """What the library says that a step reads is what the file's tensors add up to."""
    for model in (demo, long_model):
        facts = subprocess.check_output([sys.executable, "-c", files.GGUF_FACTS, model.path], cwd="/")
        assert lib.fastgpt_model_step_bytes(model.handle) == json.loads(facts)["bytes"]


def test_system(capfd: pytest.CaptureFixture[str]) -> None:
    """The machine as the library sees it; ceilings only when asked for, all of them positive or absent."""
    facts = json.loads(output_here(capfd, "info", "--system", "--json"))
    assert facts["kernels"] in facts["kernels_available"] and facts["kernels_available"][0] == "portable"
    limits = [facts[f"{name}_cores"] for name in ("online", "affinity", "cgroup_quota")]
    assert facts["usable_cores"] == min(limit for limit in limits if limit)
    assert "read_bytes_per_second" not in facts
    measured = json.loads(output_here(capfd, "info", "--system", "--measure", "--json"))
    assert measured["read_bytes_per_second"] > 1e8 and measured["f32_operations_per_second"] > 1e8
    rows = [line.split()[0] for line in output_here(capfd, "info", "--system").splitlines()]
    assert rows == list(facts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model name\t: A CPU\nflags\t\t: fpu avx2 fma avx512_vnni\n", ("A CPU", ["fma", "avx2", "avx512_vnni"])),
        ("Features\t: fp asimd asimddp\n", (None, ["asimd", "asimddp"])),
        ("", (None, [])),
    ],
)
def test_cpu(tmp_path: Path, text: str, expected: object) -> None:
    """Name and features as Linux tells them on x86-64 and Arm; nothing where it tells nothing."""
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.cpu(tmp_path / "cpuinfo") == expected
    assert machine.cpu(tmp_path / "none") == (None, [])
