"""The command as a user runs it: a process of its own, with pipes that close, Ctrl-C, terminals and odd locales."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import select
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest
from checkpoints import CONFIG, write_checkpoint
from test_generation import ALPHABET, write_scripted_model

import fastgpt_c
from fastgpt_c.cli.__main__ import main

SCRIPT = (str(Path(sysconfig.get_path("scripts")) / "fastgpt-c"),)
MODULE = (sys.executable, "-m", "fastgpt_c")

# From here no source folder can shadow the installed package.
OUTSIDE = "/"

# A user's Python has no settings of a test run's.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
ENVIRONMENT |= {"PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"}

FAILURE, WRONG_USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

TIMEOUT = 120  # seconds, for what should end at once: a machine may be busy


def run(
    *arguments: str | Path, stdin: bytes = b"", program: Sequence[str] = SCRIPT, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs the command to its end; stdin and stdout are pipes."""
    return subprocess.run(
        [*program, *arguments],
        input=stdin,
        capture_output=True,
        cwd=OUTSIDE,
        env=ENVIRONMENT | environment,
        timeout=TIMEOUT,
        check=False,
    )


def output_of(*arguments: str | Path, stdin: bytes = b"", **environment: str) -> bytes:
    """What it writes to stdout; fails unless it succeeds and says nothing on stderr."""
    result = run(*arguments, stdin=stdin, **environment)
    assert (result.returncode, result.stderr) == (0, b"")
    return result.stdout


def output_here(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The same without a process of its own, for what does not depend on one."""
    status = main([str(argument) for argument in arguments])
    stdout, stderr = capfd.readouterr()
    assert (status, stderr) == (0, "")
    return stdout


def assert_complains(result: subprocess.CompletedProcess[bytes], status: int, *words: str) -> None:
    """Failed with that status and one line on stderr that has the words; nothing on stdout."""
    text = result.stderr.decode()
    assert (result.returncode, result.stdout) == (status, b""), text
    assert text.startswith("fastgpt-c: ") and text.count("\n") == 1, text
    assert all(word in text for word in words), text


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a process in which Ctrl-C works, even where the tests run in the background and ignore it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits only "ignored"
    try:
        return subprocess.Popen(command, cwd=OUTSIDE, env=ENVIRONMENT, **options)
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def running(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command while it runs; killed in the end."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = start([*SCRIPT, *arguments], **pipes | options)
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that recites the alphabet, again and again; n_ctx 64."""
    return write_scripted_model(tmp_path_factory.mktemp("cli") / "alphabet.gguf", ALPHABET)


@pytest.fixture(scope="module")
def wide_characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that recites an accent, an arrow and an emoji."""
    return write_scripted_model(tmp_path_factory.mktemp("cli") / "wide.gguf", "é→😀")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recites the alphabet with so many positions and layers that reading a full context takes seconds."""
    path = tmp_path_factory.mktemp("cli") / "slow.gguf"
    return write_scripted_model(path, ALPHABET, n_ctx=6000, n_layer=6, n_embd=288)


@pytest.fixture(scope="module")
def demo() -> None:
    """For tests of what comes without -m."""
    if not (resources.files("fastgpt_c") / "models" / "demo.gguf").is_file():
        pytest.skip("this build has no demo model inside")


# ---- The prompt and standard output ------------------------------------------------------------------------


@pytest.mark.parametrize("program", [SCRIPT, MODULE], ids=["fastgpt-c", "python -m fastgpt_c"])
@pytest.mark.parametrize("way", ["argument", "file", "pipe", "file -"])
def test_prompt_and_continuation(alphabet: Path, tmp_path: Path, program: Sequence[str], way: str) -> None:
    """However the prompt comes, stdout is it, its continuation and a line break; stderr is silent."""
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"uvw xyz\n")
    arguments = {"argument": ["uvw xyz"], "file": ["--file", file], "pipe": [], "file -": ["--file", "-"]}[way]
    stdin = b"uvw xyz\n" if way in ("pipe", "file -") else b"not this"
    result = run("generate", "-m", alphabet, "-n", "5", *arguments, stdin=stdin, program=program)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"uvw xyzabcde\n", b"")


@pytest.mark.parametrize(("stdin", "prompt"), [(b"a\n\n", "a\n"), (b"\n a \r\n", "\n a "), (b"", "")])
def test_one_line_break_is_dropped(alphabet: Path, stdin: bytes, prompt: str) -> None:
    """The last one of a pipe, and nothing else.  An empty prompt begins a text."""
    report = json.loads(output_of("generate", "-m", alphabet, "-n", "2", "--json", stdin=stdin))
    assert (report["prompt"], report["text"]) == (prompt, "ab")


def test_an_argument_is_taken_as_it_is(alphabet: Path) -> None:
    """Its line break stays."""
    assert output_of("generate", "-m", alphabet, "-n", "2", "a\n") == b"a\nab\n"


def test_no_prompt(alphabet: Path) -> None:
    """--no-prompt prints the continuation alone."""
    assert output_of("generate", "-m", alphabet, "a", "-n", "4", "--no-prompt") == b"bcde\n"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--stop", "klm", "--stop", "fg"], "bcde"),
        (["-n", "6", "--logit-bias", "68=-inf", "--logit-bias", "88=50"], "bcdyza"),  # 68 is e, 88 is y
        (["-n", "70", "--on-overflow", "slide"], (ALPHABET * 3)[1:71]),
        (["-n", "63", "--no-kv-cache", "--temperature", "0", "--threads", "1", "--no-mmap"], (ALPHABET * 3)[1:64]),
        (["-n", "3", "--top-k", "1", "--top-p", "0.5", "--min-p", "0.1", "--repetition-penalty", "1.1"], "bcd"),
    ],
    ids=" ".join,
)
def test_options_reach_the_engine(
    alphabet: Path, capfd: pytest.CaptureFixture[str], options: list[str], text: str
) -> None:
    """Stop strings, biases, overflow, and the plain ones."""
    default = ["-n", "40", "--no-prompt"]
    assert output_here(capfd, "generate", "-m", alphabet, "a", *default, *options) == text + "\n"


def test_every_option_has_its_field(
    alphabet: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the text does not show, too: all values arrive where Python programs would give them."""
    given: dict[str, Any] = {}

    def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
        def record(*arguments: Any, **keywords: Any) -> Any:
            given.update(keywords)
            return function(*arguments, **keywords)

        return record

    monkeypatch.setattr(fastgpt_c.model, "load", recorded(fastgpt_c.load))
    monkeypatch.setattr(fastgpt_c.Model, "stream", recorded(fastgpt_c.Model.stream))
    options = (
        "-n 7 --stop x --stop y --on-overflow truncate --no-kv-cache --threads 3 --no-mmap --temperature 0.5 --top-k 9 "
        "--top-p 0.25 --min-p 0.125 --repetition-penalty 1.5 --seed 11 --logit-bias 1=2.5 --logit-bias 3=-inf"
    )
    output_here(capfd, "generate", "-m", alphabet, "a", *options.split())
    assert given.pop("progress") is False  # stderr is no terminal
    assert given == {
        "use_mmap": False,
        "n_threads": 3,
        "max_new_tokens": 7,
        "stop": ["x", "y"],
        "on_overflow": "truncate",
        "kv_cache": False,
        "temperature": 0.5,
        "top_k": 9,
        "top_p": 0.25,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
        "seed": 11,
        "logit_bias": {1: 2.5, 3: -math.inf},
    }


def test_json(alphabet: Path) -> None:
    """One object with all that is known, and the seed in it reproduces the text."""
    line = output_of("generate", "-m", alphabet, "é a", "-n", "3", "--json", "--temperature", "1.5")
    report = json.loads(line)
    assert line.count(b"\n") == 1
    seconds = {report.pop(f"{name}_seconds") for name in ("load", "prefill", "decode")}
    assert all(0 < s < TIMEOUT for s in seconds)
    assert 0 <= report.pop("seed") < 2**64
    with fastgpt_c.load(alphabet) as model:
        n_prompt, tokens = len(model.encode("é a")), model.encode("bcd")
    assert report == {
        "model": "alphabet",
        "prompt": "é a",
        "text": "bcd",
        "tokens": tokens,
        "finish_reason": "length",
        "n_prompt": n_prompt,
    }


def test_seed_in_the_report_reproduces(alphabet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """At a temperature that makes the recital stumble: fresh seeds differ, a given one repeats."""
    arguments = ["generate", "-m", alphabet, "a", "-n", "30", "--json", "--temperature", "300", "--top-p", "1"]
    first, second = (json.loads(output_here(capfd, *arguments)) for _ in range(2))
    again = json.loads(output_here(capfd, *arguments, "--seed", str(first["seed"])))
    assert first["tokens"] != second["tokens"]
    assert again["tokens"] == first["tokens"]


@pytest.mark.parametrize("json_option", [[], ["--json"]], ids=["text", "json"])
def test_verbose(alphabet: Path, json_option: list[str]) -> None:
    """-v says on stderr what was run, how long it took and with what seed; stdout is as without."""
    result = run("generate", "-m", alphabet, "a", "-n", "3", "--seed", "77", "-v", *json_option)
    assert result.returncode == 0
    assert json.loads(result.stdout)["text"] == "bcd" if json_option else result.stdout == b"abcd\n"
    rows = {line[:8].strip(): line[8:] for line in result.stderr.decode().splitlines()}
    with fastgpt_c.load(alphabet) as model:
        assert rows["model"] == f"alphabet, {model.n_params:,} parameters, F32"
    assert rows["input"] == "1 tokens"
    assert rows["output"] == "3 tokens, ended by length, seed 77"
    assert all(" ms" in rows[name] for name in ("load", "prefill", "decode"))
    assert "tokens/s" in rows["decode"]


# ---- Other commands ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["-n \t the\u00a0é→😀<|endoftext|>\0\x7f the<|endoftext|>\r\n\n x\n".encode(), b""],
    ids=["all sorts", "nothing"],
)
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["plain", "JSON"])
def test_encode_decode_round_trip(alphabet: Path, text: bytes, options: list[str]) -> None:
    """decode gives back, to the byte, what encode read (and its last line break, which is dropped)."""
    ids = output_of("encode", "-m", alphabet, *options, stdin=text + b"\n")
    assert output_of("decode", "-m", alphabet, stdin=ids) == text


def test_encode_and_decode_arguments(alphabet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """encode prints ids that decode takes as arguments; --literal does not see special tokens."""
    text = "the<|endoftext|>"
    with fastgpt_c.load(alphabet) as model:
        ids, literal = ([str(token) for token in model.encode(text, special=special)] for special in (True, False))
    assert output_here(capfd, "encode", "-m", alphabet, text).split(" ") == [*ids[:-1], ids[-1] + "\n"]
    assert output_here(capfd, "encode", "-m", alphabet, text, "--literal").split() == literal
    assert output_here(capfd, "decode", "-m", alphabet, *ids) == text


def test_decode_half_a_character(alphabet: Path) -> None:
    """It is the byte that it is, not U+FFFD."""
    with fastgpt_c.load(alphabet) as model:
        first = model.encode("é")[0]
    assert output_of("decode", "-m", alphabet, str(first)) == b"\xc3"


def test_info(alphabet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As JSON all that the model says of itself, and for people the same rows."""
    facts = json.loads(output_here(capfd, "info", alphabet, "--json"))
    with fastgpt_c.load(alphabet) as model:
        for name in (
            "name",
            "type",
            "n_params",
            "n_layer",
            "n_head",
            "n_embd",
            "n_ff",
            "n_ctx",
            "n_vocab",
            "eos_token",
        ):
            assert facts[name] == getattr(model, name)
    assert (facts["file"], facts["file_bytes"]) == (str(alphabet), alphabet.stat().st_size)
    assert facts["kv_cache_bytes"] == 2 * 1 * 64 * 272 * 4
    assert facts["version"] == metadata.version("fastgpt-c")
    assert facts["blas"] and facts["kernels"] and facts["usable_cores"] >= 1
    rows = [line.split()[0] for line in output_here(capfd, "info", alphabet).splitlines()]
    assert rows == list(facts)


def test_convert_then_generate(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A checkpoint's folder gives the same text by -m as the file that convert makes of it."""
    folder, file = write_checkpoint(tmp_path / "checkpoint", CONFIG), tmp_path / "model.gguf"
    result = run("convert", folder, "-o", file, "--type", "f16")
    assert (result.returncode, result.stdout) == (0, b"")
    assert f"{file}: {file.stat().st_size:,} bytes" in result.stderr.decode()
    assert json.loads(output_here(capfd, "info", file, "--json"))["type"] == "F16"
    assert run("convert", folder, "-o", file).returncode == 0
    by_file, by_folder = (
        output_of("generate", "-m", m, "a", "-n", "5", "--temperature", "0", FASTGPT_CACHE=str(tmp_path / "cache"))
        for m in (file, folder)
    )
    assert by_file == by_folder
    assert list((tmp_path / "cache").rglob("*.gguf"))


def test_version() -> None:
    """What pip installed, on stdout."""
    assert output_of("--version") == f"fastgpt-c {metadata.version('fastgpt-c')}\n".encode()


IMPORTED = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
HEAVY = {"torch", "safetensors", "gguf", "huggingface_hub", "tqdm", "ml_dtypes", "tokenizers", "transformers"}


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import fastgpt_c", HEAVY | {"numpy"}),
        ("import fastgpt_c; fastgpt_c.load", HEAVY | {"regex"}),
        ("from fastgpt_c.cli.__main__ import main\ntry: main(['generate', '--help'])\nexcept SystemExit: pass",
         HEAVY | {"numpy", "cffi", "_cffi_backend", "regex"}),
    ],
    ids=["import", "load", "help"],
)  # fmt: skip
def test_what_is_imported(code: str, unwanted: set[str]) -> None:
    """The package brings in nothing of its extras, and --help nothing of the engine either."""
    result = run("-c", f"{code}\n{IMPORTED}", program=[sys.executable])
    assert (result.returncode, result.stderr) == (0, b"")
    names = set(result.stdout.decode().splitlines()[-1].split())
    assert "fastgpt_c" in names
    assert not names & unwanted


# ---- Wrong usage and failures ------------------------------------------------------------------------------


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
        ("generate -m {good} a -n 1 --temperature -2", 2, ["temperature", "-2"]),
        ("generate -m {good} a -n 1 --temperature nan", 2, ["temperature", "nan"]),
        ("generate -m {good} a -n 1 --top-k -3", 2, ["top_k", "-3"]),
        ("generate -m {good} a -n 1 --top-p 1.5", 2, ["top_p", "1.5"]),
        ("generate -m {good} a -n 1 --min-p -0.5", 2, ["min_p", "-0.5"]),
        ("generate -m {good} a -n 1 --repetition-penalty -1", 2, ["repetition_penalty", "-1"]),
        ("generate -m {good} a -n 1 --seed -1", 2, ["seed", "-1"]),
        ("generate -m {good} a -n 1 --seed 18446744073709551616", 2, ["seed", "18446744073709551616"]),
        ("generate -m {good} a -n 1 --logit-bias 265=1", 2, ["logit_bias", "265"]),
        ("generate -m {good} a -n 1 --logit-bias 1=inf", 2, ["logit_bias", "inf"]),
        ("generate -m {good} a -n 1 --no-prompt --threads -1", 2, ["outside its range"]),
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
        ("chat -m {good} -n 1 --temperature -2", 2, ["temperature", "-2"]),
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
    """The option and its value, or the file; exit status 2 for wrong usage, 1 for what else cannot be done."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    assert main(arguments.format(**bad_places).split(" ")) == status
    stdout, stderr = capfd.readouterr()
    assert (stdout.strip(), stderr.count("\n")) == ("", 1)
    assert stderr.startswith("fastgpt-c: ")
    assert all(word.format(**bad_places) in stderr for word in words), stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "COMMAND"),
        (["sing"], "'sing'"),
        (["generate", "-n", "many"], "'many'"),
        (["generate", "--logit-bias", "50256"], "ID=BIAS"),
        (["generate", "--on-overflow", "wrap"], "'wrap'"),
        (["generate", "--colour"], "--colour"),
        (["convert", "folder"], "-o"),
        (["download"], "NAME"),
    ],
    ids=repr,
)
def test_wrong_usage(capfd: pytest.CaptureFixture[str], arguments: list[str], word: str) -> None:
    """What is no command line at all: usage and one line that names it, exit status 2."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    text = capfd.readouterr().err
    assert exit_info.value.code == WRONG_USAGE
    assert text.startswith("usage: fastgpt-c")
    assert "error: " in text.splitlines()[-1] and word in text.splitlines()[-1]


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


REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.parametrize(
    ("missing", "arguments", "command"),
    [
        ("safetensors", ["convert", "{folder}", "-o", "{folder}/x.gguf"], "pip install 'fastgpt-c[convert]'"),
        ("gguf", ["generate", "a", "-m", "{folder}"], "pip install 'fastgpt-c[convert]'"),
        ("tqdm", ["convert", "{folder}", "-o", "{folder}/x.gguf"], "pip install 'fastgpt-c[convert]'"),
        ("huggingface_hub", ["generate", "a", "-m", "gpt2"], "pip install 'fastgpt-c[hub,convert]'"),
        ("huggingface_hub", ["download", "124M"], "pip install 'fastgpt-c[hub,convert]'"),
    ],
)
def test_missing_extra(tmp_path: Path, missing: str, arguments: list[str], command: str) -> None:
    """Without a package that is optional, the line says what to type to get it."""
    folder = write_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "sitecustomize.py").write_text(REFUSE.format(names=[missing]))
    result = run(
        *(word.format(folder=folder) for word in arguments),
        PYTHONPATH=str(tmp_path),
        FASTGPT_CACHE=str(tmp_path / "cache"),
    )
    assert_complains(result, FAILURE, command)


def test_without_extras_the_main_job_works(alphabet: Path, tmp_path: Path) -> None:
    """A GGUF file needs none of them."""
    (tmp_path / "sitecustomize.py").write_text(REFUSE.format(names=sorted(HEAVY)))
    assert output_of("generate", "-m", alphabet, "a", "-n", "2", PYTHONPATH=str(tmp_path)) == b"abc\n"


# ---- Streams that are closed, broken or of another encoding ------------------------------------------------


@pytest.mark.parametrize("n_read", [1, 200])
def test_a_reader_that_leaves(alphabet: Path, n_read: int) -> None:
    """As in `fastgpt-c generate ... | head -c 1`: it ends by itself, as a shell says of SIGPIPE, without a word."""
    with running("generate", "-m", alphabet, "a", "-n", "1000000000", "--on-overflow", "slide") as process:
        assert process.stdout and process.stderr
        assert len(process.stdout.read(n_read)) == n_read
        process.stdout.close()
        assert process.wait(TIMEOUT) == PIPE_CLOSED
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", "generate -m {0} a -n 5 --json", "info {0}", "encode -m {0} a", "decode -m {0} 1"],
)
def test_a_reader_that_never_came(alphabet: Path, arguments: str) -> None:
    """The same for every command when stdout is closed at the other end from the beginning."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with running(*arguments.format(alphabet).split(), stdout=write_end) as process:
        os.close(write_end)
        assert process.stderr
        assert process.wait(TIMEOUT) == PIPE_CLOSED
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk(alphabet: Path) -> None:
    """What cannot be written is a failure, said in one line."""
    with (
        Path("/dev/full").open("wb") as full,
        running("generate", "-m", alphabet, "a", "--json", stdout=full) as process,
    ):
        assert process.stderr
        assert process.wait(TIMEOUT) == FAILURE
        assert process.stderr.read().count(b"\n") == 1


@pytest.mark.parametrize(
    ("redirection", "arguments", "expected"),
    [
        ("<&-", "generate -m {0} -n 3", b"abc\n"),
        ("<&-", "decode -m {0}", b""),
        ("<&-", "chat -m {0} -n 3", b""),
        (">&-", "generate -m {0} -n 3 a", b""),
        (">&-", "decode -m {0} 64", b""),
        ("2>&-", "generate -m {0} -n 3 a -v", b"abcd\n"),
    ],
)
def test_closed_streams(alphabet: Path, redirection: str, arguments: str, expected: bytes) -> None:
    """A closed stdin is an empty one; what would go to a closed stdout or stderr goes nowhere."""
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *SCRIPT]
    result = run(*arguments.format(alphabet).split(), program=shell)
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, b"")


@pytest.mark.parametrize(
    ("environment", "encoding"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": ""}, "utf-8"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, "ascii"),
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
    ],
    ids=["C", "ASCII", "Latin-1"],
)
def test_other_encodings(wide_characters: Path, environment: dict[str, str], encoding: str) -> None:
    """The C locale is no obstacle; where stdout cannot hold a character, "?" stands for it."""
    shown = output_of("generate", "-m", wide_characters, "-n", "9", stdin="é".encode(), **environment)
    assert shown == "é→😀é\n".encode(encoding, "replace")


# ---- Ctrl-C ------------------------------------------------------------------------------------------------


def interrupt(process: subprocess.Popen[bytes], patience: float) -> bytes:
    """Ctrl-C -> the rest of stdout.  Fails unless it ends within so many seconds, with status 130 and no words."""
    begin = time.perf_counter()
    process.send_signal(signal.SIGINT)
    rest, stderr = process.communicate(timeout=TIMEOUT)
    seconds = time.perf_counter() - begin
    assert (process.returncode, stderr.strip()) == (INTERRUPTED, b"")
    assert seconds < patience, f"took {seconds:.1f} s to end"
    return rest


@pytest.fixture(scope="module")
def patience(slow: Path) -> float:
    """Seconds: "at once" on this machine, as busy as it is.  Starting and ending take a part of that, and reading a
    full context ten times as long."""
    begin = time.perf_counter()
    output_of("generate", "-m", slow, "a", "-n", "0")
    return 1 + 2 * (time.perf_counter() - begin)


def test_ctrl_c_while_generating(alphabet: Path, patience: float) -> None:
    """What was generated stays, with a line break behind it."""
    with running("generate", "-m", alphabet, "a", "-n", "1000000000", "--on-overflow", "slide") as process:
        assert process.stdout
        begin = process.stdout.read(100)
        text = begin + interrupt(process, patience)
    assert text == (ALPHABET * len(text)).encode()[: len(text) - 1] + b"\n"


def test_ctrl_c_while_reading_the_prompt(slow: Path, patience: float) -> None:
    """In the middle of a prefill of thousands of tokens, right after the prompt was shown."""
    prompt = (ALPHABET * 300).encode()[:5900]
    with running("generate", "-m", slow, "-n", "9") as process:
        assert process.stdin and process.stdout
        process.stdin.write(prompt)
        process.stdin.close()
        process.stdin = None
        assert process.stdout.read(len(prompt)) == prompt
        time.sleep(patience / 10)
        assert interrupt(process, patience) == b"\n"


def test_ctrl_c_with_json(slow: Path, patience: float) -> None:
    """No half object."""
    with running("generate", "-m", slow, "a", "-n", "5900", "--json") as process:
        time.sleep(patience / 2)
        assert interrupt(process, patience) == b""


def test_ctrl_c_while_waiting_for_a_prompt(alphabet: Path, patience: float) -> None:
    """A pipe to which nobody writes."""
    with running("generate", "-m", alphabet) as process:
        time.sleep(patience / 2)
        assert interrupt(process, patience) == b""


# ---- Terminals ---------------------------------------------------------------------------------------------

# The first argument that follows becomes a program whose Ctrl-C and Ctrl-D are those of the terminal.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """The command in a terminal: what a person types, and what they see."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self._process, self._master = process, master

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def see(self, text: bytes) -> bytes:
        """All that comes until text does, both included."""
        seen = b""
        while not seen.endswith(text):
            more = self._read()
            assert more, f"ended after {seen!r}, without {text!r}"
            seen += more
        return seen

    def end(self) -> tuple[bytes, int]:
        """What comes until it ends, and its exit status."""
        seen = b""
        while more := self._read():
            seen += more
        return seen, self._process.wait(TIMEOUT)

    def _read(self) -> bytes:
        assert select.select([self._master], [], [], TIMEOUT)[0], "nothing happens"
        try:
            return os.read(self._master, 1)
        except OSError:  # Linux says so when the program has gone
            return b""


@contextmanager
def in_terminal(*arguments: str | Path) -> Iterator[Terminal]:
    """Runs the command in a terminal of its own."""
    master, slave = pty.openpty()
    command = [sys.executable, "-c", TAKE_TERMINAL, *SCRIPT, *arguments]
    process = start(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    with process:
        try:
            yield Terminal(process, master)
        finally:
            process.kill()
            os.close(master)


@pytest.mark.parametrize(
    ("command", "what"), [("generate", b"no prompt"), ("encode", b"no text"), ("decode", b"no token")]
)
def test_no_prompt_in_a_terminal(alphabet: Path, command: str, what: bytes) -> None:
    """Nobody is left waiting at an empty line: it says what to give, and how."""
    with in_terminal(command, "-m", alphabet) as terminal:
        seen, status = terminal.end()
    assert (status, seen.count(b"\n")) == (WRONG_USAGE, 1)
    assert what in seen and b"pipe" in seen


def test_a_prompt_typed_into_a_terminal(alphabet: Path) -> None:
    """--file - asks for it on purpose: it ends with Ctrl-D."""
    with in_terminal("generate", "-m", alphabet, "-n", "3", "--no-prompt", "--file", "-") as terminal:
        terminal.type(b"xyz\n\x04")
        seen, status = terminal.end()
    assert (status, seen) == (0, b"xyz\r\nabc\r\n")


def test_decode_in_a_terminal(alphabet: Path) -> None:
    """There, a line break follows the bytes."""
    with in_terminal("decode", "-m", alphabet, "64", "65") as terminal:
        assert terminal.end() == (b"ab\r\n", 0)


def test_ctrl_c_in_a_terminal(alphabet: Path) -> None:
    """The key itself, while text streams by."""
    with in_terminal("generate", "-m", alphabet, "a", "-n", "1000000000", "--on-overflow", "slide") as terminal:
        terminal.see(ALPHABET.encode() * 2)
        terminal.type(b"\x03")
        seen, status = terminal.end()
    assert (status, b"Traceback" in seen) == (INTERRUPTED, False)


# ---- The bundled demo model --------------------------------------------------------------------------------


def test_demo_continues_a_story(demo: None) -> None:
    """Without -m and with nothing but a prompt, English words follow."""
    report = json.loads(output_of("generate", "Once upon a time", "--json", "--seed", "1"))
    words = report["text"].split()
    assert len(words) > 20
    assert len({"the", "a", "was", "and", "to", "there"} & set(words)) >= 3


def test_demo_streams_what_json_reports(demo: None) -> None:
    """The same seed: stdout is the prompt and the text of the report."""
    arguments = ["generate", "Once upon a time", "-n", "40", "--seed", "3"]
    text = json.loads(output_of(*arguments, "--json"))["text"]
    assert output_of(*arguments).decode() == f"Once upon a time{text}\n"


def test_demo_has_a_tokenizer_and_facts(demo: None) -> None:
    """encode | decode gives the text back, and info says what it is."""
    text = "The wolf said: “I'm hungry!” 😀".encode()
    assert output_of("decode", stdin=output_of("encode", stdin=text)) == text
    facts = json.loads(output_of("info", "--json"))
    assert facts["tokenizer"] == "byte-level BPE"
    assert facts["eos_token"] is not None
