"""What a build promises: the header is the whole interface, the parts agree, and OpenBLAS is ours alone."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from installation import (
    GUARD_HEADER,
    HEADER,
    PACKAGE,
    build_ffi,
    declared_functions,
    ffi,
    lib,
    run,
    shared_library,
    tool,
)

import fastgpt_c

PRIVATE_OPENBLAS = PACKAGE / "lib" / "libfastgpt_openblas.so"

# ---- One interface, in three places -----------------------------------------------------------------


def test_header_and_extension_have_the_same_functions() -> None:
    """Every function of the header can be called from Python, and no other."""
    assert sorted(declared_functions()) == [name for name in sorted(dir(lib)) if name.startswith("fastgpt_")]


def test_library_exports_the_header_and_nothing_else() -> None:
    """The dynamic symbols of libfastgpt are the functions of the header, each with the version of the ABI."""
    version = f"FASTGPT_{lib.FASTGPT_ABI_VERSION}"
    symbols = run(tool("nm"), "-D", "--defined-only", "--format=posix", shared_library())
    exported = sorted(line.split()[0] for line in symbols.splitlines())
    assert exported == [version, *(f"{name}@@{version}" for name in sorted(declared_functions()))]


def spelled(ctype: Any) -> str:
    """A C type's name; "struct x" and its typedef "x" are the same."""
    return re.sub(r"\b(struct|enum) ", "", ctype.cname)


def layout(some_ffi: Any, type_name: str) -> object:
    """What a type is made of: an enum's values, a struct's fields with types and offsets, a pointer to a function of
    certain types, or "opaque"."""
    ctype = some_ffi.typeof(type_name)
    if ctype.kind == "enum":
        return ctype.relements
    if ctype.kind == "function":
        return spelled(ctype)
    try:
        some_ffi.sizeof(ctype)
    except (ffi.error, ValueError):  # compiled and not compiled FFIs differ here
        return "opaque"
    return [(name, spelled(field.type), field.offset) for name, field in ctype.fields]


def test_extension_was_generated_from_this_header() -> None:
    """Types, values and signatures in the compiled extension are those that build_ffi.py reads now."""
    fresh = build_ffi.make_ffi(HEADER, GUARD_HEADER)
    assert ffi.list_types() == fresh.list_types()
    for name in ffi.list_types()[0]:
        assert layout(ffi, name) == layout(fresh, name), name
    for name, (result, parameters) in declared_functions().items():
        declared = fresh.typeof(f"{result}(*)({parameters})")
        assert spelled(ffi.typeof(ffi.addressof(lib, name))) == spelled(declared), name


def test_installed_header_is_this_header() -> None:
    """Other languages compile against the same file."""
    assert (PACKAGE / "include" / "fastgpt.h").read_bytes() == HEADER.read_bytes()


def test_versions_agree() -> None:
    """The library and the package have one version."""
    assert ffi.string(lib.fastgpt_version()).decode() == importlib.metadata.version("fastgpt-c")


@pytest.mark.parametrize(
    "compiler, standard, header",
    [
        *itertools.product(("gcc", "clang"), ("c99", "c11"), ("fastgpt.h",)),
        *itertools.product(("g++", "clang++"), ("c++11", "c++17"), ("fastgpt.h",)),
        *itertools.product(("g++", "clang++"), ("c++17", "c++20"), ("fastgpt.hpp",)),
    ],
)
def test_header_compiles_alone(compiler: str, standard: str, header: str, tmp_path: Path) -> None:
    """A header needs no other before it, in C99, C11 and C++, with gcc and clang, and causes no warning."""
    source = tmp_path / ("user.cc" if "++" in compiler else "user.c")
    source.write_text(
        f"#include <{header}>\nfastgpt_status user(void);\nfastgpt_status user(void) {{ return FASTGPT_OK; }}\n"
    )
    flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", f"-I{HEADER.parent}"]
    run(tool(compiler), f"-std={standard}", *flags, source)


def test_c_program_links_to_a_package_that_moved(tmp_path: Path) -> None:
    """pkg-config's answer is enough to link, wherever the package's lib and include lie."""
    for folder in ("lib", "include"):
        shutil.copytree(PACKAGE / folder, tmp_path / "moved" / folder)
    source, program = tmp_path / "user.c", tmp_path / "user"
    source.write_text(
        "#include <fastgpt.h>\n#include <stdio.h>\nint main(void) { return puts(fastgpt_version()) < 0; }\n"
    )
    env = os.environ | {"PKG_CONFIG_PATH": str(tmp_path / "moved" / "lib" / "pkgconfig")}
    flags = run(tool("pkg-config"), "--cflags", "--libs", "fastgpt", env=env).split()
    run(tool("cc"), source, "-o", program, *flags, f"-Wl,-rpath,{tmp_path / 'moved' / 'lib'}")
    assert run(program).strip() == importlib.metadata.version("fastgpt-c")


# ---- The private OpenBLAS ---------------------------------------------------------------------------

# Loads both copies of OpenBLAS in the order given, each as globally as its users would, and gives each its own
# number of threads; prints  theirs ours  after each change.
TWO_COPIES = """
import ctypes, sys
theirs_path, ours_path, order = sys.argv[1:]

def load_theirs():
    return ctypes.CDLL(theirs_path, mode=ctypes.RTLD_GLOBAL)

def load_ours():
    import fastgpt_c._fastgpt
    return ctypes.CDLL(ours_path, mode=ctypes.RTLD_GLOBAL)

if order == "theirs first":
    theirs, ours = load_theirs(), load_ours()
else:
    ours, theirs = load_ours(), load_theirs()

def counts():
    return theirs.scipy_openblas_get_num_threads64_(), ours.fastgpt_scipy_openblas_get_num_threads64_()

theirs.scipy_openblas_set_num_threads64_(2)
ours.fastgpt_scipy_openblas_set_num_threads64_(1)
print(*counts())
theirs.scipy_openblas_set_num_threads64_(1)
ours.fastgpt_scipy_openblas_set_num_threads64_(3)
print(*counts())
"""


def bindings(log: Path, ours: Callable[[str], bool]) -> set[tuple[bool, bool, str]]:
    """{(from ours, to ours, symbol)} of what glibc's dynamic linker wrote with LD_DEBUG=bindings, where one end
    belongs to us and the other is OpenBLAS, or both."""
    found = re.findall(r"binding file (\S+) \[0\] to (\S+) \[0\]: normal symbol `(\w+)'", log.read_text())
    return {
        (ours(user), ours(provider), symbol)
        for user, provider, symbol in found
        if (ours(user) or "openblas" in user) and "openblas" in provider
    }


# Prefills a prompt while the other copy is loaded globally with two threads; prints  theirs ours  after that.
PREFILL = """
import ctypes, sys
theirs_path, ours_path, model_path = sys.argv[1:]
theirs = ctypes.CDLL(theirs_path, mode=ctypes.RTLD_GLOBAL)
theirs.scipy_openblas_set_num_threads64_(2)
import fastgpt_c
ours = ctypes.CDLL(ours_path)
with fastgpt_c.load(model_path) as model, model.session() as session:
    session.prefill(range(64))
print(theirs.scipy_openblas_get_num_threads64_(), ours.fastgpt_scipy_openblas_get_num_threads64_())
"""


@pytest.fixture
def scipy_openblas() -> Path:
    """The library of the scipy_openblas64 package, which a private copy must never be mistaken for."""
    if not PRIVATE_OPENBLAS.exists():
        pytest.skip(f"no private OpenBLAS in this build: it uses {ffi.string(lib.fastgpt_blas_name()).decode()}")
    package = pytest.importorskip("scipy_openblas64")
    return next(Path(package.get_lib_dir()).glob("libscipy_openblas64_.so"))


def run_python(script: str, *arguments: str | Path, env: dict[str, str] | None = None) -> list[str]:
    """The words that a script prints in a process of its own."""
    return run(sys.executable, "-c", script, *arguments, env=env).split()


@pytest.mark.parametrize("order", ["theirs first", "ours first"])
def test_openblas_is_private(order: str, scipy_openblas: Path, tmp_path: Path) -> None:
    """With scipy_openblas64's library loaded globally, before or after, each copy serves its own users alone:
    no symbol is bound across, and neither sees the other's number of threads."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc's dynamic linker says what it binds")
    env = os.environ | {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "log"), "LD_BIND_NOW": "1"}
    assert run_python(TWO_COPIES, scipy_openblas, PRIVATE_OPENBLAS, order, env=env) == ["2", "1", "1", "3"]

    bound = bindings(next(tmp_path.glob("log.*")), ours=lambda file: file.startswith(str(PACKAGE)))
    assert (True, True, "fastgpt_scipy_cblas_sgemm64_") in bound
    assert [binding for binding in bound if binding[0] != binding[1]] == []


def test_own_openblas_has_one_thread(scipy_openblas: Path, long_model: fastgpt_c.Model) -> None:
    """Our pool divides the work, so the private copy has one thread, whatever the environment asks for; the other copy
    keeps its two."""
    env = os.environ | {"OPENBLAS_NUM_THREADS": "3"}
    assert run_python(PREFILL, scipy_openblas, PRIVATE_OPENBLAS, long_model.path, env=env) == ["2", "1"]
