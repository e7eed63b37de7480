"""What an installation promises to other languages: flags, file names, a CMake package, and that every function was
tried from C or another language."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from installation import HEADER, PACKAGE, ROOT, build_ffi, declared_functions, ffi, lib, run, shared_library, tool

import fastgpt_c

USER = "#include <fastgpt.h>\n#include <stdio.h>\nint main(void) { return puts(fastgpt_build_info()) < 0; }\n"
CMAKE_USER = """
cmake_minimum_required(VERSION 3.20)
project(user LANGUAGES C)
find_package(fastgpt {version} REQUIRED)
add_executable(user user.c)
target_link_libraries(user {target})
"""


def build_info() -> str:
    return ffi.string(lib.fastgpt_build_info()).decode() + "\n"


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A C program that prints fastgpt_build_info()."""
    source = tmp_path / "user.c"
    source.write_text(USER)
    return source


def config(*asked: str) -> list[str]:
    return run(tool("fastgpt-c"), "config", *asked).split()


# ---- Names and flags --------------------------------------------------------------------------------


def test_file_name_and_soname_follow_the_abi() -> None:
    """libfastgpt.so.N with N = FASTGPT_ABI_VERSION of the header, and no second copy of it."""
    assert lib.fastgpt_abi_version() == lib.FASTGPT_ABI_VERSION
    library = shared_library()
    assert f"soname: [{library.name}]" in run(tool("readelf"), "-d", library).replace("Library ", "")
    copies = [file for file in library.parent.glob("libfastgpt.so*") if file.stat().st_size > 1000]
    assert copies == [library]


def test_build_info_tells_blas_compiler_and_instruction_sets() -> None:
    """One line for a bug report, with the kernels that run here among the instruction sets."""
    blas, compiler, instruction_sets = build_info().strip().split(", ")
    assert blas.startswith("BLAS ") and re.fullmatch(r"compiler \w+ [\d.]+", compiler)
    assert ffi.string(lib.fastgpt_kernels_name()).decode() in instruction_sets.split()


def test_config_is_enough_to_compile_and_run(user: Path) -> None:
    """A program that was linked with  fastgpt-c config  finds the library without any path of the environment."""
    program = user.with_suffix("")
    run(tool("cc"), user, *config("--cflags", "--libs"), "-o", program)
    assert run(program) == build_info()


def test_config_names_what_is_there() -> None:
    """The library, the demo model, the CMake package and the version."""
    library, demo, cmake_dir, version = config("--library", "--demo-model", "--cmake-dir", "--version")
    assert Path(library) == shared_library()
    assert Path(demo).read_bytes()[:4] == b"GGUF"
    assert (Path(cmake_dir) / "fastgpt-config.cmake").is_file()
    assert version == importlib.metadata.version("fastgpt-c")


# ---- CMake ------------------------------------------------------------------------------------------


def build_with_cmake(user: Path, prefix: Path, target: str) -> str:
    """What the program prints that find_package(fastgpt) has built against an installation."""
    version = importlib.metadata.version("fastgpt-c")
    (user.parent / "CMakeLists.txt").write_text(CMAKE_USER.format(version=version, target=target))
    cmake, build = tool("cmake"), user.parent / "build"
    run(cmake, "-S", user.parent, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    run(cmake, "--build", build)
    return run(build / "user")


def test_find_package_in_a_package_that_moved(user: Path) -> None:
    """The CMake package finds header and library relative to itself."""
    moved = user.parent / "moved"
    for folder in ("lib", "include"):
        shutil.copytree(PACKAGE / folder, moved / folder)
    assert build_with_cmake(user, moved, "fastgpt::fastgpt") == build_info()


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where cmake --install has put a build without Python, with the static library."""
    folder = tmp_path_factory.mktemp("install")
    cmake, build = tool("cmake"), folder / "build"
    run(cmake, "-S", HEADER.parents[1], "-B", build, "-DFASTGPT_BLAS=Native", "-DFASTGPT_STATIC=ON")
    run(cmake, "--build", build, "--parallel", "2")
    run(cmake, "--install", build, "--prefix", folder / "first")
    return (folder / "first").rename(folder / "moved")


@pytest.mark.parametrize(("flags", "changes"), [("", True), ("-static", False), ("-O1 -static-pie", False)])
def test_a_static_command_has_no_path_to_change(flags: str, changes: bool, tmp_path: Path) -> None:
    """A program without a dynamic section has no list of folders for cmake --install to change."""
    options = ["-DFASTGPT_BLAS=Native", f"-DCMAKE_EXE_LINKER_FLAGS={flags}"]
    run(tool("cmake"), "-S", HEADER.parents[1], "-B", tmp_path, *options)
    installs = (tmp_path / "cmake_install.cmake").read_text()
    words = re.findall(r"RPATH_(?:CHANGE|SET|REMOVE)\s+FILE \"[^\"]*/bin/fastgpt\"", installs)
    assert bool(words) == changes


@pytest.mark.parametrize("target", ["fastgpt::fastgpt", "fastgpt::fastgpt_static"])
def test_cmake_install_gives_both_libraries(target: str, prefix: Path, user: Path) -> None:
    """A tree that cmake installed, and somebody moved, serves programs by the shared and by the static library."""
    assert build_with_cmake(user, prefix, target).startswith("BLAS Native, ")


def test_pkg_config_links_the_static_library(prefix: Path, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pkg-config --static gives all that a wholly static program needs."""
    monkeypatch.setenv("PKG_CONFIG_PATH", str(prefix / "lib" / "pkgconfig"))
    flags = run(tool("pkg-config"), "--static", "--cflags", "--libs", "fastgpt").split()
    program = user.with_suffix("")
    run(tool("cc"), "-static", user, "-o", program, *flags)
    assert run(program).startswith("BLAS Native, ")


def test_demo_model_is_installed(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pkg-config tells where it is, with its card and its credits beside it; also in the Python package."""
    for tree in (prefix, PACKAGE):
        monkeypatch.setenv("PKG_CONFIG_PATH", str(tree / "lib" / "pkgconfig"))
        demo = Path(run(tool("pkg-config"), "--variable=demo_model", "fastgpt").strip())
        assert demo.read_bytes() == Path(DEMO).read_bytes()
        assert (demo.parent / "demo.md").is_file() and (demo.parent / "demo_credits.tsv").is_file()


# ---- The command in C -------------------------------------------------------------------------------

DEMO = str(Path(fastgpt_c.__file__).parent / "models" / "demo.gguf")
STORY = ["-m", DEMO, "-p", "Once", "-n", "1", "--temp", "0", "--threads", "1"]

# Before a program: its allocation number $FAIL fails, and no other.
FAILING_MALLOC = """
#include <errno.h>
#include <stdlib.h>
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
static int fails(void) {
    static int n_done;
    static const char *wanted;
    if (!wanted) wanted = getenv("FAIL");
    errno = ENOMEM;
    return wanted && ++n_done == atoi(wanted);
}
void *malloc(size_t n) { return fails() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : __libc_calloc(n, size); }
"""


def c_command(prefix: Path, arguments: list[str]) -> list[str | Path]:
    return [prefix / "bin" / "fastgpt", *arguments]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], STORY], ids=["help", "version", "story"])
@pytest.mark.parametrize("output", ["/dev/full", "closed"])
def test_c_command_says_that_its_output_was_not_written(prefix: Path, arguments: list[str], output: str) -> None:
    """One line and status 1, as for anything else that fails."""
    if output != "closed" and not Path(output).exists():
        pytest.skip(f"there is no {output} here")
    to = ">&-" if output == "closed" else f">{output}"
    ran = subprocess.run(["sh", "-c", f'exec "$@" {to}', "sh", *c_command(prefix, arguments)], stderr=subprocess.PIPE)
    assert (ran.returncode, ran.stderr.decode().count("\n")) == (1, 1)
    assert ran.stderr.startswith(b"fastgpt: standard output: ")


def test_c_command_calls_missing_memory_missing_memory(prefix: Path, tmp_path: Path) -> None:
    """Each allocation in turn fails: status 1 and a line that says so, never wrong usage."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc has its allocator under a second name")
    source, shim = tmp_path / "failing.c", tmp_path / "failing.so"
    source.write_text(FAILING_MALLOC)
    run(tool("cc"), "-shared", "-fPIC", source, "-o", shim)
    statuses = set()
    for k in range(1, 80):
        env = os.environ | {"LD_PRELOAD": str(shim), "FAIL": str(k)}
        ran = subprocess.run(c_command(prefix, STORY), env=env, capture_output=True)
        statuses.add(ran.returncode)
        assert ran.returncode == 0 or (ran.returncode == 1 and b"memory" in ran.stderr), (k, ran.stderr)
    assert statuses == {0, 1}


@pytest.mark.parametrize(
    ("option", "value"), [("--top-p", "2"), ("--temp", "-1"), ("--min-p", "7"), ("--threads", "1025")]
)
def test_c_command_calls_wrong_usage_wrong_usage(prefix: Path, option: str, value: str) -> None:
    """A value outside of its range: status 2, and the option's name."""
    ran = subprocess.run(c_command(prefix, [*STORY, option, value]), capture_output=True, text=True)
    assert ran.returncode == 2
    assert option in ran.stderr and "see fastgpt --help" in ran.stderr


# ---- The interface is used, and stays ---------------------------------------------------------------


C_TESTS = ROOT / "tests" / "c"
SUFFIXES = {".c", ".cpp", ".f90", ".go", ".java", ".js", ".lua", ".rs"}


def with_headers(file: Path) -> str:
    """A source, and after it the headers of the C tests or of its own folder that it includes, and theirs."""
    text = file.read_text(encoding="utf-8")
    names = re.findall(r'#include "([\w/]+\.h)"', text)
    headers = [folder / name for name in names for folder in (file.parent, C_TESTS)]
    return "\n".join([text, *(with_headers(header) for header in headers if header.exists())])


@functools.cache
def foreign_sources() -> list[str]:
    """The C tests, and the examples in other languages than Python."""
    files = [*C_TESTS.rglob("*"), *(ROOT / "examples").rglob("*")]
    return [with_headers(file) for file in files if file.suffix in SUFFIXES]


def calls(name: str) -> list[str]:
    """The sources that call a function."""
    return [source for source in foreign_sources() if re.search(rf"\b{name}\(", source)]


def test_every_function_is_called_from_another_language() -> None:
    """No function of the header is known from Python alone."""
    assert [name for name in declared_functions() if not calls(name)] == []


def documented_errors() -> list[tuple[str, str]]:
    """(function, status) for each status that the comment above a function names:  Returns OK, ARGUMENT or IO."""
    statuses = {name.removeprefix("FASTGPT_ERR_") for name in dir(lib) if name.startswith("FASTGPT_ERR_")}
    commented = re.findall(
        r"/\*((?:(?!\*/).)*)\*/\s*fastgpt_status (fastgpt_\w+)\(", build_ffi.declarations(HEADER), re.DOTALL
    )
    return [(name, word) for text, name in commented for word in sorted(statuses & set(re.findall(r"[A-Z_]+", text)))]


def test_documented_errors_are_expected_somewhere() -> None:
    """Each status that a function's comment names is named by a source that calls the function."""
    assert len(documented_errors()) > 20
    unseen = [(f, e) for f, e in documented_errors() if not any(f"FASTGPT_ERR_{e}" in source for source in calls(f))]
    assert unseen == []


def test_options_keep_their_fields() -> None:
    """Fields of a struct that grows by struct_size stay where the committed description of the ABI has them."""
    description = ElementTree.parse(ROOT / "csrc" / "abi" / "fastgpt.xml")
    checked = 0
    for struct in description.iter("class-decl"):
        fields = {field[0].get("name"): int(field.get("layout-offset-in-bits", 0)) for field in struct}
        if "struct_size" in fields:
            now = {name: 8 * field.offset for name, field in ffi.typeof(struct.get("name")).fields}
            assert {name: now.get(name) for name in fields} == fields, struct.get("name")
            checked += 1
    assert checked >= 3
