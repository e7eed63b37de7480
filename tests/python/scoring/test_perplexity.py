"""fastgpt-c eval: perplexities are those of transformers, of any bytes, from a file or a pipe."""

from __future__ import annotations

import json
import math
import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import CONFIG, write_checkpoint, write_json
from command import FAILURE, INTERRUPTED, WRONG_USAGE, assert_complains, in_terminal, output_here, output_of, run
from paths import ROOT
from scripted import ALPHABET

import fastgpt_c
from fastgpt_c.cli import evaluate as evaluate_command
from fastgpt_c.cli.__main__ import main
from fastgpt_c.convert import convert
from fastgpt_c.errors import UsageError
from fastgpt_c.scoring.perplexity import Evaluation, evaluate

if TYPE_CHECKING:
    from models import Tiny

HELD_OUT = ROOT / "tests" / "data" / "fairy_tales_heldout.txt"
GOLDEN = json.loads((ROOT / "tests" / "vectors" / "perplexity.json").read_text(encoding="utf-8"))


def last(model: fastgpt_c.Model, tokens: Sequence[int], **options: Any) -> Evaluation:
    *_, result = evaluate(model, tokens, **options)
    return result


def assert_equal_transformers(result: Evaluation, expected: dict[str, float | None]) -> None:
    """To five digits or more."""
    assert result.perplexity == pytest.approx(expected["mean"], rel=1e-5)
    if expected["guide"] is None:
        assert math.isnan(result.guide_perplexity)
    else:
        assert result.guide_perplexity == pytest.approx(expected["guide"], rel=1e-5)


def test_tiny_perplexities(tiny: Tiny) -> None:
    """Those of transformers, for every stride, as its guide adds up and with each token once."""
    if tiny.path.stem not in GOLDEN:
        pytest.skip("a new checkpoint: run tools/make_perplexity_vectors.py")
    golden = GOLDEN[tiny.path.stem]
    for stride, expected in golden["perplexities"].items():
        assert_equal_transformers(last(tiny.model, golden["tokens"], stride=int(stride)), expected)
    assert last(tiny.model, golden["tokens"]).perplexity == pytest.approx(expected["mean"], rel=1e-5)  # the largest


@pytest.mark.parametrize("stride", GOLDEN["demo"]["perplexities"])
def test_demo_perplexity(stride: str) -> None:
    """Of the command, on the held-out text."""
    arguments = [] if stride == "512" else ["--stride", stride]
    report = json.loads(output_of("eval", HELD_OUT, "--json", *arguments))
    expected = GOLDEN["demo"]["perplexities"][stride]
    assert report["perplexity"] == pytest.approx(expected["mean"], rel=1e-5)
    assert report["guide_perplexity"] == pytest.approx(expected["guide"], rel=1e-5)
    assert report["nats_per_token"] == pytest.approx(math.log(expected["mean"]), abs=1e-5)
    bits = report["nats_per_token"] * report["n_scored"] / math.log(2)
    assert report["bits_per_byte"] == pytest.approx(bits / report["n_bytes"])


def test_live_perplexity(tiny: Tiny, checkpoint: Path) -> None:
    """The recipe run now by transformers, on another text."""
    pytest.importorskip("torch", reason="torch is not installed; tests/vectors has its answers")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    recipe = runpy.run_path(str(ROOT / "tools" / "make_perplexity_vectors.py"))["perplexities"]
    model = transformers.GPT2LMHeadModel.from_pretrained(checkpoint).eval()
    tokens = [(7 * i * i + 3) % tiny.model.n_vocab for i in range(97)]
    for stride in {1, max(tiny.model.n_ctx // 3, 1), tiny.model.n_ctx}:
        assert_equal_transformers(last(tiny.model, tokens, stride=stride), recipe(model, tokens, stride))


def test_what_it_prints(alphabet: Path, tmp_path: Path) -> None:
    """Six figures, the same for a file and a pipe, and nothing on stderr where that is no terminal."""
    text = ALPHABET.encode() * 9
    (tmp_path / "text").write_bytes(text)
    from_file = output_of("eval", "-m", alphabet, tmp_path / "text").decode()
    assert re.search(r"^tokens +234, of which 230 were predicted: 230 bytes$", from_file, re.MULTILINE)
    assert re.search(r"^perplexity +1\.00\d\d; as the guide adds windows up 1\.00\d\d$", from_file, re.MULTILINE)
    assert [line.split()[0] for line in from_file.splitlines()] == [
        "tokens", "perplexity", "nats/token", "bits/byte", "speed"
    ]  # fmt: skip
    from_pipe = output_of("eval", "-m", alphabet, "-", stdin=text).decode()
    assert from_pipe.splitlines()[:4] == from_file.splitlines()[:4]


def test_bos(alphabet_model: fastgpt_c.Model) -> None:
    """One token more is predicted: the first."""
    tokens = alphabet_model.encode("abcabc")
    assert [last(alphabet_model, tokens, bos=bos).n_scored for bos in (False, True)] == [5, 6]
    assert last(alphabet_model, tokens[:1], bos=True).nats == pytest.approx(-alphabet_model.score("a", bos=True).total)


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)),
        b"\xff" * 300,
        b"caf\xe9 " * 20,
        "\ufeffé→😀".encode() * 9,
        b"a" * 20_000,
        b"\0\n\0",
        b"\r\n \n",
    ],
    ids=["binary", "no UTF-8", "latin-1", "UTF-8", "one line", "zeros", "blank"],
)
def test_any_bytes_are_a_text(alphabet_model: fastgpt_c.Model, alphabet: Path, data: bytes) -> None:
    """None is dropped or replaced: with the first token predicted, their number is that of the file."""
    report = json.loads(output_of("eval", "-m", alphabet, "-", "--bos", "--stride", "60", "--json", stdin=data))
    assert report["n_bytes"] == len(data)
    assert report["n_scored"] == len(alphabet_model.tokenizer.encode(data))


def test_the_tokenizer_of_a_library(tmp_path: Path) -> None:
    """It takes text, not bytes: what is not UTF-8 is refused."""
    folder = write_checkpoint(tmp_path / "checkpoint", CONFIG)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True})
    convert(folder, tmp_path / "model.gguf")
    arguments = ["eval", "-m", tmp_path / "model.gguf", "-", "--bos", "--json"]
    report = json.loads(output_of(*arguments, "--stride", "3", stdin="the é the".encode()))
    with fastgpt_c.load(tmp_path / "model.gguf") as model:
        assert not isinstance(model.tokenizer, fastgpt_c.Tokenizer)
        assert report["n_scored"] == len(model.encode("the é the"))
    assert_complains(run(*arguments, stdin=b"caf\xe9"), WRONG_USAGE, "not UTF-8")


def test_figures_too_large() -> None:
    """The perplexity of a mean of so many nats that a float cannot hold it is infinite."""
    result = Evaluation(2, n_scored=1, n_bytes=1, nats=1000.0, seconds=1.0)
    assert result.perplexity == math.inf


def test_refusals(alphabet: Path, long_model: fastgpt_c.Model, tmp_path: Path) -> None:
    """One line that says what is wrong, and an exit status."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"ab")
    for arguments, status, *words in (
        (["-m", alphabet, tmp_path / "a"], WRONG_USAGE, "nothing to predict", "1 tokens"),
        (["-m", alphabet, "-"], WRONG_USAGE, "empty"),
        (["-m", alphabet, tmp_path / "b", "--stride", "65"], WRONG_USAGE, "stride is 65", "[1, 64]"),
        (["-m", alphabet, tmp_path / "none"], FAILURE, "none"),
        (["-m", alphabet, tmp_path], FAILURE, str(tmp_path)),
        (["-m", long_model.path, tmp_path / "a"], FAILURE, "no tokenizer"),
    ):
        assert_complains(run("eval", *arguments), status, *words)
    with pytest.raises(UsageError, match="outside"):
        list(evaluate(long_model, [0, 97]))


def test_a_text_without_end(
    alphabet: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more is read than the tokenizer takes; what is longer is refused."""
    monkeypatch.setattr(evaluate_command, "MOST_BYTES", 5)
    (tmp_path / "text").write_bytes(b"abcde")
    output_here(capfd, "eval", "-m", alphabet, tmp_path / "text")
    (tmp_path / "text").write_bytes(b"abcdef")
    assert main(["eval", "-m", str(alphabet), str(tmp_path / "text")]) == WRONG_USAGE
    assert "more than 5 bytes" in capfd.readouterr().err


def test_progress_and_ctrl_c(tmp_path: Path) -> None:
    """On a terminal a line tells how far it is; Ctrl-C ends it at once, without a result."""
    (tmp_path / "long").write_bytes(HELD_OUT.read_bytes() * 40)
    with in_terminal("eval", tmp_path / "long") as terminal:
        shown = terminal.see(b"so far").decode()
        assert re.search(r"\d%, [\d,]+ tokens/s, \d+ s left, perplexity \d+\.\d\d so far$", shown)
        terminal.type(b"\x03")
        seen, status = terminal.end()
    assert (status, b"tokens  " in seen, b"Traceback" in seen) == (INTERRUPTED, False, False)


def test_no_progress_is_left_in_a_terminal(alphabet: Path, tmp_path: Path) -> None:
    """The line is taken off before the figures come."""
    (tmp_path / "text").write_bytes(ALPHABET.encode() * 9)
    with in_terminal("eval", "-m", alphabet, tmp_path / "text") as terminal:
        seen, status = terminal.end()
    assert status == 0
    assert re.search(rb"so far.*\r\x1b\[Ktokens ", seen, re.DOTALL)
