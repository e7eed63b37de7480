"""The law of shards: however a file is cut, and in whatever order its shards run, all comes out as from one run of the
local engine, to the byte."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from command import FAILURE, WRONG_USAGE
from shard_jobs import EPOCH, OPTIONS, batch, expected_of, lines_with_everything, plan_of, shard_bytes

from fastgpt_c.batching import file_runner
from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.sharding import cut as cutting
from fastgpt_c.sharding import ids, plan
from fastgpt_c.sharding.cut import cut
from fastgpt_c.sharding.folder import LocalFolder, open_folder
from fastgpt_c.sharding.places import find_inputs


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines_with_everything(120))
    return path


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    return tmp_path / "out"


# ---- The law -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_shards", [1, 3, 50])
def test_all_shards_are_one_run(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, n_shards: int) -> None:
    """In any order, each by itself or several by one process: the same bytes, errors and ids too."""
    expected = expected_of(source, monkeypatch)
    assert batch(source, f"{out}/", "--shard-bytes", shard_bytes(source, n_shards), "--check-ids", *OPTIONS) == 0
    n = len(plan_of(out)["shards"])
    assert n_shards / 2 <= n <= n_shards
    order = [str(i) for i in range(n)] if n < 4 else [f"{i}/7" for i in range(7)]
    random.Random(n).shuffle(order)
    for shard in order:
        batch(out, "--shard", shard, "--max-batch", str(random.Random(shard).choice((1, 3, 32))), "--allow-errors")
    assert batch(out, "--merge", source.with_name("all.jsonl")) == FAILURE, "there are error records"
    assert source.with_name("all.jsonl").read_bytes() == expected
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")], "files are left over"


def test_several_files_are_counted_through(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is its *.jsonl one after the other; so is a pattern; an empty file is none."""
    expected = expected_of(source, monkeypatch)
    folder = source.parent / "parts"
    folder.mkdir()
    lines = source.read_bytes().splitlines(keepends=True)
    for name, part in (("a", lines[:30]), ("b", []), ("c", lines[30:31]), ("d", lines[31:])):
        (folder / f"{name}.jsonl").write_bytes(b"".join(part))
    for name in (folder, folder / "*.jsonl"):
        target = out / Path(name).name.replace("*", "x")
        batch(name, f"{target}/", "--shard-bytes", "2k", "--check-ids", *OPTIONS)
        batch(target, "--shard", "0/1", "--allow-errors")
        batch(target, "--merge", out / "all")
        assert (out / "all").read_bytes() == expected


def test_running_again_changes_nothing(source: Path, out: Path) -> None:
    """A shard that is done is not run again, and says what it said."""
    batch(source, f"{out}/", "--shard-bytes", "3k", *OPTIONS)
    assert batch(out, "--shard", "0/1") == FAILURE, "there are error records"
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    assert batch(out, "--shard", "0/1") == FAILURE
    assert batch(out, "--shard", "0/1", "--allow-errors") == 0
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()} == before


def test_done_says_what_a_part_is(source: Path, out: Path) -> None:
    import hashlib

    batch(source, f"{out}/", "--shard-bytes", "3k", *OPTIONS)
    batch(out, "--shard", "1")
    done, data = json.loads((out / "part-00001.done").read_bytes()), (out / "part-00001.jsonl").read_bytes()
    records = [json.loads(line) for line in data.splitlines()]
    assert done["sha256"] == hashlib.sha256(data).hexdigest() and done["lines"] == len(records)
    assert done["errors"] == sum(record["error"] is not None for record in records) > 0
    usage = [record["response"]["body"]["usage"] for record in records if record["response"]]
    assert done["tokens"] == sum(one["completion_tokens"] for one in usage) > 0
    before = (out / "part-00001.done").read_bytes()
    (out / "part-00001.done").unlink()
    batch(out, "--shard", "1")
    again = json.loads((out / "part-00001.done").read_bytes())
    assert again | {"seconds": 0} == json.loads(before) | {"seconds": 0}, "made again from the part"


def test_lines_that_are_too_long(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read past in slices, wherever a cut would fall."""
    monkeypatch.setattr(file_runner, "MOST_BYTES_A_LINE", 100)
    source.write_bytes(b'{"prompt": "a"}\n{"prompt": "' + b"b" * 5000 + b'"}\n{"prompt": "c"}\n' + b"d" * 999)
    expected = expected_of(source, monkeypatch)
    batch(source, f"{out}/", "--shard-bytes", "64", *OPTIONS)
    batch(out, "--shard", "0/1")
    batch(out, "--merge", source.with_name("all"))
    assert source.with_name("all").read_bytes() == expected
    assert expected.count(b"longer than 100 bytes") == 2


# ---- Cutting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_cuts_are_at_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Shards are all of the input, in order, each of whole lines and as long as was asked for, and know their number;
    whatever the blocks in which it is read."""
    rng = random.Random(seed)
    monkeypatch.setattr(cutting, "BLOCK", rng.choice((1, 2, 7, 64, 1 << 20)))
    files = []
    for i in range(rng.randint(1, 3)):
        size = rng.choice((0, 1, 30, 200))
        data = bytes(rng.choices(b"\nab", (rng.choice((1, 5)), 3, 3), k=size))
        (tmp_path / f"{i}.jsonl").write_bytes(data)
        files.append(data)
    wanted = rng.choice((1, 2, 10, 50, 1000))
    cuts = cut(find_inputs(str(tmp_path)), wanted, lambda _: None)
    first = 1
    for index, data in enumerate(files):
        rows = [i for i, file in enumerate(cuts.file) if file == index]
        pieces = [data[cuts.begin[i] : cuts.end[i]] for i in rows]
        assert b"".join(pieces) == data
        for i, piece in zip(rows, pieces, strict=True):
            assert cuts.first[i] == first
            is_last = i == rows[-1]
            assert is_last or (piece.endswith(b"\n") and len(piece) >= wanted)
            assert is_last or len(piece[: piece[:-1].rfind(b"\n") + 1]) < wanted, "could have ended a line earlier"
            first += piece.count(b"\n") + (not piece.endswith(b"\n"))
    assert cuts.n_lines == first - 1


def test_compressed_files_are_refused(source: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import gzip

    source.write_bytes(gzip.compress(source.read_bytes()))
    assert batch(source, f"{out}/", "--shard-bytes", "3k") == WRONG_USAGE
    assert "is compressed (gzip)" in capfd.readouterr().err


# ---- Ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_partitions", [1, 256])
def test_ids_that_two_shards_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_partitions: int) -> None:
    """Each line whose id stands in an earlier shard, with the first line that has it: as a dict of all ids says."""
    monkeypatch.setattr(ids, "N_PARTITIONS", n_partitions)
    rng, path = random.Random(n_partitions), tmp_path / "in.jsonl"
    names = [rng.choice((None, f"{rng.randrange(300)}", f"line-{rng.randrange(1000)}")) for _ in range(1000)]
    lines = [json.dumps({"prompt": "a"} | ({"custom_id": name} if name else {})) for name in names]
    path.write_text("\n".join(lines))
    inputs, folder = find_inputs(str(path)), LocalFolder(str(tmp_path / "out"), True)
    cuts = cut(inputs, 1500, lambda _: None)
    counts = ids.write_repeats(folder, inputs, cuts)
    first: dict[str, int] = {}
    expected: dict[int, dict[int, int]] = {}
    for number, name in enumerate(names, 1):
        key = name or f"line-{number}"
        shard = max(i for i, start in enumerate(cuts.first) if start <= number)
        if first.setdefault(key, number) < cuts.first[shard]:
            expected.setdefault(shard, {})[number] = first[key]
    assert len(cuts) > 10 and sum(map(len, expected.values())) > 200
    assert counts == {shard: len(repeats) for shard, repeats in expected.items()}
    assert {shard: ids.read_repeats(folder, shard) for shard in counts} == expected


def test_without_check_ids_a_shard_sees_its_own(source: Path, out: Path) -> None:
    """As the documentation says: the same id in two shards gets two records."""
    source.write_text("".join(json.dumps({"custom_id": "x", "prompt": "a"}) + "\n" for _ in range(4)))
    batch(source, f"{out}/", "--shard-bytes", str(source.stat().st_size // 2), *OPTIONS)
    batch(out, "--shard", "0/1")
    parts = [path.read_text() for path in sorted(out.glob("part-*.jsonl"))]
    assert ["line 1 has the same" in parts[0], "line 3 has the same" in parts[1]] == [True, True]


# ---- What is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--temperature", "0.5"], "its temperature is 1.5, not 0.5"),
        (["--seed", "6"], "its seed is 5, not 6"),
        (["--stop", "x"], "its stop is"),
        (["--logit-bias", "5=-inf"], "its logit_bias is"),
        (["--shard-bytes", "4k"], "its shard_bytes is 3072, not 4096"),
        (["--check-ids"], "its check_ids is False, not True"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_plan_of_another_job(
    source: Path, out: Path, capfd: pytest.CaptureFixture[str], change: list[str], words: str
) -> None:
    """The same command finds the plan; one with another option is refused, and says which."""
    command = [source, f"{out}/", "--shard-bytes", "3k", *OPTIONS]
    assert batch(*command) == batch(*command) == 0
    capfd.readouterr()
    before = (out / "plan.json").read_bytes()
    assert batch(*command, *change) == WRONG_USAGE
    said = capfd.readouterr().err
    assert words in said and said.count("\n") == 1
    assert (out / "plan.json").read_bytes() == before


def test_a_plan_of_another_input_or_model(
    source: Path, out: Path, alphabet: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [source, f"{out}/", "--shard-bytes", "3k", *OPTIONS]
    batch(*command)
    assert batch(*command, "-m", alphabet) == WRONG_USAGE
    assert "model's sha256" in capfd.readouterr().err
    assert batch(out, "--shard", "0", "-m", alphabet) == FAILURE
    assert "is not the model of the plan" in capfd.readouterr().err
    source.write_bytes(source.read_bytes() + b"\n")
    assert batch(*command) == WRONG_USAGE
    assert f"size of {source}" in capfd.readouterr().err


def test_an_input_that_changes(source: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The shard fails and names the file; the others too; merging says why they are missing."""
    batch(source, f"{out}/", "--shard-bytes", "2k", *OPTIONS)
    batch(out, "--shard", "0")
    source.write_bytes(source.read_bytes() + b"\n")
    capfd.readouterr()
    assert batch(out, "--shard", "1/2") == FAILURE
    assert f"shard 1 failed: {source}: has changed since the plan was made" in capfd.readouterr().err
    assert (out / "part-00001.failed").exists() and not (out / "part-00001.jsonl").exists()
    assert batch(out, "--merge", source.with_name("all")) == FAILURE
    said = capfd.readouterr().err
    assert "shards are missing: 1" in said and "has changed" in said
    assert not source.with_name("all").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{out}", "--shard", "99"], "--shard 99: the plan has"),
        (["{out}", "--shard", "3/3"], "neither a shard"),
        (["{out}", "--shard", "-1"], "--shard"),
        (["{out}", "--shard", "x"], "neither a shard"),
        (["{out}", "--shard", "0", "--temperature", "0"], "--temperature was decided by the plan"),
        (["{out}", "--shard", "0", "--shard-bytes", "1M"], "--shard takes a folder with a plan"),
        (["{out}", "--merge", "{out}/x"], "is in the folder of the parts"),
        (["{out}", "--merge", "{source}"], "is a file that is read, too"),
        (["{source}.none", "--shard", "0"], "there is no such folder"),
        (["{folder}", "--shard", "0"], "has no plan.json"),
        (["-", "{out}/"], "standard input cannot be cut"),
        (["{source}.none", "{out}/"], "in.jsonl.none"),
        (["{folder}", "{out}/"], "there are no files of requests"),
        (["{source}", "{out}/", "--shard-bytes", "x"], "is not a number of bytes"),
        (["ftp://x/y", "{out}/"], "places are files"),
        (["s3://key:secret@bucket/in", "{out}/"], "leave credentials out"),
        (["{source}"], "OUT.jsonl is missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused(
    source: Path, out: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """In one line, before any work."""
    batch(source, f"{out}/", "--shard-bytes", "3k", *OPTIONS)
    folder = source.parent / "empty"
    folder.mkdir()
    capfd.readouterr()
    before = sorted(out.iterdir()), source.read_bytes()
    assert batch(*(one.format(out=out, source=source, folder=folder) for one in arguments)) in (FAILURE, WRONG_USAGE)
    said = capfd.readouterr().err
    assert words in said and said.count("\n") == 1, said
    assert "secret" not in said
    assert (sorted(out.iterdir()), source.read_bytes()) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a plan"),
        (b"[]", "is not a plan"),
        (b'{"fastgpt_c_plan": 2}', "is a plan of version 2"),
        (b'{"fastgpt_c_plan": 1}', "is damaged"),
        (b"[" * 10**6, "is not a plan"),
    ],
)
def test_plans_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        plan.read(open_folder(str(tmp_path)))


def test_parts_that_were_changed(source: Path, out: Path) -> None:
    """Merging compares each with its SHA-256, and writes nothing."""
    batch(source, f"{out}/", "--shard-bytes", "2k", *OPTIONS)
    batch(out, "--shard", "0/1")
    part = next(out.glob("part-*.jsonl"))
    part.write_bytes(part.read_bytes()[:-2] + b" \n")
    target = source.with_name("all")
    assert batch(out, "--merge", target) == FAILURE and not target.exists()


def test_a_shard_that_fails_by_itself(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is tried three times and gets a .failed; the others go on; when it can, it runs, and the .failed goes."""
    from fastgpt_c.sharding import work

    batch(source, f"{out}/", "--shard-bytes", "3k", *OPTIONS)
    tries: list[int] = []
    usual = work.Worker._write_records

    def fails(self: Any, shard: Any, *rest: Any) -> Any:
        if shard.index == 1:
            tries.append(1)
            raise FastGPTError("no luck")
        return usual(self, shard, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(work.Worker, "_write_records", fails)
        assert batch(out, "--shard", "0/1", "--allow-errors") == FAILURE
    assert len(tries) == 3 and "shard 1 failed: no luck" in capfd.readouterr().err
    assert json.loads((out / "part-00001.failed").read_bytes()) == {"reason": "no luck"}
    n = len(plan_of(out)["shards"])
    assert len(list(out.glob("part-*.done"))) == n - 1
    assert batch(out) == 0 and f"{n - 1} of {n} shards are done, 1 failed" in capfd.readouterr().out
    assert batch(out, "--shard", "1", "--allow-errors") == 0
    assert not (out / "part-00001.failed").exists() and (out / "part-00001.done").exists()


def test_what_is_said(source: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In words, and in JSON."""
    command = [source, f"{out}/", "--shard-bytes", "2k", *OPTIONS]
    batch(*command)
    said = capfd.readouterr().out
    n = len(plan_of(out)["shards"])
    assert said == f"{out}/plan.json: {n} shards, 120 lines\n"
    batch(*command, "--json")
    assert json.loads(capfd.readouterr().out) == {
        "plan": f"{out}/plan.json", "shards": n, "lines": 120, "repeated_ids": 0,
    }  # fmt: skip
    batch(out, "--shard", "0", "--json")
    assert json.loads(capfd.readouterr().out)["part"] == "part-00000.jsonl"
    batch(out, "--shard", "1/1", "--json")
    batch(out, "--shard", "0/1", "--json")
    capfd.readouterr()
    batch(out, "--json")
    assert json.loads(capfd.readouterr().out) == {"shards": n, "lines": 120, "done": n, "failed": []}
    batch(out, "--merge", "-")
    assert capfd.readouterr().out.count("\n") == sum(1 for line in source.read_bytes().splitlines() if line.strip())
