"""The examples that run a server for others: each command in them is one that fastgpt-c takes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from paths import ROOT

from fastgpt_c.cli.commands import parser_of

CONTAINER = ROOT / "examples" / "container" / "Containerfile"
UNIT = ROOT / "examples" / "systemd" / "fastgpt.service"


def instructions() -> list[tuple[str, str]]:
    """Of the Containerfile: (name, arguments)."""
    lines = [line for line in CONTAINER.read_text().splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_the_container_is_small_and_no_root() -> None:
    """Its last stage installs nothing, runs as a plain user, and begins a server that others reach."""
    names = [name for name, _ in instructions()]
    assert set(names) <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "EXPOSE", "ENTRYPOINT"}
    last = instructions()[max(i for i, name in enumerate(names) if name == "FROM") :]
    values = dict(last)
    assert "RUN" not in values and not re.match(r"(0|root)\b", values["USER"])
    assert instructions()[0][1].endswith(" AS build") and values["COPY"].startswith("--from=build ")
    program, command, *options = json.loads(values["ENTRYPOINT"])
    assert (program, command) == ("fastgpt-c", "serve")
    assert parser_of("serve").parse(options).host == "0.0.0.0"


def test_the_unit_begins_a_server() -> None:
    """Behind a socket of its name."""
    (line,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    program, command, *options = shlex.split(line)
    assert Path(program).name == "fastgpt-c" and command == "serve"
    assert parser_of("serve").parse(options).model == "/srv/models/model.gguf"
    assert (UNIT.parent / "fastgpt.socket").read_text().count("ListenStream=") == 1
