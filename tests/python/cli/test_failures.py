"""What the command says when it cannot do what it was told: one line, and an exit status."""

from __future__ import annotations

import io
import math
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from command import FAILURE, WRONG_USAGE, assert_complains, run

import fastgpt_c
from fastgpt_c.cli.__main__ import main


@pytest.fixture(scope="module")
def bad_places(
    alphabet: Path, long_model: fastgpt_c.Model, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A good model, and places where there is none, or one without a tokenizer."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "bad.gguf").write_bytes(b"no model")
    (folder / "empty").mkdir()
    return {"good": alphabet, "folder": folder, "untokenized": long_model.path}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("generate -m {good} a -n -1", 2, ["max_new_tokens", "-1"]),
        ("generate -m {good} a -n 1 --temperature -2", 2, ["temperature is -2", "[0, 1e6]"]),
        ("generate -m {good} a -n 1 --temperature nan", 2, ["temperature is nan", "[0, 1e6]"]),
        ("generate -m {good} a -n 1 --top-k -3", 2, ["top_k is -3", "[0, 2^31)"]),
        ("generate -m {good} a -n 1 --top-p 1.5", 2, ["top_p is 1.5", "[0, 1]"]),
        ("generate -m {good} a -n 1 --min-p -0.5", 2, ["min_p is -0.5", "[0, 1]"]),
        ("generate -m {good} a -n 1 --repetition-penalty -1", 2, ["repetition_penalty is -1", "[0, 1e6]"]),
        ("generate -m {good} a -n 1 --seed -1", 2, ["seed is -1", "[0, 2^64)"]),
        ("generate -m {good} a -n 1 --seed 18446744073709551616", 2, ["seed is 18446744073709551616", "[0, 2^64)"]),
        ("generate -m {good} a -n 1 --logit-bias 265=1", 2, ["logit_bias", "265"]),
        ("generate -m {good} a -n 1 --logit-bias 1=inf", 2, ["logit_bias", "inf"]),
        ("generate -m {good} a -n 1 --penalty-alpha 2 --top-k 4", 2, ["penalty_alpha is 2.0", "[0, 1]"]),
        ("generate -m {good} a -n 1 --penalty-alpha 0.6", 2, ["give top_k"]),
        ("generate -m {good} a -n 1 --penalty-alpha 0.6 --top-k 4 --temperature 2", 2, ["temperature", "out"]),
        (
            "generate -m {good} a -n 1 --penalty-alpha 0.6 --top-k 4 --beams 2",
            2,
            ["--beams and --penalty-alpha"],
        ),
        ("generate -m {good} a -n 1 --penalty-alpha 0.6 --top-k 4 --prompt-cache x", 2, ["leave --prompt-cache"]),
        ("generate -m {good} a -n 1 --threads -1", 2, ["n_threads is -1", "[0, 1024]"]),
        ("generate -m {good} a -n 1 --threads 1025", 2, ["n_threads is 1025", "[0, 1024]"]),
        ("chat -m {good} -n 1 --threads 1025", 2, ["n_threads is 1025", "[0, 1024]"]),
        ("generate -m {good} a -n 1 --stop=", 2, ["stop string", "empty"]),
        ("generate -m {good} a --file b", 2, ["prompt", "--file", "not both"]),
        ("decode -m {good} 5 265", 2, ["265", "[0, 265)"]),
        ("decode -m {good} 5 x", 2, ["not a token id", "'x'"]),
        ("generate -m {good} a -n 64", 1, ["1 prompt", "64", "slide"]),
        ("generate -m {good} --file {folder}/none.txt", 1, ["none.txt"]),
        ("generate -m {good} --file {folder}", 1, ["{folder}"]),
        ("generate -m {folder}/none.gguf a", 1, ["{folder}/none.gguf", "no such file"]),
        ("generate -m {folder}/empty a", 1, ["{folder}/empty", "config.json"]),
        ("generate -m {folder}/bad.gguf a", 1, ["{folder}/bad.gguf"]),
        ("generate -m {untokenized} a", 1, ["{untokenized}", "no tokenizer"]),
        ("chat -m {good} -n 1 --temperature -2", 2, ["temperature is -2", "[0, 1e6]"]),
        ("info {folder}/bad.gguf", 1, ["{folder}/bad.gguf"]),
        ("convert {folder}/none -o {folder}/x.gguf", 1, ["{folder}/none", "no such folder"]),
        ("convert {folder}/empty -o {folder}/x.gguf", 1, ["{folder}/empty", "config.json"]),
    ],
)
def test_one_line_says_what_is_wrong(
    bad_places: dict[str, Path],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    status: int,
    words: list[str],
) -> None:
    """The option, its value and its range, or the file, and nothing else; status 2 for wrong usage, else 1."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    assert main(arguments.format(**bad_places).split(" ")) == status
    stdout, stderr = capfd.readouterr()
    assert (stdout.strip(), stderr.count("\n")) == ("", 1)
    assert stderr.startswith("fastgpt-c: ")
    assert all(word.format(**bad_places) in stderr for word in words), stderr


@pytest.mark.parametrize(
    "options", ["-n 2 --temperature 0", "-n 2", "-n 2 --beams 2", "-n 2 --penalty-alpha 0.6 --top-k 2"]
)
def test_a_damaged_model_is_a_failure(alphabet: Path, tmp_path: Path, capfd: Any, options: str) -> None:
    """NaN among its weights: no fault of the options, whatever they are."""
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(alphabet.read_bytes().replace(struct.pack("<f", 40), struct.pack("<f", math.nan)))
    for command in (f"generate -m {damaged} a {options}", f"profile -m {damaged} a -n 1 --no-roofline"):
        assert main(command.split(" ")) == FAILURE
        stderr = capfd.readouterr().err
        assert stderr.count("\n") == 1 and "its weights are damaged" in stderr


def test_bans_that_leave_no_token_are_named(alphabet: Path, capfd: Any) -> None:
    """The constraint and what else bans tokens."""
    command = f"generate -m {alphabet} a -n 9 --regex aaaaaa --no-repeat-ngram-size 1"
    assert main(command.split(" ")) == WRONG_USAGE
    assert "every token is banned by regex and no_repeat_ngram_size" in capfd.readouterr().err


@pytest.mark.parametrize("detail", ["", "12 GB"])
def test_memory_that_is_not_there(alphabet: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, detail: str) -> None:
    """Python's own MemoryError has no words; the command has."""

    def load(*_: Any, **__: Any) -> None:
        raise MemoryError(*filter(None, [detail]))

    monkeypatch.setattr("fastgpt_c.cli.common.load_file", load)
    assert main(["generate", "-m", str(alphabet), "a"]) == FAILURE
    stderr = capfd.readouterr().err
    assert stderr.startswith("fastgpt-c: not enough memory") and detail in stderr and "smaller" in stderr


@pytest.mark.parametrize(
    ("option", "content"),
    [("--grammar", b'start: "caf\xe9"'), ("--json-schema", b'{"const": "caf\xe9"}'), ("--file", b"caf\xe9")],
)
def test_files_of_text(alphabet: Path, tmp_path: Path, option: str, content: bytes) -> None:
    """One that is not UTF-8 is refused in one line; a byte order mark is read over."""
    file = tmp_path / "text"
    file.write_bytes(content)
    arguments = ["generate", "-m", alphabet, "-n", "1", "--no-prompt", option, file]
    assert_complains(run(*arguments, stdin=b"a"), WRONG_USAGE, "is not UTF-8")
    file.write_bytes(b"\xef\xbb\xbf" + content.replace(b"caf\xe9", b"a"))
    assert run(*arguments, stdin=b"a").returncode == 0


def test_arguments_of_bytes_that_are_no_text(alphabet: Path, capfd: Any) -> None:
    """As the shell hands them over."""
    for option, text in (("--regex", "caf\udce9"), ("--json-schema", '{"const": "caf\udce9"}')):
        assert main(["generate", "-m", str(alphabet), "a", option, text]) == WRONG_USAGE
        stderr = capfd.readouterr().err
        assert stderr.startswith(f"fastgpt-c: {option} is not UTF-8") and stderr.count("\n") == 1


def test_invalid_utf8(alphabet: Path, tmp_path: Path) -> None:
    """A prompt that is not UTF-8 is refused, by whatever way it comes."""
    file = tmp_path / "latin-1.txt"
    file.write_bytes(b"caf\xe9")
    for arguments, stdin in (
        (["--file", file], b""),
        ([], b"caf\xe9"),
        ([b"caf\xe9".decode(errors="surrogateescape")], b""),
    ):
        assert_complains(run("generate", "-m", alphabet, *arguments, stdin=stdin), WRONG_USAGE, "prompt", "UTF-8")
    assert_complains(run("decode", "-m", alphabet, stdin=b"\xff"), WRONG_USAGE, "not a token id")
