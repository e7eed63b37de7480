"""The arrows between packages point one way, no modules import each other in a circle, and the checks of both see an
arrow that points the other way, wherever in a file it stands."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

import fastgpt_c

TOOL = ROOT / "tools" / "import_graph.py"

# An arrow from the engine up to the facade, as a plain import, in a function, and for type checkers alone.
ARROWS = {
    "plain": "\nfrom fastgpt_c.model import Model\n",
    "in a function": "\ndef planted() -> None:\n    from fastgpt_c.model import Model\n",
    "for type checkers": "\nTYPE_CHECKING = False\nif TYPE_CHECKING:\n    from fastgpt_c.model import Model\n",
    "of a module": "\ndef planted() -> None:\n    from fastgpt_c import model\n",
}


@pytest.fixture(params=ARROWS)
def planted(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the package's modules with such an arrow, and the settings beside it."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("models", "pages", "__pycache__")
    shutil.copytree(ROOT / "fastgpt_c", tmp_path / "fastgpt_c", ignore=ignored)
    with (tmp_path / "fastgpt_c" / "engine" / "session.py").open("a") as file:
        file.write(ARROWS[request.param])
    return tmp_path


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("importlinter", reason="pip install import-linter")
    return run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", cwd=folder)


def test_no_modules_import_each_other_in_a_circle() -> None:
    done = run(sys.executable, TOOL, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(" no circles\n")


def test_a_planted_circle_is_found(planted: Path) -> None:
    done = run(sys.executable, TOOL, planted / "fastgpt_c", cwd=planted)
    assert done.returncode == 1
    assert "CIRCLE: " in done.stdout
    assert "fastgpt_c.engine.session <-> " in done.stdout


def test_arrows_between_packages_are_those_of_the_contracts() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_planted_arrow_breaks_a_contract(planted: Path) -> None:
    done = lint_imports(planted)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "fastgpt_c.engine.session -> fastgpt_c.model" in done.stdout


def test_only_native_lib_imports_the_extension() -> None:
    users = {path for path in (ROOT / "fastgpt_c").rglob("*.py") if _imports_extension(path)}
    assert users == {ROOT / "fastgpt_c" / "native" / "lib.py"}


def _imports_extension(path: Path) -> bool:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return any("_fastgpt" in name.split(".") for name in names)


def test_what_is_public_is_importable_from_the_top() -> None:
    """Every name of __all__ is there, and says no other name than dir() does."""
    for name in fastgpt_c.__all__:
        assert getattr(fastgpt_c, name) is not None
    assert dir(fastgpt_c) == sorted(fastgpt_c.__all__)
    assert {"Reader", "LogitsProcessor", "Batch", "Profile"} <= set(fastgpt_c.__all__)
