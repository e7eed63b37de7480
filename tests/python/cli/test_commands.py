"""The commands: how a prompt comes in, what goes out, and that every option has its effect."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest
from checkpoints import CONFIG, write_checkpoint
from command import MODULE, SCRIPT, TIMEOUT, output_here, output_of, run
from scripted import ALPHABET

import fastgpt_c
import fastgpt_c.model
from fastgpt_c.convert import convert

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
        "-n 7 --stop x --stop y --on-overflow truncate --no-kv-cache --kv-type bf16 --threads 3 --no-mmap "
        "--deterministic --temperature 0.5 --top-k 9 --top-p 0.25 --min-p 0.125 "
        "--repetition-penalty 1.5 --seed 11 --logit-bias 1=2.5 --logit-bias 3=-inf "
        "--typical-p 0.75 --top-n-sigma 2.5 --mirostat-tau 3.5 --mirostat-eta 0.25 --frequency-penalty 0.125 "
        "--presence-penalty -0.5 --no-repeat-ngram-size 3 --min-new-tokens 2 --regex a+ --prompt-lookup 5"
    )
    output_here(capfd, "generate", "-m", alphabet, "a", *options.split())
    assert given.pop("progress") is False  # stderr is no terminal
    assert given.pop("reader").session.kv_type == "bf16"
    assert given == {
        "use_mmap": False,
        "n_threads": 3,
        "vocab_only": False,
        "max_new_tokens": 7,
        "stop": ["x", "y"],
        "on_overflow": "truncate",
        "ignore_eos": False,
        "kv_cache": False,
        "kv_type": "bf16",
        "deterministic": True,
        "prompt_lookup": 5,
        "penalty_alpha": None,  # it is refused beside those that draw
        "draft": None,
        "control_vector": None,  # of files: test_control_vector_option.py
        "regex": "a+",
        "json_schema": None,
        "grammar": None,
        "temperature": 0.5,
        "top_k": 9,
        "top_p": 0.25,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
        "typical_p": 0.75,
        "top_n_sigma": 2.5,
        "mirostat_tau": 3.5,
        "mirostat_eta": 0.25,
        "frequency_penalty": 0.125,
        "presence_penalty": -0.5,
        "no_repeat_ngram_size": 3,
        "min_new_tokens": 2,
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
        "n_reused": 0,
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


def test_no_name_steers_the_terminal(alphabet: Path, tmp_path: Path) -> None:
    """The name of a model is a stranger's text."""
    file = tmp_path / "model.gguf"
    file.write_bytes(alphabet.read_bytes().replace(b"alphabet", b"alph\x1bbet"))
    said = run("generate", "-m", file, "a", "-n", "1", "-v").stderr.decode()
    assert "alph bet" in said and "\x1b" not in said


def test_info_checks_the_fingerprint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A bit flipped in a tensor or a size is found; a file without a fingerprint is told apart from both."""
    folder, file = write_checkpoint(tmp_path / "checkpoint", CONFIG), tmp_path / "model.gguf"
    (folder / "README.md").write_text('---\nlicense: "a\x1b[2J b"\n---\n')
    convert(folder, file)
    facts = json.loads(output_here(capfd, "info", file, "--json", "--check"))
    assert (facts["fingerprint_checked"], facts["license"]) == (True, "a\x1b[2J b")
    assert "\x1b" not in output_here(capfd, "info", file)
    sound = file.read_bytes()
    at_epsilon = sound.index(b"layer_norm_epsilon") + len("layer_norm_epsilon") + 4
    for at in (len(sound) - 40, at_epsilon):  # the last bytes are padding
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        result = run("info", file, "--check")
        assert (result.returncode, result.stdout) == (1, b"")
        assert f"says {facts['fingerprint']}" in result.stderr.decode()
    file.write_bytes(sound.replace(b"fastgpt.fingerprint", b"somebody.elses.one."))
    assert b"has no fingerprint" in run("info", file, "--check").stderr


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


# ---- The bundled demo model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo() -> None:
    """For tests of what comes without -m."""
    if not (resources.files("fastgpt_c") / "models" / "demo.gguf").is_file():
        pytest.skip("this build has no demo model inside")


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
