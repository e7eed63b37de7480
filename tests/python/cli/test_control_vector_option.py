"""--control-vector of generate, chat and batch: the texts are those of Python's control_vector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import output_here

import fastgpt_c
from fastgpt_c import ControlVector, patching
from fastgpt_c.cli.__main__ import main

PROMPT = "Once upon a time, there was a little"


@pytest.fixture(scope="module")
def demo() -> Iterator[fastgpt_c.Model]:
    with fastgpt_c.load() as model:
        yield model


@pytest.fixture(scope="module")
def odd(demo: fastgpt_c.Model) -> ControlVector:
    generator = np.random.default_rng(5)
    return ControlVector({layer: generator.normal(0, 1, demo.n_embd) for layer in (1, 2, 3)})


def complaint(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What it says where it fails, in one line."""
    assert main(list(arguments)) in (1, 2)
    stdout, stderr = capfd.readouterr()
    assert stdout == "" and stderr.count("\n") == 1
    return stderr


@pytest.fixture
def file(odd: ControlVector, tmp_path: Path) -> Path:
    path = tmp_path / "o=dd.gguf"
    patching.save_control_vector(path, odd)
    return path


def test_generate_is_pythons(
    capfd: pytest.CaptureFixture[str], demo: fastgpt_c.Model, odd: ControlVector, file: Path
) -> None:
    """With a strength, without, in some layers, and two of them added."""
    cases = [
        ([f"{file}=-2"], [], odd.times(-2)),
        ([f"{file}"], [], odd),
        ([f"{file}=2"], ["--control-vector-layer-range", "2", "9"], odd.within(2, 3).times(2)),
        ([f"{file}=3", f"{file}=-1"], ["--control-vector-layer-range", "1", "1"], odd.within(1, 1).times(2)),
    ]
    texts = set()
    for given, more, vector in cases:
        options = [f"--control-vector={one}" for one in given] + more + ["-n", "12", "--temperature", "0"]
        expected = demo.generate(PROMPT, max_new_tokens=12, temperature=0, control_vector=vector).text
        assert output_here(capfd, "generate", PROMPT, "--no-prompt", *options) == expected + "\n", given
        texts.add(expected)
    assert len(texts) == 4


def test_batch_steers_all_lines(
    capfd: pytest.CaptureFixture[str], demo: fastgpt_c.Model, odd: ControlVector, file: Path, tmp_path: Path
) -> None:
    """A line cannot choose, and says so; a folder of shards cannot be steered."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [{"prompt": PROMPT}, {"prompt": PROMPT, "control_vector": {"name": "odd"}}]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ("-n", "8", "--temperature", "0", "--control-vector", f"{file}=-2")
    assert main(["batch", str(source), str(target), *options]) == 1
    capfd.readouterr()
    records = sorted((json.loads(line) for line in target.read_text().splitlines()), key=lambda one: bool(one["error"]))
    expected = demo.generate(PROMPT, max_new_tokens=8, temperature=0, control_vector=odd.times(-2)).text
    assert records[0]["response"]["body"]["choices"][0]["text"] == expected
    assert "batch --control-vector FILE" in records[1]["error"]["message"]
    assert "steers no shards" in complaint(capfd, "batch", str(source), f"{tmp_path}/shards/", *options)


def test_chat_is_steered(
    capfd: pytest.CaptureFixture[str], demo: fastgpt_c.Model, odd: ControlVector, file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("Hello!\n"))
    said = output_here(capfd, "chat", "-n", "8", "--temperature", "0", "--control-vector", f"{file}=-2")
    tokens = demo.encode("User: Hello!\nAssistant:", special=False)
    text = demo.generate(tokens, max_new_tokens=8, temperature=0, stop=["\nUser:"], control_vector=odd.times(-2)).text
    assert text.strip() and text.strip() in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--control-vector", "none.gguf=2"], "none.gguf"),
        (["--control-vector-layer-range", "1", "2"], "give --control-vector with it"),
        (
            ["--control-vector", "FILE", "--control-vector-layer-range", "5", "9"],
            "no layer from 5 to 9; its own are 1 to 3",
        ),
        (["--control-vector", "FILE", "--prompt-cache", "x"], "leave --prompt-cache or --control-vector out"),
        (["--control-vector", "FILE", "--beams", "2"], "beam search"),
        (["--control-vector", "FILE", "--prompt-lookup", "2"], "prompt_lookup has steps of its own"),
        (["--control-vector", "FILE=inf"], "not a finite number"),
        (["--control-vector-scaled", "FILE", "2"], "give --control-vector FILE=STRENGTH"),
    ],
)
def test_what_cannot_steer(capfd: pytest.CaptureFixture[str], file: Path, options: list[str], words: str) -> None:
    given = [option.replace("FILE", str(file)) for option in options]
    assert words in complaint(capfd, "generate", PROMPT, *given)
