"""The command for Windows, under wine: the text of Linux, whatever the kernels, the path and the prompt.

tools/windows_zip.sh DIR
FASTGPT_WINDOWS_ZIP=DIR/fastgpt-windows-x86_64.zip pytest tests/python/packaging/test_windows.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import fastgpt_c
from fastgpt_c.native.lib import ffi, lib

ZIP = os.environ.get("FASTGPT_WINDOWS_ZIP")
pytestmark = pytest.mark.skipif(not ZIP or not shutil.which("wine"), reason="needs wine and FASTGPT_WINDOWS_ZIP")

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in the zip, unpacked into a folder of a Cyrillic name that nothing may be written to."""
    folder = tmp_path_factory.mktemp("windows") / "Сказки и были"
    with zipfile.ZipFile(str(ZIP)) as zip:
        zip.extractall(folder)
    (folder / "fastgpt").chmod(0o555)
    return folder / "fastgpt"


def run(folder: Path, *arguments: str, isa: str = "") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "WINEDEBUG": "-all", "FASTGPT_ISA": isa}
    command = ["wine", str(folder / "fastgpt.exe"), *arguments]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, timeout=300)


def text_of_linux(prompt: str, n: int) -> bytes:
    model = fastgpt_c.load()
    return (prompt + model.generate(prompt, max_new_tokens=n, temperature=0.0).text + "\n").encode()


def families() -> list[str]:
    """Of the kernels that this machine runs."""
    names: dict[str, None] = {}
    while (name := lib.fastgpt_kernels_available(len(names))) != ffi.NULL:
        names[ffi.string(name).decode()] = None
    return sorted({name.partition("-")[0] for name in names})


def test_what_is_in_the_zip(folder: Path) -> None:
    """One program that needs no other file, a model, its credits, the licence, and how to begin."""
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["LICENSE.txt", "README.txt", "demo.gguf", "demo.md", "demo_credits.tsv", "fastgpt.exe"]


@pytest.mark.parametrize("prompt", [PROMPT, "\u0416\u0438\u043b\u0438-\u0431\u044b\u043b\u0438", 'She said "no"'])
def test_the_text_is_that_of_linux(folder: Path, prompt: str) -> None:
    """Through a pipe, byte for byte: UTF-8, and no carriage return; prompt and path in Cyrillic."""
    done = run(folder, "-m", str(folder / "demo.gguf"), "-n", "40", "--temperature", "0", prompt)
    assert (done.returncode, done.stdout) == (0, text_of_linux(prompt, 40)), done.stderr


@pytest.mark.parametrize("family", families())
def test_each_family_of_kernels(folder: Path, family: str) -> None:
    """Greedy text does not depend on what computes it."""
    done = run(folder, "-m", str(folder / "demo.gguf"), "-n", "40", "--temperature", "0", PROMPT, isa=family)
    assert (done.returncode, done.stdout) == (0, text_of_linux(PROMPT, 40)), done.stderr


@pytest.mark.parametrize(
    ("name", "why"), [("none.gguf", "No such file"), (".", "is a directory"), ("LICENSE.txt", "GGUF")]
)
def test_what_is_no_model(folder: Path, name: str, why: str) -> None:
    """A status of 1, and one line that names the file and what is wrong with it."""
    done = run(folder, "-m", str(folder / name), PROMPT)
    error = done.stderr.decode()
    assert (done.returncode, done.stdout, error.count("\n")) == (1, b"", 1)
    assert why in error and "fastgpt: " in error


def test_wrong_usage(folder: Path) -> None:
    """A status of 2, and where the options are listed."""
    done = run(folder, "--temperature", "hot", "-m", "m.gguf", PROMPT)
    assert done.returncode == 2 and b"wants a number; see fastgpt --help" in done.stderr
    assert b"usage: fastgpt -m FILE" in run(folder, "--help").stdout
