"""What is installed, what the header declares, and how tests run programs on it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from paths import ROOT

from fastgpt_c import _fastgpt

HEADER = ROOT / "csrc" / "include" / "fastgpt.h"
GUARD_HEADER = ROOT / "csrc" / "extension" / "guard.h"
PACKAGE = Path(_fastgpt.__file__).parent
ffi, lib = _fastgpt.ffi, _fastgpt.lib


def load_build_ffi() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_ffi", ROOT / "build_ffi.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_ffi = load_build_ffi()


def declared_functions() -> dict[str, tuple[str, str]]:
    """{name: (result, parameters)} as written in the header."""
    text = re.sub(r"/\*.*?\*/", "", build_ffi.declarations(HEADER), flags=re.DOTALL)
    found = re.findall(r"^(\w[\w ]*[ *])(fastgpt_\w+)\(([^)]*)\);", text, flags=re.MULTILINE)
    return {name: (result.strip(), parameters) for result, name, parameters in found}


def tool(name: str) -> str:
    """The path of a program that a test needs; without it the test is skipped."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """The command's standard output; its standard error is shown when it fails.  It runs in the root folder, where
    no source folder named fastgpt_c can hide the installed package."""
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def shared_library() -> Path:
    """libfastgpt.so.N of the package, N as in the header."""
    library = PACKAGE / "lib" / f"libfastgpt.so.{lib.FASTGPT_ABI_VERSION}"
    if sys.platform == "darwin":
        pytest.skip("not an ELF system")
    return library
