"""Writes the C source of the extension ``fastgpt_c._fastgpt`` from the public header.

    python build_ffi.py csrc/include/fastgpt.h _fastgpt.c

The header is the only list of declarations.  cffi reads the part between the two marks below; the C compiler
then checks every one of them against the real header (cffi's API mode).
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

BEGIN, END = "/* cdef:begin */", "/* cdef:end */"


def declarations(header: Path) -> str:
    """The part of the header that is written in cffi's subset of C."""
    text = header.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{header}: expected {BEGIN} and {END}, each once")
    return text.partition(BEGIN)[2].partition(END)[0]


def make_ffi(header: Path) -> FFI:
    """An FFI that knows all of the header's declarations, not compiled yet."""
    ffi = FFI()
    ffi.cdef(declarations(header))
    ffi.set_source("fastgpt_c._fastgpt", f"#include <{header.name}>")
    return ffi


def main(arguments: list[str]) -> None:
    """``build_ffi.py HEADER OUTPUT.c``"""
    if len(arguments) != 2:
        raise SystemExit(main.__doc__)
    header, output = arguments
    make_ffi(Path(header)).emit_c_code(output)


if __name__ == "__main__":
    main(sys.argv[1:])
