"""The law of shards in an object store, well and ill: the same bytes as from one run on one machine, or a failure that
has a name."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import FAILURE, WRONG_USAGE
from shard_jobs import OPTIONS, batch, expected_of, lines_with_everything, shard_bytes

import fastgpt_c
from fastgpt_c.sharding import cut as cutting
from fastgpt_c.sharding import places, plan
from fastgpt_c.sharding.cut import cut
from fastgpt_c.sharding.folder import StoreFolder
from fastgpt_c.sharding.places import PlaceError, Store, find_inputs, input_file, open_range

fs = pytest.importorskip("pyarrow.fs", reason="needs pip install 'fastgpt-c[remote]'")
pytest.importorskip("moto", reason="needs pip install 'moto[s3,server]'")

from object_store import BUCKET, ObjectStore, object_store  # noqa: E402  # needs moto

OUT = f"s3://{BUCKET}/jobs/one"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectStore]:
    monkeypatch.setattr(places, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv("FASTGPT_CACHE", str(tmp_path / "cache"))
    with object_store() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        yield store


def put(path: str, content: bytes) -> str:
    address = f"s3://{BUCKET}/{path}"
    Store(address).write(f"{BUCKET}/{path}", content)
    return address


def names(address: str) -> list[str]:
    return sorted(StoreFolder(address).names())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines_with_everything(60))
    return path


@pytest.mark.parametrize(("n_shards", "share"), [(1, 0.0), (7, 0.0), (2, 1 / 3)])
def test_all_shards_are_one_run(
    store: ObjectStore, source: Path, monkeypatch: pytest.MonkeyPatch, n_shards: int, share: float
) -> None:
    """Input, plan, parts, model and the merged file in a store, of which a third of the calls may fail; a command that
    fails says so, and does its work when it is run again."""
    expected = expected_of(source, monkeypatch)
    address = put("in/a.jsonl", source.read_bytes())
    model = put("models/demo.gguf", Path(fastgpt_c.__file__).with_name("models").joinpath("demo.gguf").read_bytes())
    store.share = share

    def until_done(*arguments: str) -> None:
        for _ in range(20):
            if batch(*arguments, "--allow-errors") == 0:
                return
        raise AssertionError(f"fails for ever: {arguments}")

    until_done(address, f"{OUT}/", "-m", model, "--shard-bytes", shard_bytes(source, n_shards), "--check-ids", *OPTIONS)
    for i in range(2):
        until_done(OUT, "--shard", f"{i}/2")
    until_done(OUT, "--merge", f"s3://{BUCKET}/merged.jsonl")
    until_done(OUT, "--merge", str(source.with_name("merged.jsonl")))
    assert bool(store.n_ill) == bool(share)
    store.share = 0
    with open_range(f"s3://{BUCKET}/merged.jsonl", 0, len(expected)) as stream:
        assert stream.read() == expected
    assert source.with_name("merged.jsonl").read_bytes() == expected
    n = len(json.loads(StoreFolder(OUT).read("plan.json") or b"")["shards"])
    kept = [name for name in names(OUT) if not name.startswith("repeats-")]
    assert len(kept) == 1 + 2 * n and n <= n_shards, "files are left over"


def test_two_workers_on_one_shard(store: ObjectStore, source: Path) -> None:
    """Whichever .done counts, it names a part that is whole; merging removes the other."""
    source.write_text("".join(json.dumps({"prompt": "Once", "max_tokens": 4}) + "\n" for _ in range(5)))
    batch(source, f"{OUT}/")
    first, second = StoreFolder(OUT), StoreFolder(OUT)
    _, made = plan.opened(OUT)
    from fastgpt_c.sharding.commit import commit, read_done

    keys = [f"line-{i}" for i in range(1, 6)]
    for round, folders in enumerate([(first, second), (second, first)] * 2):
        first.remove("part-00000.done")
        barrier, threads = threading.Barrier(2), []

        def work(folder: StoreFolder, text: str, barrier: threading.Barrier = barrier) -> None:
            path = folder.scratch(text)
            record = {"error": None, "response": {"body": {"text": text, "usage": {"completion_tokens": 1}}}}
            path.write_text("".join(json.dumps({"custom_id": key} | record) + "\n" for key in keys))
            barrier.wait()
            commit(folder, 0, path, keys, 0.0)

        for folder, text in zip(folders, (f"a{round}", f"b{round}"), strict=True):
            threads.append(threading.Thread(target=work, args=(folder, text)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done = read_done(first, 0)
        assert done is not None and done.part in names(OUT)
        target = source.with_name("merged")
        assert batch(OUT, "--merge", target) == 0
        assert [name for name in names(OUT) if name.endswith(".jsonl")] == [done.part]
        assert target.read_text() in [target.read_text().replace(f"a{round}", x) for x in (f"a{round}", f"b{round}")]
    assert len(made) == 1


@pytest.mark.parametrize("n_bytes", [0, 1, 5000])
def test_cuts_of_an_object_are_those_of_a_file(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int
) -> None:
    """Several ranges are fetched at once, and counted in their order."""
    monkeypatch.setattr(cutting, "AHEAD_BYTES", 100)
    monkeypatch.setattr(cutting, "BLOCK", 30)
    data = bytes((i * 7919) % 97 or 10 for i in range(n_bytes))
    (tmp_path / "a.jsonl").write_bytes(data)
    here = cut(find_inputs(str(tmp_path / "a.jsonl")), 64, lambda _: None)
    there = cut(find_inputs(put("cuts/a.jsonl", data)), 64, lambda _: None)
    assert here == there and len(here) == (0 if not n_bytes else len(here)) and (n_bytes < 5000 or len(here) > 30)


def test_files_of_a_store(store: ObjectStore) -> None:
    """A name, a folder's *.jsonl and a pattern, which "*" does not take through a slash."""
    for name in ("x/b.jsonl", "x/a.jsonl", "x/c.txt", "x/y/d.jsonl"):
        put(name, b"{}\n")

    def found(name: str) -> list[str]:
        return [file.path.removeprefix(f"s3://{BUCKET}/") for file in find_inputs(f"s3://{BUCKET}/{name}")]

    assert found("x") == found("x/*.jsonl") == ["x/a.jsonl", "x/b.jsonl"]
    assert found("x/c.txt") == ["x/c.txt"]
    assert found("x/*/*.jsonl") == found("*/y/d*") == ["x/y/d.jsonl"]


def test_an_object_that_changes(store: ObjectStore, source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its etag says so, where size and name are the same."""
    address = put("in/a.jsonl", b'{"prompt": "a"}\n')
    before = input_file(address)
    batch(address, f"{OUT}/")
    put("in/a.jsonl", b'{"prompt": "b"}\n')
    assert input_file(address).size == before.size
    capfd.readouterr()
    assert batch(OUT, "--shard", "0") == FAILURE
    assert f"{address}: has changed since the plan was made" in capfd.readouterr().err
    assert "part-00000.failed" in names(OUT)


@pytest.mark.parametrize(
    ("ill", "address", "words"),
    [
        ("refused", f"s3://{BUCKET}/in/a.jsonl", "ACCESS_DENIED"),
        ("", "s3://no-such-bucket/a.jsonl", "no-such-bucket"),
        ("", f"s3://{BUCKET}/none.jsonl", "there are no files of requests"),
        ("down", f"s3://{BUCKET}/in/a.jsonl", "s3://"),
    ],
)
def test_places_that_cannot_be(
    store: ObjectStore,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    ill: str,
    address: str,
    words: str,
) -> None:
    """Named, with the cloud's words, before a model is loaded; no credentials in the message."""
    put("in/a.jsonl", b'{"prompt": "a"}\n')
    monkeypatch.setattr(places, "N_TRIES", 1)
    monkeypatch.setattr("fastgpt_c.model.Model", None)
    store.refused = ill == "refused"
    store.share = 1.0 if ill == "down" else 0.0
    assert batch(address, f"{source.with_name('out')}/") in (FAILURE, WRONG_USAGE)
    said = capfd.readouterr().err
    assert said.startswith("fastgpt-c: ") and said.count("\n") == 1 and address in said and words in said, said
    assert "not-a-secret-key" not in said
    if ill == "refused":
        assert batch(source, f"{address}/") == FAILURE
        assert words in capfd.readouterr().err


def test_the_plan_has_no_credentials(store: ObjectStore) -> None:
    batch(put("in/a.jsonl", b'{"prompt": "a"}\n'), f"{OUT}/")
    data = StoreFolder(OUT).read("plan.json") or b""
    assert b"in/a.jsonl" in data and b"testing" not in data and b"not-a-secret-key" not in data


def test_a_model_is_fetched_once(store: ObjectStore, source: Path, tmp_path: Path) -> None:
    """Into a folder of the cache that is named after its content; another content is another file."""
    from fastgpt_c.sharding.model_file import model_file

    address = put("m/x.gguf", b"GGUF one")
    made, path = model_file(address)
    assert path.read_bytes() == b"GGUF one" and path.name == "x.gguf"
    n_calls = store.n_calls
    assert made.local() == path and store.n_calls == n_calls
    put("m/x.gguf", b"GGUF two")
    path.unlink()
    with pytest.raises(fastgpt_c.FastGPTError, match="is not the model of the plan"):
        made.local()


def test_an_upload_that_fails_leaves_nothing(store: ObjectStore) -> None:
    """pyarrow completes an upload whatever happened; this one is removed."""
    target = Store(f"s3://{BUCKET}/whole")

    def fail(action: Callable[[], None]) -> None:
        with target.uploading(target.path) as out:
            out.write(b"half of it")
            action()

    with pytest.raises(KeyboardInterrupt):
        fail(lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert not target.info(target.path).is_file


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], source: Path) -> None:
    """The line says what to type to get it; local files need none of it."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert batch("s3://bucket/in", f"{source.with_name('out')}/") == FAILURE
    assert "pip install 'fastgpt-c[remote]'" in capfd.readouterr().err
    assert batch(source, f"{source.with_name('out')}/") == 0


def test_a_store_that_never_answers_is_a_place_error(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "N_TRIES", 2)
    put("x", b"x")
    store.share = 1.0
    before = store.n_calls
    with pytest.raises(PlaceError, match=r"^s3://bucket/x: "):
        input_file(f"s3://{BUCKET}/x")
    assert store.n_calls - before >= 2
