"""The laws of fastgpt-c batch: what a line may say, and that in the end each has one record, whatever happened."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command import FAILURE, INTERRUPTED, WRONG_USAGE, assert_complains, output_of, run, running

from fastgpt_c.batching import file_runner
from fastgpt_c.batching.openai_format import LineError, parse
from fastgpt_c.cli import progress
from fastgpt_c.cli.__main__ import main

N_KILLS = int(os.environ.get("FASTGPT_TEST_KILLS", "3"))


def write_lines(path: Path, lines: list[Any]) -> Path:
    """Objects as JSON, bytes as they are."""
    path.write_bytes(b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in lines))
    return path


def records_of(path: Path) -> list[dict[str, Any]]:
    """All of them, without the time, which no two runs share."""
    records = [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
    for record in records:
        if record["response"]:
            del record["response"]["body"]["created"]
    return records


def by_id(path: Path) -> dict[str, Any]:
    """The records by custom_id, or by line for those without; fails when one is there twice."""
    records = records_of(path)
    found = {record["custom_id"] or f"error {record['error']['line']}": record for record in records}
    assert len(found) == len(records), "a record is there twice"
    return found


def texts(path: Path) -> dict[str, list[str]]:
    """Of the records without error."""
    bodies = {name: record["response"]["body"] for name, record in by_id(path).items() if record["response"]}
    return {name: [choice["text"] for choice in body["choices"]] for name, body in bodies.items()}


@pytest.fixture
def batch(alphabet: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the command on these lines -> (exit status, file of records, what it said)."""

    def run_batch(lines: list[Any], *options: str) -> tuple[int, Path, str]:
        source, target = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
        status = main(["batch", str(source), str(target), "-m", str(alphabet), *options])
        stdout, stderr = capfd.readouterr()
        assert stdout == ""
        return status, target, stderr

    return run_batch


# ---- Lines ---------------------------------------------------------------------------------------------------


def test_a_record(batch: Any) -> None:
    """A request in OpenAI's batch format gets a record in that format: response, body, choices, usage."""
    body = {"model": "any", "prompt": "ab", "max_tokens": 3, "temperature": 0, "seed": 7, "n": 2, "user": "me"}
    status, target, said = batch(
        [{"custom_id": "é", "method": "POST", "url": "/v1/completions", "body": body}], "--max-batch", "1"
    )
    assert (status, said) == (0, "")
    (record,) = records_of(target)
    assert record["id"].startswith("batch_req_") and record["error"] is None
    assert record["custom_id"] == "é" and "é".encode() in target.read_bytes()
    response = record["response"]
    assert response["status_code"] == 200
    assert response["body"]["usage"] == {"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8}
    assert response["body"]["object"] == "text_completion"
    first, second = response["body"]["choices"]
    assert first == {"index": 0, "text": "cde", "logprobs": None, "finish_reason": "length", "seed": 7}
    assert second["index"] == 1 and second["seed"] != 7


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ({"prompt": "a"}, "bcdef"),
        ({"prompt": "a", "max_tokens": 2}, "bc"),
        ({"prompt": "a", "max_tokens": None, "echo": False, "logprobs": None}, "bcdef"),
        ({"prompt": "a", "stop": "d"}, "bc"),
        ({"prompt": "a", "stop": ["x", "e"]}, "bcd"),
        ({"prompt": [64, 65], "max_tokens": 1}, "c"),
        ({"prompt": "a", "logit_bias": {"65": -1e6, "66": 1e6}, "max_tokens": 1}, "c"),
        ({"prompt": "a" * 70, "on_overflow": "truncate", "max_tokens": 2}, "bc"),
        ({"prompt": "a", "temperature": 1, "top_p": 0.5, "top_k": 3, "min_p": 0, "repetition_penalty": 1}, "bcdef"),
    ],
    ids=repr,
)
def test_a_line_says_how(batch: Any, line: dict[str, Any], text: str) -> None:
    """Parameters of a line do what the options of generate do; what it does not say is as the command line says."""
    status, target, _ = batch([line], "-n", "5")
    assert (status, texts(target)) == (0, {"line-1": [text]})


BAD_LINES: list[tuple[Any, str]] = [
    (b"not json\n", "not JSON"),
    (b"\xff\xfe\n", "not JSON"),
    (b'{"prompt": "a", "seed": NaN}\n', "NaN"),
    (b"[" * 10**6 + b"\n", "not JSON"),
    (b'{"prompt": "a", "seed": ' + b"1" * 10**5 + b"}\n", "not JSON"),
    ([1], "not a JSON object"),
    ({}, 'neither "body" nor "prompt"'),
    ({"custom_id": 5, "prompt": "a"}, "custom_id is not a string"),
    ({"body": "a"}, "body is not a JSON object"),
    ({"body": {"prompt": "a"}, "url": "/v1/chat/completions"}, "/v1/chat/completions is not served"),
    ({"body": {"prompt": "a"}, "prompt": "b"}, "prompt is no part of a line with a body"),
    ({"body": {}}, "prompt is missing"),
    ({"prompt": ["a", "b"]}, "prompt is neither"),
    ({"prompt": [True]}, "prompt is neither"),
    ({"prompt": [10**30]}, "row of integers"),
    ({"prompt": [265]}, "outside"),
    ({"prompt": "\ud800"}, "U+D800"),
    ({"prompt": "a", "best_of": 4}, "best_of is not served here"),
    ({"prompt": "a", "echo": True}, "echo is not served here"),
    ({"prompt": "a", "suffix": "b"}, "suffix is not served here"),
    ({"prompt": "a", "prompt_lookup": None}, "prompt_lookup is no parameter here"),
    ({"prompt": "a", "json_schema": {}, "response_format": {"type": "json_object"}}, "give one of"),
    ({"prompt": "a", "response_format": {"type": "yaml"}}, "response_format is not"),
    ({"prompt": "a", "prompt_lookup": 2}, "prompt_lookup is no parameter here"),
    ({"prompt": "a", "logprobs": True}, "logprobs is not an integer"),
    ({"prompt": "a", "logprobs": -1}, "logprobs is -1"),
    ({"prompt": "a", "logprobs": 10**6}, "logprobs is 1000000"),
    ({"prompt": "a", "x" * 10**6: 4}, "xxx..."),
    ({"prompt": "a", "n": 0}, "n is 0"),
    ({"prompt": "a", "n_threads": 4}, "n_threads is no parameter here"),
    ({"prompt": "a", "max_tokens": "5"}, "max_tokens is not an integer"),
    ({"prompt": "a", "max_tokens": True}, "max_tokens is not an integer"),
    ({"prompt": "a", "max_tokens": 10**30}, "max_tokens is 10"),
    ({"prompt": "a", "temperature": -1}, "temperature is -1"),
    ({"prompt": "a", "temperature": 10**400}, "temperature is"),
    ({"prompt": "a", "stop": [""]}, "stop string is empty"),
    ({"prompt": "a", "stop": [5]}, "stop is neither"),
    ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias is not"),
    ({"prompt": "a", "logit_bias": {"999": 1}}, "logit_bias"),
    ({"prompt": "a", "seed": -1}, "seed is -1"),
    ({"prompt": "a", "n": 0.5}, "n is not an integer"),
    ({"prompt": "a", "n": 129}, "n is 129"),
    ({"prompt": "a" * 65}, "n_ctx of 64"),
]


def test_bad_lines_become_error_records(batch: Any) -> None:
    """Each with its number and what is wrong, whatever stands in it; the lines between them get their texts."""
    good = [{"custom_id": f"good-{i}", "prompt": "a"} for i in range(len(BAD_LINES))]
    lines = [line for pair in zip(good, [line for line, _ in BAD_LINES], strict=True) for line in pair]
    status, target, said = batch(lines, "-n", "3")
    assert status == FAILURE and f"{len(BAD_LINES)} of {2 * len(BAD_LINES)} records are errors" in said
    assert texts(target) == {f"good-{i}": ["bcd"] for i in range(len(BAD_LINES))}
    errors = {record["error"]["line"]: record for record in records_of(target) if record["error"]}
    for i, (_, words) in enumerate(BAD_LINES):
        number = 2 * i + 2
        message = errors[number]["error"]["message"]
        assert message.startswith(f"line {number}: ") and words in message
        assert len(message) < 600


def test_a_line_that_is_too_long(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read into memory, and the next one is."""
    monkeypatch.setattr(file_runner, "MOST_BYTES_A_LINE", 100)
    _, target, _ = batch([{"prompt": "a" * 1000}, {"prompt": "a"}, b'{"prompt": "' + b"b" * 1000], "-n", "3")
    records = by_id(target)
    assert texts(target) == {"line-2": ["bcd"]}
    assert all("longer than 100 bytes" in records[f"error {n}"]["error"]["message"] for n in (1, 3))


def test_custom_ids_are_unique(batch: Any) -> None:
    """The first line of an id has its record; each other one an error that names the first."""
    lines = [{"custom_id": "x", "prompt": "a"}, {"prompt": "b"}, {"custom_id": "x", "prompt": "c"}]
    lines += [{"custom_id": "line-2", "prompt": "d"}, {"custom_id": "x", "prompt": 5}]
    for _ in range(2):
        _, target, _ = batch(lines, "-n", "1")
        assert texts(target) == {"x": ["b"], "line-2": ["c"]}
        messages = [record["error"]["message"] for record in records_of(target) if record["error"]]
        assert sorted(messages) == [
            "line 3: line 1 has the same custom_id",
            "line 4: line 2 has the same custom_id",
            "line 5: prompt is neither text nor a list of token ids",
        ]


def test_blank_lines_are_none(batch: Any) -> None:
    """They get no record, but count."""
    status, target, _ = batch([b"\n", {"prompt": "a"}, b"  \n", b'{"prompt": "b"}'], "-n", "1")
    assert (status, texts(target)) == (0, {"line-2": ["b"], "line-4": ["c"]})


def test_no_lines(batch: Any) -> None:
    """An empty file of requests gives an empty file of records."""
    status, target, said = batch([])
    assert (status, target.read_bytes(), said) == (0, b"", "")


@pytest.mark.parametrize("seed", range(300))
def test_any_line_is_a_request_or_a_line_error(seed: int) -> None:
    """Random damage to a good line raises LineError and nothing else."""
    rng = random.Random(seed)
    line = bytearray(b'{"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "b", "stop": ["c"], "seed": 7}}')
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(line))
        line[at : at + rng.randint(0, 2)] = rng.choice([b"", b"[", b"{", b'"', b"\xff", b"null", b"1e999", b",", b"}"])
    try:
        parse(bytes(line), 1)
    except LineError as error:
        assert str(error)


# ---- Seeds ---------------------------------------------------------------------------------------------------


def test_seeds_do_not_depend_on_the_place(tmp_path: Path) -> None:
    """A line without a seed draws the same text in another order and another run; --seed changes all of them."""
    lines = [
        {"custom_id": f"id-{i}", "prompt": "Once", "max_tokens": 16, "temperature": 2, "n": 1 + i % 2} for i in range(6)
    ]
    found = []
    for name, order, seed in (("a", lines, "0"), ("b", lines[::-1], "0"), ("c", lines, "1")):
        source, target = write_lines(tmp_path / f"{name}.jsonl", order), tmp_path / f"{name}.out"
        assert main(["batch", str(source), str(target), "--deterministic", "--seed", seed]) == 0
        found.append(texts(target))
    assert found[0] == found[1] != found[2]
    assert len({text for both in found[0].values() for text in both}) == 9, "two choices drew the same"


# ---- Resuming ------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(batch: Any) -> None:
    """A second run adds the lines that are new, and leaves each record as it is, errors too."""
    first = [{"custom_id": "a", "prompt": "a"}, b"bad\n"]
    _, target, _ = batch(first, "-n", "1")
    before = target.read_bytes()
    status, target, _ = batch([*first, {"custom_id": "b", "prompt": "b"}], "-n", "1")
    assert target.read_bytes().startswith(before)
    assert (status, texts(target)) == (FAILURE, {"a": ["b"], "b": ["c"]})


@pytest.mark.parametrize("n_left", range(0, 400, 23))
def test_a_torn_record_is_written_again(batch: Any, n_left: int) -> None:
    """However much of the last record got into the file, the next run gives all of it once."""
    lines = [{"custom_id": "a", "prompt": "a"}, {"custom_id": "b", "prompt": "b"}]
    _, target, _ = batch(lines, "-n", "2")
    whole = by_id(target)
    first, last = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(first + last[: min(n_left, len(last) - 1)])
    assert batch(lines, "-n", "2")[0] == 0
    assert by_id(target) == whole


@pytest.mark.parametrize("n_left", [0, 3, 18, 90])
def test_zeros_after_a_record_are_written_again(batch: Any, n_left: int) -> None:
    """What a loss of power may leave: the length of the file, zeros where the last records were to be."""
    lines = [{"custom_id": "a", "prompt": "a"}, {"custom_id": "b", "prompt": "b"}]
    _, target, _ = batch(lines, "-n", "2")
    whole = by_id(target)
    first, last = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(first + last[:n_left] + bytes(5000))
    assert batch(lines, "-n", "2")[0] == 0
    assert by_id(target) == whole


@pytest.mark.parametrize(
    "content",
    [b"precious", bytes(5000), b"precious\n", b'{"id": "batch_req_1"}\n', b'{"id": "batch_req_', b"\n", b"[]\n" * 3],
    ids=repr,
)
def test_no_other_file_is_touched(batch: Any, tmp_path: Path, content: bytes) -> None:
    """What is not a file of records is refused and stays; only the beginning of a record is taken for a torn one."""
    (tmp_path / "out.jsonl").write_bytes(content)
    status, target, said = batch([{"prompt": "a"}], "-n", "1")
    if content.startswith(b'{"id": "batch_req_') and not content.endswith(b"\n"):
        assert (status, texts(target)) == (0, {"line-1": ["b"]})
    else:
        assert (status, target.read_bytes()) == (WRONG_USAGE, content)
        assert "out.jsonl: line 1 is not a record of a batch" in said


def test_files_that_cannot_be(alphabet: Path, tmp_path: Path) -> None:
    """One line says which file and why."""
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "a"}])
    model = ("-m", alphabet)
    assert_complains(run("batch", tmp_path / "none", tmp_path / "out", *model), FAILURE, "none", "no such file")
    assert_complains(run("batch", source, source, *model), WRONG_USAGE, "in.jsonl", "file of requests")
    assert_complains(run("batch", source, tmp_path, *model), WRONG_USAGE, str(tmp_path), "is not a file")
    assert_complains(run("batch", source, tmp_path / "no" / "out", *model), FAILURE, str(tmp_path / "no" / "out"))
    assert_complains(run("batch", source, "/dev/full", *model), WRONG_USAGE, "/dev/full")


def test_a_full_disk_is_named(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of records, in one line; when there is room again, the same command goes on."""

    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    lines = [{"custom_id": "a", "prompt": "a"}]
    with monkeypatch.context() as patch:
        patch.setattr(file_runner.os, "write", full)
        status, target, said = batch(lines, "-n", "2")
    assert (status, said.count("\n")) == (FAILURE, 1)
    assert f"{target}: cannot be written: No space left on device" in said
    assert batch(lines, "-n", "2")[0] == 0
    assert texts(target) == {"a": ["bc"]}


def test_a_byte_order_mark_is_read_over(batch: Any) -> None:
    """As editors on Windows put it before the first line."""
    status, target, _ = batch([b'\xef\xbb\xbf{"prompt": "a"}\n', {"prompt": "b"}], "-n", "1")
    assert (status, texts(target)) == (0, {"line-1": ["b"], "line-2": ["c"]})


def test_one_process_writes(batch: Any, tmp_path: Path) -> None:
    """A second one is refused while the first is at work."""
    with (tmp_path / "out.jsonl").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, _, said = batch([{"prompt": "a"}])
    assert status == WRONG_USAGE and "another process is writing it" in said


LINES = [{"custom_id": f"id-{i}", "prompt": "Once upon a time", "max_tokens": 30 + i % 40} for i in range(80)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Lines for the demo model, and their records by a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source, target = write_lines(folder / "in.jsonl", [*LINES, b"bad\n"]), folder / "out.jsonl"
    assert main(["batch", str(source), str(target), "--deterministic"]) == FAILURE
    return source, by_id(target)


@pytest.mark.parametrize("seed", range(N_KILLS // 3))
def test_kill(undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path, seed: int) -> None:
    """kill -9 at three random moments: in the end every id is there once, with the record of an undisturbed run, where
    both are deterministic."""
    source, expected = undisturbed
    target, rng = tmp_path / "out.jsonl", random.Random(seed)
    mode = [] if seed % 3 == 2 else ["--deterministic"]
    command = ("batch", source, target, *mode, "--max-batch", str(rng.randint(1, 40)))
    for _ in range(3):
        n_before = target.stat().st_size if target.exists() else 0
        with running(*command) as process:
            while process.poll() is None and (not target.exists() or target.stat().st_size <= n_before):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
    assert target.stat().st_size > 0, "nothing was ever written"
    assert run(*command).returncode == FAILURE  # the bad line's record
    found = by_id(target)
    assert found == expected if mode else found.keys() == expected.keys()


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    """It ends at once with status 130, says how many are done and how it goes on; all records so far are whole."""
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "Once", "max_tokens": 60} for _ in range(2000)])
    target = tmp_path / "out.jsonl"
    with running("batch", source, target) as process:
        while not target.exists() or target.stat().st_size == 0:
            time.sleep(0.01)
        begin = time.perf_counter()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert time.perf_counter() - begin < 10
    assert target.read_bytes().endswith(b"\n")
    assert 0 < len(by_id(target)) < 2000
    said = f"fastgpt-c: {target}: {len(by_id(target))} records are done; the same command goes on from there"
    assert (process.returncode, stdout, stderr.decode().strip()) == (INTERRUPTED, b"", said)


def test_the_command_says_nothing(alphabet: Path, tmp_path: Path) -> None:
    """Where all goes well, and nobody looks on, there are no words."""
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "a", "max_tokens": 2}])
    assert output_of("batch", source, tmp_path / "out.jsonl", "-m", alphabet) == b""
    assert texts(tmp_path / "out.jsonl") == {"line-1": ["bc"]}


# ---- Progress ------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A standard error that says it is one."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO) -> str:
    """What appears while 3 of 5 lines are done, of which 1 was before."""
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1)
    bar = progress.Progress(5, 1)
    for _ in range(2):
        time.sleep(0.12)  # tqdm shows nothing sooner
        bar.add(10)
    bar.close()
    return stderr.getvalue()


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines, tokens a second and the time that is left; by tqdm, and without it; nothing where nobody looks on."""
    assert shown(monkeypatch, io.StringIO()) == ""
    assert re.search(r"3/5 \[00:00<00:\d\d, .* \d+ tokens/s\]", shown(monkeypatch, Terminal()))
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert re.fullmatch(r"2 of 5 .*\n3 of 5 lines, \d+ tokens/s, 0:00 left\n", shown(monkeypatch, Terminal()))
