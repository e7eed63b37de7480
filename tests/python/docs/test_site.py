"""The documentation site: built from nothing, a warning is an error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

pytest.importorskip("sphinx", reason="needs pip install '.[docs]'")
pytest.importorskip("furo", reason="needs pip install '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", ROOT / "docs", folder]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def test_the_c_reference_has_every_function(site: Path) -> None:
    header = (ROOT / "csrc" / "include" / "fastgpt.h").read_text(encoding="utf-8")
    declarations = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    page = (site / "reference" / "c.html").read_text(encoding="utf-8")
    functions = set(re.findall(r"\b(fastgpt_\w+)\(", declarations))
    assert len(functions) > 90
    assert [function for function in sorted(functions) if f'id="c.{function}"' not in page] == []


def test_the_command_reference_has_every_subcommand(site: Path) -> None:
    page = (site / "reference" / "command.html").read_text(encoding="utf-8")
    for command in ("generate", "batch", "chat", "convert", "quantize", "profile", "lens", "score", "eval"):
        assert f"fastgpt-c {command}" in page


def test_options_of_sampling_are_explained(site: Path) -> None:
    """Docstrings become lists of names, not paragraphs."""
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for option in ("temperature", "top_p", "mirostat_tau", "max_new_tokens"):
        assert f'<span class="pre">{option}</span></code></dt><dd>' in page
