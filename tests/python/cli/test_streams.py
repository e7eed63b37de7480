"""The command among other programs: streams that close, Ctrl-C, terminals and odd locales."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from command import (
    FAILURE,
    INTERRUPTED,
    PIPE_CLOSED,
    SCRIPT,
    TIMEOUT,
    WRONG_USAGE,
    assert_complains,
    in_terminal,
    interrupt,
    output_of,
    run,
    running,
)
from scripted import ALPHABET, write_scripted_model


@pytest.fixture(scope="module")
def wide_characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that recites an accent, an arrow and an emoji."""
    return write_scripted_model(tmp_path_factory.mktemp("cli") / "wide.gguf", "é→😀")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recites the alphabet with so many positions and layers that reading a full context takes seconds."""
    path = tmp_path_factory.mktemp("cli") / "slow.gguf"
    return write_scripted_model(path, ALPHABET, n_ctx=6000, n_layer=6, n_embd=288)


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
@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-"])
@pytest.mark.parametrize(
    "arguments", ["--help", "generate --help", "--version", "generate -m {0} a -n 3", "info {0}", "decode -m {0} 64"]
)
def test_a_full_or_closed_stdout(alphabet: Path, redirection: str, arguments: str) -> None:
    """What cannot be written is a failure, said in one line, for every command and for its help."""
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *SCRIPT]
    result = run(*arguments.format(alphabet).split(), program=shell)
    assert_complains(result, FAILURE, "output", "cannot be written")


@pytest.mark.parametrize(
    ("redirection", "arguments", "expected"),
    [
        ("<&-", "generate -m {0} -n 3", b"abc\n"),
        ("<&-", "decode -m {0}", b""),
        ("<&-", "chat -m {0} -n 3", b""),
        ("2>&-", "generate -m {0} -n 3 a -v", b"abcd\n"),
    ],
)
def test_closed_streams(alphabet: Path, redirection: str, arguments: str, expected: bytes) -> None:
    """A closed stdin is an empty one; what would go to a closed stderr goes nowhere."""
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *SCRIPT]
    result = run(*arguments.format(alphabet).split(), program=shell)
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, b"")


ENCODINGS = pytest.mark.parametrize(
    ("environment", "encoding"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": ""}, "utf-8"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, "ascii"),
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
    ],
    ids=["C", "ASCII", "Latin-1"],
)


@ENCODINGS
def test_json_keeps_its_characters(wide_characters: Path, environment: dict[str, str], encoding: str) -> None:
    """In UTF-8 as they are, in other encodings as escapes: it is JSON, and whole."""
    shown = output_of("generate", "-m", wide_characters, "-n", "9", "--json", stdin="é".encode(), **environment)
    assert json.loads(shown.decode(encoding))["text"] == "→😀é"
    assert (b"\\u2192" in shown) == (encoding != "utf-8")


@ENCODINGS
def test_other_encodings(wide_characters: Path, environment: dict[str, str], encoding: str) -> None:
    """The C locale is no obstacle; where stdout cannot hold a character, "?" stands for it."""
    shown = output_of("generate", "-m", wide_characters, "-n", "9", stdin="é".encode(), **environment)
    assert shown == "é→😀é\n".encode(encoding, "replace")


# ---- Ctrl-C ------------------------------------------------------------------------------------------------


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
