"""The dtypes of weights: quantizes F32 rows to what model files store, and dequantizes them.

Types go by their names in lower case: "f32", "f16", "bf16", "q8_0", "q4_0", and "q4_1", "q5_0", "q5_1", "q4_k",
"q5_k" and "q6_k", which are only read.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.errors import UsageError
from fastgpt_c.native.lib import check, ffi, lib

# By the names of fastgpt.h.
_TYPES = {
    name.removeprefix("FASTGPT_TYPE_").lower(): value
    for value, name in sorted(ffi.typeof("fastgpt_type").elements.items())
}


def row_bytes(type: str, n: int) -> int:
    """Bytes of a row of n values; 0 when n is not a multiple of the type's block (32 for q8_0 and q4_0)."""
    return int(lib.fastgpt_type_row_bytes(type_number(type), n))


def quantize_rows(x: npt.ArrayLike, type: str) -> npt.NDArray[np.uint8]:
    """x [..., n] quantized to type -> bytes [..., row_bytes(type, n)], the same as the package gguf's.

    x is converted to float32 first.  Raises UsageError when rows are not whole blocks of type, for a type that can only
    be dequantized, and for values that are NaN, infinite or too large for type.
    """
    rows = np.ascontiguousarray(x, np.float32)
    *outer, n = rows.shape
    _check_row(type, n)
    out = np.empty((*outer, row_bytes(type, n)), np.uint8)
    check(
        lib.fastgpt_quantize_rows(type_number(type), ffi.from_buffer("float[]", rows), math.prod(outer), n, _void(out))
    )
    return out


def dequantize_rows(data: npt.NDArray[Any], type: str, n: int) -> npt.NDArray[np.float32]:
    """Dequantizes data [..., row_bytes(type, n)], as bytes or a wider dtype of the same bytes -> float32 [..., n].

    Raises UsageError when the rows of data are not n values of type.
    """
    rows = np.ascontiguousarray(data).view(np.uint8)
    *outer, n_bytes = rows.shape
    _check_row(type, n)
    if n_bytes != row_bytes(type, n):
        raise UsageError(f"rows of {n_bytes} bytes are not {n} numbers of type {type}, {row_bytes(type, n)} bytes")
    out = np.empty((*outer, n), np.float32)
    check(
        lib.fastgpt_dequantize_rows(
            type_number(type), _void(rows), math.prod(outer), n, ffi.from_buffer("float[]", out)
        )
    )
    return out


def type_number(type: str) -> int:
    """The fastgpt_type of a name; raises UsageError for an unknown one."""
    if type not in _TYPES:
        raise UsageError(f"type {type!r} is not one of {', '.join(_TYPES)}")
    return int(_TYPES[type])


def type_name(number: int) -> str:
    """The name of a fastgpt_type."""
    return str(ffi.string(lib.fastgpt_type_name(number)).decode().lower())


def _check_row(type: str, n: int) -> None:
    if n > 0 and row_bytes(type, n) == 0:
        raise UsageError(f"rows of {n} numbers are not whole blocks of {type}")


def _void(array: npt.NDArray[np.uint8]) -> Any:
    return ffi.cast("void *", ffi.from_buffer(array))
