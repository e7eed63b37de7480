"""The law of shards on a Ray cluster: nodes that die and come, a driver that is killed, and all is as from one run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import ENVIRONMENT, FAILURE, OUTSIDE, SCRIPT, WRONG_USAGE, run
from shard_jobs import EPOCH, OPTIONS, expected_of, lines_with_everything, shard_bytes

import fastgpt_c
from fastgpt_c.cli.__main__ import main
from fastgpt_c.errors import MissingExtraError, UsageError
from fastgpt_c.sharding import plan, ray_driver

ray = pytest.importorskip("ray", reason="needs pip install 'fastgpt-c[ray]'")

from ray_cluster import add_node, ray_cluster  # noqa: E402  # needs ray

TIMEOUT = 300
N_KILLS = int(os.environ.get("FASTGPT_TEST_DRIVER_KILLS", "1"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    os.environ["FASTGPT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        with ray_cluster(2) as cluster:
            yield cluster
    finally:
        del os.environ["FASTGPT_CACHE"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines_with_everything(120))
    return path


def token() -> dict[str, str]:
    """What a process needs to join the cluster."""
    return {name: os.environ[name] for name in os.environ if name.startswith("RAY_")} | {"SOURCE_DATE_EPOCH": EPOCH}


def check_merged(source: Path, out: Path, expected: bytes) -> None:
    plan.opened.cache_clear()
    assert main(["batch", str(out), "--merge", str(source.with_name("merged")), "--allow-errors"]) == 0
    assert source.with_name("merged").read_bytes() == expected


def test_a_job(cluster: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command plans and runs; its last record has the counts; a second call has nothing to do."""
    expected, out = expected_of(source, monkeypatch), tmp_path / "out"
    command = ["batch", source, f"{out}/", "--shard-bytes", shard_bytes(source, 8), "--check-ids", *OPTIONS,
               "--ray", cluster.address, "--json"]  # fmt: skip
    done = run(*command, **token())
    assert done.returncode == FAILURE, "there are error records"
    assert done.stderr.decode().splitlines()[-1].endswith("records are errors"), "after what Ray says"
    made, *_, last = [json.loads(line) for line in done.stdout.splitlines()]
    n = made["shards"]
    assert n > 4 and (last["n_shards"], last["n_done"], last["n_failed"], last["n_at_work"]) == (n, n, 0, 0)
    records = expected.splitlines()
    assert last["n_lines"] == len(records) and last["n_nodes"] == 2 and last["n_cpus"] == 2
    assert last["n_errors"] == sum(json.loads(record)["error"] is not None for record in records)
    check_merged(source, out, expected)
    again = run("batch", out, "--ray", cluster.address, "--json", **token())
    assert again.returncode == 0 and json.loads(again.stdout.splitlines()[-1])["n_before"] == n


def test_nodes_and_drivers_that_die(
    cluster: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node is killed in mid-job and one is added, the driver is killed and called again: complete and equal."""
    source.write_bytes(lines_with_everything(400))
    expected, out = expected_of(source, monkeypatch), tmp_path / "out"
    size = shard_bytes(source, 40)
    assert run("batch", source, f"{out}/", "--shard-bytes", size, "--check-ids", *OPTIONS, **token()).returncode == 0
    n = len(json.loads((out / "plan.json").read_bytes())["shards"])
    dying = add_node(cluster)
    command = ["batch", out, "--ray", cluster.address, "--allow-errors"]

    def wait_for(n_done: int) -> None:
        end = time.monotonic() + TIMEOUT
        while len(list(out.glob("*.done"))) < n_done:
            assert time.monotonic() < end, "nothing is done"
            time.sleep(0.02)

    with subprocess.Popen([*SCRIPT, *map(str, command)], cwd=OUTSIDE, env=ENVIRONMENT | token()) as process:
        try:
            wait_for(2)
            cluster.remove_node(dying, allow_graceful=False)
            wait_for(n // 3)
            assert process.poll() is None, "too fast for this test"
        finally:
            process.kill()
    with subprocess.Popen([*SCRIPT, *map(str, command)], cwd=OUTSIDE, env=ENVIRONMENT | token()) as process:
        add_node(cluster)
        assert process.wait(TIMEOUT) == 0
    check_merged(source, out, expected)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_a_driver_killed_at_any_moment(
    cluster: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it starts, joins, hands out tasks or waits: the next call goes on, also beside tasks of the killed one."""
    expected, out = expected_of(source, monkeypatch), tmp_path / "out"
    size = shard_bytes(source, 40)
    run("batch", source, f"{out}/", "--shard-bytes", size, "--check-ids", *OPTIONS, **token())
    command = [*SCRIPT, "batch", str(out), "--ray", cluster.address, "--allow-errors"]
    rng = random.Random(0)
    for _ in range(N_KILLS):
        with subprocess.Popen(command, cwd=OUTSIDE, env=ENVIRONMENT | token()) as process:
            time.sleep(rng.uniform(0.5, 8.0))
            process.kill()
        for part in rng.sample(sorted(out.glob("*.done")), len(list(out.glob("*.done"))) // 2):
            part.unlink()  # so that there is something to do until the last kill
    assert subprocess.run(command, cwd=OUTSIDE, env=ENVIRONMENT | token(), timeout=TIMEOUT).returncode == 0
    check_merged(source, out, expected)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_a_shard_that_fails(cluster: Any, source: Path, tmp_path: Path) -> None:
    """It is named with its reason, has a .failed, and the others are done."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.jsonl").write_text('{"prompt": "Once"}\n')
    run("batch", folder, f"{out}/", *OPTIONS, **token())
    (folder / "b.jsonl").write_text('{"prompt": "More"}\n\n')
    done = run("batch", out, "--ray", cluster.address, **token())
    assert done.returncode == FAILURE
    assert b"shard 1 failed: " in done.stderr and b"b.jsonl: has changed since the plan" in done.stderr
    assert (out / "part-00000.done").exists() and (out / "part-00001.failed").exists()


def test_a_wrong_token(cluster: Any, source: Path, tmp_path: Path) -> None:
    """Refused by the cluster, and the line says so."""
    run("batch", source, f"{tmp_path / 'out'}/", *OPTIONS, **token())
    wrong = token() | {"RAY_AUTH_TOKEN": "0" * 48}
    done = run("batch", tmp_path / "out", "--ray", cluster.address, **wrong)
    said = done.stderr.decode().splitlines()[-1]
    assert done.returncode == FAILURE and said.startswith(f"fastgpt-c: Ray at {cluster.address} cannot be joined")
    assert "token" in said.lower() and not list((tmp_path / "out").glob("*.done"))


MAP_PROMPTS = """
import json, sys
import fastgpt_c.ray
import ray

address, prompts, options = sys.argv[1], *map(json.loads, sys.argv[2:])
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
dataset = ray.data.from_items([{"id": i, "prompt": prompt} for i, prompt in enumerate(prompts)])
rows = fastgpt_c.ray.map_prompts(dataset, "prompt", batch_size=6, **options).take_all()
print(json.dumps(sorted(rows, key=lambda row: row["id"])))
"""


def test_rows_of_a_dataset(cluster: Any) -> None:
    """map_prompts gives each row the text of a run alone, and a bad row its error."""
    pytest.importorskip("pandas", reason="Ray Data needs it: pip install 'fastgpt-c[ray]'")
    prompts = [f"Once upon {i}" for i in range(20)] + ["x" * 6000, None]
    options: dict[str, Any] = {"max_new_tokens": 4, "temperature": 0, "deterministic": True}
    arguments = [cluster.address, json.dumps(prompts), json.dumps(options)]
    done = run("-c", MAP_PROMPTS, *arguments, program=[sys.executable], **token())
    assert done.returncode == 0, done.stderr.decode()
    rows = json.loads(done.stdout.splitlines()[-1])
    with fastgpt_c.load() as model:
        for row, prompt in zip(rows[:20], prompts, strict=False):
            assert (row["text"], row["error"]) == (model.generate(prompt, **options).text, None)
    assert rows[20]["text"] is None and "n_ctx" in rows[20]["error"]
    assert rows[21]["error"] == "the prompt is null"


# ---- Without a cluster ---------------------------------------------------------------------------------------


def test_an_old_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__="2.51.2"))
    with pytest.raises(UsageError, match=r"Ray 2\.51\.2 is too old.*Install 2\.52"):
        ray_driver.import_ray()


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastgpt_c.ray import map_prompts

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"fastgpt-c\[ray\]"):
        ray_driver.import_ray()
    with pytest.raises(MissingExtraError, match=r"fastgpt-c\[ray\]"):
        map_prompts(None, "prompt")


class Connected(SimpleNamespace):
    """What stands for the module ray, once it has joined a cluster without a dashboard."""

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: Any) -> Any:
        return SimpleNamespace(dashboard_url="")


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_a_cluster_without_tokens_gets_a_warning(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """It names what others could do there."""
    from ray._private.authentication import authentication_utils

    monkeypatch.setattr(ray_driver, "import_ray", Connected)
    monkeypatch.setattr(authentication_utils, "is_token_auth_enabled", lambda: mode == "token")
    warnings: list[str] = []
    ray_driver.connect("10.0.0.1:6379", warnings.append)
    assert len(warnings) == (mode == "disabled")
    assert all(word in warning for warning in warnings for word in ("CVE-2023-48022", "CVE-2025-62593", "10.0.0.1"))


def test_no_cluster_is_started(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan.opened.cache_clear()
    assert main(["batch", str(source), f"{tmp_path / 'out'}/", "--ray", "local"]) == WRONG_USAGE
    assert "no cluster is started here" in capfd.readouterr().err
