"""Writes the C source of the extension ``fastgpt_c._fastgpt`` from the public header and its own few functions.

    python build_ffi.py csrc/include/fastgpt.h csrc/extension/guard.h _fastgpt.c

The headers are the only list of declarations.  cffi reads the part between the two marks below; the C compiler
then checks every one of them against the real header (cffi's API mode).
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

# What C calls in Python: fastgpt_c/engine/hooks.py.
CALLBACKS = """extern "Python" int32_t call_python_hook(void *user, const fastgpt_hook_values *values);"""

BEGIN, END = "/* cdef:begin */", "/* cdef:end */"


def declarations(header: Path) -> str:
    """The part of the header that is written in cffi's subset of C."""
    text = header.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{header}: expected {BEGIN} and {END}, each once")
    return text.partition(BEGIN)[2].partition(END)[0]


def make_ffi(*headers: Path) -> FFI:
    """An FFI that knows all of the headers' declarations, not compiled yet."""
    ffi = FFI()
    for header in headers:
        ffi.cdef(declarations(header))
    ffi.cdef(CALLBACKS)
    ffi.set_source("fastgpt_c._fastgpt", "".join(f"#include <{header.name}>\n" for header in headers))
    return ffi


def main(arguments: list[str]) -> None:
    """``build_ffi.py HEADER... OUTPUT.c``"""
    if len(arguments) < 2:
        raise SystemExit(main.__doc__)
    *headers, output = arguments
    make_ffi(*map(Path, headers)).emit_c_code(output)


if __name__ == "__main__":
    main(sys.argv[1:])
