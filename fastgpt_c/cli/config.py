"""fastgpt-c config: where compilers and other languages find the C library of this installation."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from fastgpt_c.cli import common
from fastgpt_c.errors import FastGPTError, not_built

EPILOG = """\
examples:
  cc story.c $(fastgpt-c config --cflags --libs) -o story
  eval "cc story.c $(fastgpt-c config --cflags --libs) -o story"
      the same, where the path of the installation has spaces
  cmake -B build -Dfastgpt_DIR="$(fastgpt-c config --cmake-dir)"
"""


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "config",
        help="show how to compile against the C library",
        description="Prints what is asked for, in one line, for the command line of a compiler.",
        epilog=EPILOG,
    )
    for name, (_, what) in ANSWERS.items():
        parser.add_argument(f"--{name}", action="append_const", dest="asked", const=name, help=what)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    if not args.asked:
        args.parser.error("ask for at least one of --" + ", --".join(ANSWERS))
    words = [word for name in args.asked for word in ANSWERS[name][0](_package())]
    print(*words)
    if any(word != "".join(shlex.split(word)) for word in words):
        print(
            "fastgpt-c: the path of this installation has to be quoted, which the shell heeds in: "
            'eval "cc FILE.c $(fastgpt-c config --cflags --libs)"',
            file=sys.stderr,
        )
    return 0


def _package() -> Path:
    """The folder that has include/ and lib/: beside the extension, also where the Python files are elsewhere."""
    spec = importlib.util.find_spec("fastgpt_c._fastgpt")
    if spec is None or spec.origin is None:
        raise not_built()
    return Path(spec.origin).parent


def _library(package: Path) -> Path:
    """libfastgpt.so.N, or libfastgpt.N.dylib."""
    found = [
        file for file in (package / "lib").iterdir() if re.search(r"^libfastgpt\.(so\.\d+|\d+\.dylib)$", file.name)
    ]
    if len(found) != 1:
        raise FastGPTError(f"{package / 'lib'}: expected one libfastgpt, found {len(found)}; install fastgpt-c again")
    return found[0]


def _cflags(package: Path) -> list[str]:
    return [shlex.quote(f"-I{package / 'include'}")]


def _libs(package: Path) -> list[str]:
    """The library by its folder and name; a Mac's wheel has no file that -lfastgpt would find."""
    library = _library(package)
    link = [str(library)] if sys.platform == "darwin" else [f"-L{library.parent}", "-lfastgpt"]
    return [shlex.quote(word) for word in (*link, f"-Wl,-rpath,{library.parent}")]


def _cmake_dir(package: Path) -> list[str]:
    return [str(package / "lib" / "cmake" / "fastgpt")]


def _version(_: Path) -> list[str]:
    import fastgpt_c

    return [fastgpt_c.__version__]


def _demo_model(_: Path) -> list[str]:
    from fastgpt_c.checkpoints import resolve

    return [str(resolve.demo_model())]


ANSWERS: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "cflags": (_cflags, "compiler flags"),
    "libs": (_libs, "linker flags; programs then find the library where it lies now"),
    "cmake-dir": (_cmake_dir, "the folder that find_package(fastgpt) looks for"),
    "library": (lambda package: [str(_library(package))], "the shared library's file, for languages that open it"),
    "demo-model": (_demo_model, "the bundled model's file"),
    "version": (_version, "the version"),
}
