"""fastgpt-c score: a line in, a line out, whatever is in it."""

from __future__ import annotations

import json
import select
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import (
    FAILURE,
    PIPE_CLOSED,
    TIMEOUT,
    WRONG_USAGE,
    assert_complains,
    interrupt,
    output_of,
    run,
    running,
)

import fastgpt_c
from fastgpt_c.cli import jsonl
from fastgpt_c.scoring.token_scores import Scorer


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def answers(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_texts(random_model: fastgpt_c.Model) -> None:
    """The arrays of Model.score, rounded to six digits; also for a text longer than n_ctx, and for none."""
    texts = ["the end", "x", "", "é→😀 " * 9]
    output = output_of(
        "score", "-m", random_model.path, "-", "--top-k", "3", stdin=lines(*({"text": t} for t in texts))
    )
    for number, (answer, text) in enumerate(zip(answers(output), texts, strict=True), 1):
        scores = random_model.score(text, top_k=3)
        assert (answer["line"], answer["tokens"]) == (number, scores.tokens.tolist())
        assert answer["ranks"] == [int(rank) or None for rank in scores.ranks]
        assert answer["loglikelihood"] == pytest.approx(scores.total, abs=1e-5)
        np.testing.assert_allclose(np.array(answer["logprobs"], float), scores.logprobs, rtol=0, atol=1e-5)
        for row, ids in zip(answer["top"], scores.top_tokens.tolist(), strict=True):
            assert [token for token, _ in row] == [token for token in ids if token >= 0]


def test_options_of_texts(random_model: fastgpt_c.Model) -> None:
    """--bos and --stride are those of Model.score; without --top-k there are no alternatives."""
    text = "the end of it " * 5
    output = output_of(
        "score", "-m", random_model.path, "-", "--bos", "--stride", "5", stdin=lines({"text": text})
    )  # fmt: skip
    (answer,) = answers(output)
    expected = random_model.score(text, bos=True, stride=5)
    np.testing.assert_allclose(answer["logprobs"], expected.logprobs, rtol=0, atol=1e-5)
    assert "top" not in answer


def test_choices(random_model: fastgpt_c.Model) -> None:
    """Sums and means of log-probabilities, the best by each, and how much of a context there was no room for."""
    context, choices = "the end of it " + "the " * 5, ["a", " the he", "é→😀"]
    output = output_of("score", "-m", random_model.path, "-", stdin=lines({"context": context, "choices": choices}))
    (answer,) = answers(output)
    n_context = len(random_model.encode(context.rstrip()))
    for found, text in zip(answer["choices"], choices, strict=True):
        tokens = random_model.encode(context + text)
        n_kept = random_model.n_ctx + 1
        with Scorer(random_model) as scorer:
            expected = scorer.after(tokens[-n_kept:n_context], tokens[n_context:])
        assert found["loglikelihood"] == pytest.approx(expected.total, abs=1e-5)
        assert found["per_token"] == pytest.approx(expected.total / len(expected), abs=1e-5)
        assert found["per_byte"] == pytest.approx(expected.total / len(text.encode()), abs=1e-5)
        assert (found["choice"], found["n_tokens"], found["greedy"]) == (text, len(expected), expected.greedy)
        assert found.get("n_dropped", 0) == max(len(tokens) - n_kept, 0)
    assert 0 < sum("n_dropped" in found for found in answer["choices"]) < len(choices)
    for best, figure in {"best": "loglikelihood", "best_per_token": "per_token", "best_per_byte": "per_byte"}.items():
        values = [found[figure] for found in answer["choices"]]
        assert answer[best] == values.index(max(values))


def test_the_best_choice_depends_on_how_it_is_measured() -> None:
    """On the demo model: a long one wins by its mean, a short one by its sum."""
    record = {"context": "The wolf ", "choices": ["said", "said to the king", "banana"]}
    (answer,) = answers(output_of("score", "-", stdin=lines(record)))
    assert (answer["best"], answer["best_per_token"], answer["best_per_byte"]) == (0, 1, 1)


BAD_LINES = [
    (b"not json", "not JSON"),
    (b'{"text": "cut', "not JSON"),
    (b'{"text": "caf\xe9"}', "not UTF-8"),
    (b"\xff\xfe\x00", "not UTF-8"),
    (b"[" * 100_000, "not JSON"),
    (b"[1, 2]", "list"),
    (b"null", "NoneType"),
    (b"{}", "neither"),
    (b'{"text": 5}', "int"),
    (b'{"text": "\\ud800"}', "surrogate"),
    (b'{"context": "a", "choices": []}', "neither"),
    (b'{"context": "a", "choices": "bc"}', "neither"),
    (b'{"context": "a", "choices": ["b", 1]}', "neither"),
    (b'{"choices": ["b"]}', "neither"),
    (b'{"context": "a", "choices": ["b", ""]}', "no token"),
    (b'{"context": "a", "choices": ["\\ud800"]}', "surrogate"),
    (b'{"context": "a", "choices": ["' + b"xyz" * 30 + b'"]}', "exceeds the model's n_ctx"),
    (b'{"text": ' + b"1" * 5000 + b"}", "not JSON"),
]


def test_bad_lines(random_model: fastgpt_c.Model) -> None:
    """Each gives a record with its number and what is wrong; blank ones nothing; those between them are scored."""
    good = json.dumps({"text": "the"}).encode()
    source = b"\xef\xbb\xbf" + good + b"\n\n \r\n" + b"".join(line + b"\n" + good + b"\n" for line, _ in BAD_LINES)
    result = run("score", "-m", random_model.path, "-", stdin=source.removesuffix(b"\n"))
    found = answers(result.stdout)
    assert result.returncode == FAILURE
    assert (
        result.stderr.decode() == f"fastgpt-c: {len(BAD_LINES)} of {2 * len(BAD_LINES) + 1} lines could not be scored\n"
    )
    assert [answer["line"] for answer in found] == [1, *range(4, 4 + 2 * len(BAD_LINES))]
    assert all("error" not in answer for answer in found[::2])
    for answer, (line, words) in zip(found[1::2], BAD_LINES, strict=True):
        assert words in answer["error"], line


def test_a_line_without_end(alphabet: Path, tmp_path: Path) -> None:
    """Of more than 16 MiB: an error that takes no more memory than that, and the line after it is line 2."""
    (tmp_path / "in").write_bytes(b'{"text": "' + b"a" * (3 * jsonl.MOST_BYTES) + b'"}\n{"text": "a"}')
    first, second = answers(run("score", "-m", alphabet, tmp_path / "in").stdout)
    assert first == {"line": 1, "error": "the line has more than 16,777,216 bytes"}
    assert (second["line"], second["logprobs"]) == (2, [None])


@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_no_lines(alphabet: Path, data: bytes) -> None:
    """Nothing in, nothing out."""
    assert output_of("score", "-m", alphabet, "-", stdin=data) == b""


def test_output_file(alphabet: Path, tmp_path: Path) -> None:
    """The same lines, when all are done: an interrupted run leaves the file that was there."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(lines({"text": "abc"}, {"context": "a", "choices": ["b"]}))
    target.write_bytes(b"old")
    with running("score", "-m", alphabet, "-", "-o", target) as process:
        assert process.stdin
        process.stdin.write(source.read_bytes())
        process.stdin.flush()
        while len(list(tmp_path.iterdir())) == 2:
            assert process.poll() is None
        assert interrupt(process, TIMEOUT) == b""
    assert (target.read_bytes(), sorted(tmp_path.iterdir())) == (b"old", [source, target])
    assert output_of("score", "-m", alphabet, source, "-o", target) == b""
    assert target.read_bytes() == output_of("score", "-m", alphabet, source)


def test_answers_come_line_by_line(alphabet: Path) -> None:
    """Whoever asks through a pipe has each answer before the next question; Ctrl-C and a closed pipe end it."""
    with running("score", "-m", alphabet, "-") as process:
        assert process.stdin and process.stdout
        for number in (1, 2):
            process.stdin.write(lines({"text": "ab"}))
            process.stdin.flush()
            assert select.select([process.stdout], [], [], TIMEOUT)[0]
            assert json.loads(process.stdout.readline())["line"] == number
        assert interrupt(process, TIMEOUT) == b""
    with running("score", "-m", alphabet, "-") as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.write(lines({"text": "ab"}))
        process.stdin.close()
        assert process.wait(TIMEOUT) == PIPE_CLOSED
        assert process.stderr.read() == b""


def test_refusals(alphabet: Path, long_model: fastgpt_c.Model, tmp_path: Path) -> None:
    """What no line could change is said once, before any of them is read."""
    for arguments, status, *words in (
        (["-m", alphabet, tmp_path / "none"], FAILURE, "none"),
        (["-m", alphabet, tmp_path], FAILURE, str(tmp_path)),
        (["-m", long_model.path, "-"], FAILURE, "no tokenizer"),
        (["-m", alphabet, "-", "--top-k", "-1"], WRONG_USAGE, "top_k is -1"),
        (["-m", alphabet, "-", "--top-k", "266"], WRONG_USAGE, "top_k is 266"),
        (["-m", alphabet, "-", "--stride", "0"], WRONG_USAGE, "stride is 0"),
        (["-m", alphabet, "-", "-o", tmp_path / "no" / "out"], FAILURE, "no"),
    ):
        assert_complains(run("score", *arguments, stdin=lines({"text": "a"})), status, *words)
