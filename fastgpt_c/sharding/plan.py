"""The plan of a job: what it reads, how it is cut, with which model and options.  A file, OUT/plan.json."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from fastgpt_c.batching.openai_format import record_time
from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.native.arguments import shown
from fastgpt_c.sharding.cut import Cuts, cut
from fastgpt_c.sharding.folder import Folder, open_folder
from fastgpt_c.sharding.ids import write_repeats
from fastgpt_c.sharding.model_file import ModelFile
from fastgpt_c.sharding.places import InputFile

NAME = "plan.json"
VERSION = 1
SHARD_BYTES = 32 << 20


@dataclass(frozen=True)
class Shard:
    """Lines of an input, first the number of the first one; see Cuts."""

    index: int
    file: InputFile
    begin: int
    end: int
    first: int


@dataclass(frozen=True)
class Plan:
    """inputs   in the order in which their lines are counted
    shard_bytes
             at least so many in a shard
    check_ids
             whether each custom_id was looked up in all shards
    n_repeats
             lines of each shard whose custom_id an earlier shard has: shard -> number; shards without any are left out
    model    the file that makes the text
    options  fields of generation.Options, seed included
    created  time that records bear, seconds since 1970
    cuts     the shards
    """

    inputs: Sequence[InputFile]
    shard_bytes: int
    check_ids: bool
    n_repeats: Mapping[int, int]
    model: ModelFile
    options: Mapping[str, Any]
    created: int
    cuts: Cuts

    def __len__(self) -> int:
        return len(self.cuts)

    def shard(self, index: int) -> Shard:
        """Raises UsageError for an index out of range."""
        if not 0 <= index < len(self):
            raise UsageError(f"there is no shard {index}; the plan has {len(self)}, counted from 0")
        cuts = self.cuts
        return Shard(index, self.inputs[cuts.file[index]], cuts.begin[index], cuts.end[index], cuts.first[index])


# ---- Made --------------------------------------------------------------------------------------------------


def make(
    folder: Folder,
    inputs: Sequence[InputFile],
    model: ModelFile,
    options: Mapping[str, Any],
    *,
    shard_bytes: int = SHARD_BYTES,
    check_ids: bool = False,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Plan:
    """The plan in folder, made if there is none.

    Raises UsageError where the folder has one of another job and names what differs; what cut raises.
    """
    wanted = {
        "inputs": [asdict(file) for file in inputs],
        "shard_bytes": shard_bytes,
        "check_ids": check_ids,
        "model": model.identity,
        "options": dict(options),
    }
    if (found := _read(folder)) is None:
        cuts = cut(inputs, shard_bytes, on_bytes)
        n_repeats: Mapping[int, int] = {}
        if check_ids:
            n_repeats = write_repeats(folder, inputs, cuts)
        plan = Plan(inputs, shard_bytes, check_ids, n_repeats, model, options, record_time(), cuts)
        folder.add(NAME, _encoded(plan))
        found = _read(folder)  # another process may have been first
        assert found is not None
    _check_same(folder, found, wanted)
    return _decoded(folder, found)


def _check_same(folder: Folder, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if name == "model":
            _check_field(folder, "model's sha256", found["model"]["sha256"], value["sha256"])
        elif name == "options":
            for option in sorted({*value, *found["options"]}):
                _check_field(folder, option, found["options"].get(option), json.loads(json.dumps(value.get(option))))
        elif name == "inputs":
            _check_inputs(folder, found["inputs"], value)
        else:
            _check_field(folder, name, found[name], value)


def _check_inputs(folder: Folder, before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> None:
    _check_field(folder, "number of input files", len(before), len(now))
    for old, new in zip(before, now, strict=True):
        _check_field(folder, "input", old["path"], new["path"])
        for name in ("size", "etag"):
            _check_field(folder, f"{name} of {new['path']}", old[name], new[name])


def _check_field(folder: Folder, name: str, before: Any, now: Any) -> None:
    if before != now:
        raise UsageError(
            f"{folder.name}{NAME}: is the plan of another job: its {name} is {shown(before)}, not {shown(now)}; "
            "name another folder"
        )


# ---- Written and read --------------------------------------------------------------------------------------


def _encoded(plan: Plan) -> bytes:
    """A shard a line."""
    cuts = plan.cuts
    head = {
        "fastgpt_c_plan": VERSION,
        "created": plan.created,
        "model": plan.model.identity,
        "options": dict(plan.options),
        "shard_bytes": plan.shard_bytes,
        "check_ids": plan.check_ids,
        "n_repeats": plan.n_repeats,
        "n_lines": cuts.n_lines,
        "inputs": [asdict(file) for file in plan.inputs],
        "columns": ["input", "first byte", "end", "first line"],
    }
    columns = zip(cuts.file, cuts.begin, cuts.end, cuts.first, strict=True)
    rows = ",\n".join(f"[{file},{begin},{end},{first}]" for file, begin, end, first in columns)
    return f'{json.dumps(head, indent=1)[:-2]},\n "shards": [\n{rows}\n]}}\n'.encode()


def _read(folder: Folder) -> dict[str, Any] | None:
    data = folder.read(NAME)
    if data is None:
        return None
    try:
        found = json.loads(data)
        version = found["fastgpt_c_plan"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{folder.name}{NAME}: is not a plan of fastgpt-c batch; name another folder") from error
    if version != VERSION:
        raise UsageError(
            f"{folder.name}{NAME}: is a plan of version {shown(version)}, and this fastgpt-c reads {VERSION}: "
            "use the version that made it"
        )
    return dict(found)


def _decoded(folder: Folder, found: Mapping[str, Any]) -> Plan:
    try:
        rows = found["shards"]
        file, begin, end, first = (array("q", [row[i] for row in rows]) for i in range(4))
        return Plan(
            inputs=[InputFile(**file) for file in found["inputs"]],
            shard_bytes=found["shard_bytes"],
            check_ids=found["check_ids"],
            n_repeats={int(index): n for index, n in found["n_repeats"].items()},
            model=ModelFile(**found["model"]),
            options=found["options"],
            created=found["created"],
            cuts=Cuts(file, begin, end, first, found["n_lines"]),
        )
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise UsageError(f"{folder.name}{NAME}: is damaged: {shown(error)}") from error


def read(folder: Folder) -> Plan:
    """The plan in folder.  Raises UsageError where there is none, or one of a later version."""
    found = _read(folder)
    if found is None:
        raise UsageError(f"{folder.name}: has no {NAME}; fastgpt-c batch IN {folder.name} makes one")
    return _decoded(folder, found)


@lru_cache(maxsize=4)
def opened(name: str) -> tuple[Folder, Plan]:
    """Folder and plan, read once a process: a plan never changes.  Raises what open_folder and read raise."""
    folder = open_folder(name)
    return folder, read(folder)


def check_empty(folder: Folder) -> None:
    """Raises FastGPTError where a new plan would come among parts of an old one."""
    left = next((name for name in folder.names() if name.startswith("part-")), None)
    if left is not None and folder.read(NAME) is None:
        raise FastGPTError(f"{folder.name}: has {left}, and no {NAME}; name another folder")
