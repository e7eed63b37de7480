"""The arrows between the folders of csrc/ are those of csrc/folders.txt, and the docs have a picture of that table."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from paths import ROOT

CSRC = ROOT / "csrc"

spec = importlib.util.spec_from_file_location("architecture", ROOT / "tools" / "architecture.py")
assert spec and spec.loader
architecture = importlib.util.module_from_spec(spec)
spec.loader.exec_module(architecture)


def test_arrows_between_folders_run_one_way() -> None:
    """Each #include and each call goes where folders.txt lets it, no files make a circle, and no arrow is left over."""
    assert architecture.faults(CSRC) == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A csrc/ to plant faults in."""
    return Path(shutil.copytree(CSRC, tmp_path / "csrc"))


def plant(copy: Path, file: str, line: str) -> list[str]:
    """The faults after a line was added to a file, which may be new."""
    with (copy / file).open("a") as out:
        out.write(f"\n{line}\n")
    return architecture.faults(copy)


def test_an_include_against_the_arrows_is_found(copy: Path) -> None:
    """Products may not know the transformer."""
    (fault,) = plant(copy, "matmul/packing.h", '#include "transformer/forward.h"')
    assert fault == "folders.txt does not let matmul use transformer: matmul/packing.h -> transformer/forward.h"


def test_a_call_against_the_arrows_is_found(copy: Path) -> None:
    """Neither by a function of the public header: a sampler may not step."""
    found = plant(copy, "sampler/sampler.c", "void again(void) {\n    fastgpt_step(NULL, NULL, 0, NULL, NULL);\n}")
    assert found == ["folders.txt does not let sampler use transformer: sampler/sampler.c -> transformer/step.c"]


def test_a_circle_of_files_is_found(copy: Path) -> None:
    """Also inside of one folder, where the table allows everything."""
    (copy / "model" / "first.h").write_text('#include "model/second.h"\n')
    assert plant(copy, "model/second.h", '#include "model/first.h"') == [
        "a circle of files: model/first.h, model/second.h"
    ]


def test_a_header_of_the_system_is_found(copy: Path) -> None:
    """Threads and files are asked of os.h, so that a port writes os_*.c and nothing else."""
    (fault,) = plant(copy, "kernels/dispatch.c", "#include <pthread.h>")
    assert fault.startswith("kernels/dispatch.c includes <pthread.h>: only common/os.h")


def test_a_circle_in_the_table_is_found(copy: Path) -> None:
    """The table cannot allow what it is there to forbid."""
    found = plant(copy, "folders.txt", "include: cli")
    assert any(fault.startswith("a circle of folders in folders.txt: ") for fault in found)


def test_a_folder_without_a_line_is_found(copy: Path) -> None:
    """Whoever makes a folder says what it may use."""
    (copy / "new").mkdir()
    assert plant(copy, "new/new.c", '#include "common/os.h"') == [
        "folders.txt has no line for new/new.c, which uses common/os.h"
    ]


def test_the_picture_is_of_the_table() -> None:
    """docs/images/architecture.svg is what tools/architecture.py --draw writes."""
    assert architecture.PICTURE.read_text("ascii") == architecture.svg(architecture.read_table(CSRC))


@pytest.mark.parametrize("folder", [name for name in architecture.read_table(CSRC) if "." not in name])
def test_each_folder_says_what_it_is_for(folder: str) -> None:
    """In ten lines, which name no file that is not there."""
    lines = (CSRC / folder / "README.md").read_text("utf-8").splitlines()
    assert 3 <= len(lines) <= 10
    named = [word for line in lines for word in line.split("`")[1::2] if word.endswith((".c", ".h", ".hpp"))]
    assert [name for name in named if not [*(CSRC / folder).glob(name)]] == []
