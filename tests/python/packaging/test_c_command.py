"""Laws of text to text in C: fastgpt_generate, and the command fastgpt, built here against the installed library."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from installation import tool
from paths import ROOT

import fastgpt_c
from fastgpt_c import _fastgpt
from fastgpt_c.native.lib import check, create, ffi, lib

SOURCE = ROOT / "csrc" / "cli" / "main.c"
PACKAGE = Path(_fastgpt.__file__).parent
DEMO = PACKAGE / "models" / "demo.gguf"
PROMPTS = ["Once upon a time", "The wolf said <|endoftext|>", "", "\u4f60\u597d caf\u00e9 \U0001f44d"]


def greedy(prompt: str, n: int) -> fastgpt_c.Completion:
    with fastgpt_c.load(n_threads=1) as model:
        return model.generate(prompt, max_new_tokens=n, temperature=0)


# ---- fastgpt_generate --------------------------------------------------------------------------------


def generate(prompt: str, n: int, stop_after: int = 0) -> tuple[list[int], bytes, int]:
    """Greedy tokens, text and number of tokens; the callback stops at its stop_after-th call."""
    with fastgpt_c.load(n_threads=1) as model:
        pool = model.pool()
        ctx = create(lib.fastgpt_context_create, model.handle, pool, 0, free=lib.fastgpt_context_free)
        kv = create(lib.fastgpt_kv_cache_create, model.handle, 0, free=lib.fastgpt_kv_cache_free)
        params = ffi.new("fastgpt_sampler_params *", {"struct_size": ffi.sizeof("fastgpt_sampler_params")})
        sampler = create(lib.fastgpt_sampler_create, model.n_vocab, params, free=lib.fastgpt_sampler_free)
        out = ffi.new("fastgpt_tokenizer **")
        check(lib.fastgpt_tokenizer_create(model.handle, out, ffi.NULL))
        tokenizer = ffi.gc(out[0], lib.fastgpt_tokenizer_free)
        tokens = model.encode(prompt) or [model.eos_token]
        heard: list[tuple[int, bytes]] = []

        @ffi.callback("int32_t(void *, int32_t, const char *, size_t)")
        def listen(_: Any, token: int, text: Any, n_bytes: int) -> int:
            heard.append((token, ffi.unpack(text, n_bytes)))
            return len(heard) == stop_after

        n_generated = ffi.new("int32_t *")
        prompt_tokens = ffi.new("int32_t[]", tokens)
        check(
            lib.fastgpt_generate(
                ctx, kv, sampler, tokenizer, prompt_tokens, len(tokens), n, listen, ffi.NULL, n_generated
            )
        )
        return [token for token, _ in heard if token >= 0], b"".join(text for _, text in heard), n_generated[0]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_generate_equals_python(prompt: str) -> None:
    """fastgpt_generate draws the tokens that Model.generate draws, and streams their text."""
    expected = greedy(prompt, 40)
    tokens, text, n = generate(prompt, 40)
    assert (tokens, text.decode(), n) == (expected.tokens, expected.text, len(expected.tokens))


@pytest.mark.parametrize("stop_after", [1, 2, 17])
def test_generate_stops_when_told(stop_after: int) -> None:
    """The callback's answer ends the text after that token."""
    tokens, _, n = generate(PROMPTS[0], 40, stop_after)
    assert tokens == greedy(PROMPTS[0], 40).tokens[:stop_after]
    assert n == stop_after


# ---- The generator -----------------------------------------------------------------------------------


@ffi.callback("int32_t(void *, const fastgpt_piece *)")
def keep_text(user: Any, piece: Any) -> int:
    ffi.from_handle(user).append(ffi.unpack(piece.text, piece.n_bytes))
    return 0


def say(generator: Any, text: str) -> str:
    """What a generator answers."""
    heard: list[bytes] = []
    user, error = ffi.new_handle(heard), ffi.new("fastgpt_error *")
    data = text.encode()
    check(lib.fastgpt_generator_continue(generator, data, len(data), keep_text, user, error))
    return b"".join(heard).decode()


def test_generator_equals_python(tmp_path: Path) -> None:
    """Two turns with a stop string are what Python makes of the whole text each time, with the seed of each turn."""
    stop = ffi.new("char[]", b"\nUser:")
    stops = ffi.new("const char *[]", [stop])
    params = ffi.new("fastgpt_sampler_params *", {"struct_size": ffi.sizeof("fastgpt_sampler_params")})
    options = ffi.new("fastgpt_generator_options *", {"struct_size": ffi.sizeof("fastgpt_generator_options")})
    options.sampling, options.stop, options.n_stop, options.max_new_tokens = params, stops, 1, 40
    out, error = ffi.new("fastgpt_generator **"), ffi.new("fastgpt_error *")
    check(lib.fastgpt_generator_open(os.fsencode(DEMO), options, out, error))
    generator = ffi.gc(out[0], lib.fastgpt_generator_free)
    talk = ""
    with fastgpt_c.load(n_threads=1) as model:
        for said in ("Once upon a time there was", " a wolf who said:", ""):
            talk += said
            answer = say(generator, said)
            assert answer == model.generate(talk, max_new_tokens=40, temperature=0, stop=["\nUser:"]).text
            talk += answer


def test_chat_example_answers(tmp_path: Path) -> None:
    """examples/c/chat.c, built as its README tells, answers each line and ends with its input."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    library, program = PACKAGE / "lib", tmp_path / "chat"
    flags = ["-Wall", "-Wextra", "-Werror", f"-I{PACKAGE / 'include'}", f"-L{library}", "-lfastgpt"]
    source = ROOT / "examples" / "c" / "chat.c"
    subprocess.run(["cc", source, "-o", program, *flags, f"-Wl,-rpath,{library}"], check=True)
    done = subprocess.run([program, DEMO], input=b"Hello!\nWho are you?\n", capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"> ") == 3 and len(done.stdout) > 50


# ---- The command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, linked to the library of the package."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    program = tmp_path_factory.mktemp("command") / "fastgpt"
    library = PACKAGE / "lib"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{PACKAGE / 'include'}"]
    link = [f"-L{library}", "-lfastgpt", f"-Wl,-rpath,{library}"]
    subprocess.run(["cc", *flags, SOURCE, "-o", program, *link], check=True)
    return program


def run(command: Path, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([command, *arguments], capture_output=True, timeout=60)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_command_equals_python(command: Path, prompt: str) -> None:
    """At temperature 0 the command prints what Python's generate gives."""
    done = run(command, "-m", DEMO, "-p", prompt, "-n", "40", "--temp", "0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == prompt + greedy(prompt, 40).text + "\n"


def test_command_samples_as_python(command: Path) -> None:
    """The same seed and filters draw the same text as in Python."""
    options = ["--temp", "1.1", "--top-k", "50", "--top-p", "0.9", "--min-p", "0.01", "--seed", "12345678901234567890"]
    done = run(command, "-m", DEMO, "-p", "The wolf", "-n", "30", "--threads", "2", *options)
    with fastgpt_c.load() as model:
        expected = model.generate(
            "The wolf", max_new_tokens=30, temperature=1.1, top_k=50, top_p=0.9, min_p=0.01, seed=12345678901234567890
        )
    assert done.stdout.decode() == f"The wolf{expected.text}\n"


def test_command_shares_its_options_with_python(command: Path) -> None:
    """Each option of the command is one of fastgpt-c generate, or an older name of one; --help tells of all."""
    ours = set(re.findall(r"--[a-z-]+", run(command, "--help").stdout.decode()))
    python = subprocess.run(
        [tool("fastgpt-c"), "generate", "--help"], capture_output=True, text=True, check=True, cwd="/"
    )
    theirs = set(re.findall(r"--[a-z-]+", python.stdout))
    assert len(ours) > 20 and ours - theirs == {"--temp", "--version"}


def test_command_takes_long_names(command: Path) -> None:
    """As Python's does: the prompt as an argument, values behind "=", stop strings, penalties, no prompt printed."""
    options = ["--max-new-tokens=40", "--temperature", "1.2", "--typical-p=0.9", "--no-repeat-ngram-size", "3"]
    options += ["--repetition-penalty", "1.1", "--min-new-tokens", "20", "--seed=5", "--stop", "and", "--kv-type=bf16"]
    done = run(command, "--model", DEMO, *options, "--no-prompt", "The wolf")
    changes = {"typical_p": 0.9, "no_repeat_ngram_size": 3, "repetition_penalty": 1.1, "min_new_tokens": 20}
    with fastgpt_c.load() as model:
        expected = model.generate(
            "The wolf", max_new_tokens=40, temperature=1.2, seed=5, stop=["and"], kv_type="bf16", **changes
        )
    assert (done.stdout.decode(), done.stderr) == (f"{expected.text}\n", b"")


def test_command_slides_on(command: Path) -> None:
    """More new tokens than the context has, as --on-overflow slide of Python's."""
    done = run(command, "-m", DEMO, "-n", "600", "--temp", "0", "--on-overflow", "slide", "Once")
    with fastgpt_c.load() as model:
        expected = model.generate("Once", max_new_tokens=600, temperature=0, on_overflow="slide")
    assert done.stdout.decode() == f"Once{expected.text}\n"


def test_command_prints_what_comes(command: Path) -> None:
    """The prompt is there before the continuation is, and a closed pipe ends the text."""
    arguments = [command, "-m", DEMO, "-p", "Once", "-n", "400"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert os.read(process.stdout.fileno(), 100).startswith(b"Once")
        process.stdout.close()
        process.wait(timeout=60)
        assert process.stderr.read() == b""


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_command_tells_about_itself(command: Path, option: str) -> None:
    """On standard output, and with success."""
    done = run(command, option)
    expected = b"usage: fastgpt -m FILE" if "h" in option else ffi.string(lib.fastgpt_version()) + b"\n"
    assert done.returncode == 0 and done.stdout.startswith(expected) and done.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("", 2, "-m FILE"),
        ("-m {demo}", 2, "-p PROMPT"),
        ("-m {demo} -p", 2, "-p: wants a value"),
        ("-m {demo} -p a --frob 1", 2, "--frob: no such option"),
        ("-m {demo} -p a -n x", 2, "-n: wants a number"),
        ("-m {demo} -p a -n 1.5", 2, "-n: wants a whole number"),
        ("-m {demo} -p a -n -1", 2, "-n: wants a whole number"),
        ("-m {demo} -p a -n 9999999999", 2, "-n: wants a whole number"),
        ("-m {demo} -p a --seed -1", 2, "--seed: wants a whole number below 2^64"),
        ("-m {demo} -p a --seed 18446744073709551616", 2, "below 2^64"),
        ("-m {demo} -p a --temp nan", 2, "--temp: wants a number"),
        ("-m {demo} -p a --temp -1", 2, "--temperature: is -1, not in [0, 1e+06]"),
        ("-m {demo} -p a --top-p=2", 2, "--top-p: is 2, not in [0, 1]"),
        ("-m {demo} -p a b", 2, "more than one prompt"),
        ("-m {demo} -p a --kv-type q4_0", 2, "--kv-type: no such choice"),
        ("-m {demo} -p a --on-overflow", 2, "--on-overflow: wants a value"),
        ("-m {demo} -p a" + 17 * " --stop x", 2, "--stop: given too often"),
        ("-m {demo} a -n 512", 1, "1 of the text and 512 new ones exceed the 512 positions"),
        ("-m {none} -p a", 1, "none.gguf"),
        ("-m {bad} -p a", 1, "GGUF"),
        ("-m {untokenized} -p a", 1, "no tokenizer"),
        ("-m {demo} -p a --threads 2000", 2, "--threads: is 2000, not in [0, 1024]"),
    ],
)
def test_command_says_what_is_wrong(
    command: Path, long_model: fastgpt_c.Model, tmp_path: Path, arguments: str, status: int, words: str
) -> None:
    """Wrong usage gives 2, a failure 1; the reason is on standard error, and nothing on standard output."""
    (tmp_path / "bad.gguf").write_bytes(b"no model")
    places = {
        "demo": DEMO,
        "none": tmp_path / "none.gguf",
        "bad": tmp_path / "bad.gguf",
        "untokenized": long_model.path,
    }
    done = run(command, *arguments.format(**places).split())
    assert (done.returncode, done.stdout) == (status, b"")
    message = done.stderr.decode()
    assert message.startswith("fastgpt: ") and words in message and message.count("\n") == 1
