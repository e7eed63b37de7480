"""Jobs of shards for tests: input with everything in it, and what the local engine makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastgpt_c.cli.__main__ import main
from fastgpt_c.sharding import plan

EPOCH = "1700000000"  # SOURCE_DATE_EPOCH: two runs write the same bytes
OPTIONS = ("--deterministic", "-n", "3", "--seed", "5", "--temperature", "1.5")


def batch(*arguments: str | Path) -> int:
    """The exit status of the command, which reads a plan anew."""
    plan.opened.cache_clear()
    return main(["batch", *map(str, arguments)])


def lines_with_everything(n: int) -> bytes:
    """n lines: texts, token ids, choices, own ids, the same id again, errors of several kinds, blank lines, a last line
    without its end."""
    lines: list[bytes] = []
    for i in range(n):
        line: Any = {"prompt": f"Once upon {i}", "max_tokens": 1 + i % 3}
        if i % 5 == 1:
            line |= {"custom_id": f"id-{i}", "n": 1 + i % 2}
        if i % 7 == 2:
            line = {"custom_id": "again", "prompt": "The wolf"}
        if i % 11 == 3:
            line = {"custom_id": f"line-{max(i - 9, 1)}", "prompt": "said"}  # the default id of another line
        if i % 13 == 4:
            line = {"custom_id": "again" if i % 2 else f"bad-{i}", "prompt": "x", "best_of": 3}
        if i % 17 == 5:
            line = {"prompt": "long", "max_tokens": 10**6}
        lines.append(json.dumps(line).encode())
        if i % 19 == 6:
            lines[-1] = b"not json \xff"
        if i % 23 == 7:
            lines[-1] = b"   "
    return b"\n".join(lines)


def in_order(source: bytes, records: bytes) -> bytes:
    """The records of the local engine, which stand as they ended, in the order of the input's lines."""
    ids: dict[str, int] = {}
    for number, line in enumerate(source.split(b"\n"), 1):
        try:
            custom_id = json.loads(line).get("custom_id") or f"line-{number}"
        except ValueError:
            continue
        ids.setdefault(custom_id, number)

    def line_of(record: bytes) -> int:
        value = json.loads(record)
        return int(value["error"]["line"] if value["error"] else ids[value["custom_id"]])

    return b"".join(sorted(records.splitlines(keepends=True), key=line_of))


def expected_of(source: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> bytes:
    """What all shards give together, by one run of the local engine."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    target = source.with_suffix(".local")
    assert main(["batch", str(source), str(target), *OPTIONS, *options]) in (0, 1)
    return in_order(source.read_bytes(), target.read_bytes())


def shard_bytes(source: Path, n_shards: int) -> str:
    """A --shard-bytes that gives about so many."""
    return str(-(-source.stat().st_size // n_shards))


def plan_of(folder: Path | str) -> dict[str, Any]:
    return dict(json.loads((Path(folder) / "plan.json").read_bytes()))
