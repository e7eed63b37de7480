"""The dtypes of weights: quantizes F32 rows to what model files store, and dequantizes them.

Types go by their names in lower case: "f32", "f16", "bf16", "q8_0", "q4_0", "i8", and "q4_1", "q5_0", "q5_1", "q4_k",
"q5_k" and "q6_k", which are only read.

A row of i8 is n bytes q + 128 and its scale d as f32, w = d * q with |q| <= 127.  Files have the bytes of sixteen rows
interleaved (tiles_of_rows), and the scales in a tensor of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


# Of tiles of i8: rows of one; values of a row that stand next to each other; what row lengths are multiples of, and
# their limit.
TILE_ROWS, LINE_VALUES, I8_BLOCK, I8_MAX_VALUES = 16, 4, 64, 65536
_CHUNK = 1024  # rows that are converted at a time, to save memory


def row_bytes(type: str, n: int) -> int:
    """Bytes of a row of n values; 0 when n is not a multiple of the type's block (32 for q8_0 and q4_0, 64 for i8)."""
    if type == "i8":
        return n + 4 if n % I8_BLOCK == 0 and 0 < n <= I8_MAX_VALUES else 0
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
    if type == "i8":
        _quantize_i8(rows.reshape(-1, n), out.reshape(-1, n + 4))
        return out
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
    if type == "i8":
        _dequantize_i8(rows.reshape(-1, n + 4), out.reshape(-1, n))
        return out
    check(
        lib.fastgpt_dequantize_rows(
            type_number(type), _void(rows), math.prod(outer), n, ffi.from_buffer("float[]", out)
        )
    )
    return out


def dequantize_kv_rows(data: npt.NDArray[np.uint8], type: str, n: int) -> npt.NDArray[np.float32]:
    """Rows of a KV cache [rows][row_bytes(type, n)] -> float32 [rows][n].  Those of q8_0 have n integers, and then the
    float16 scales of each 32 of them."""
    if type != "q8_0":
        return dequantize_rows(data, type, n)
    integers = data[:, :n].view(np.int8).reshape(len(data), n // 32, 32).astype(np.float32)
    scales = np.ascontiguousarray(data[:, n:]).view(np.float16).astype(np.float32)
    return np.asarray((integers * scales[:, :, None]).reshape(len(data), n), np.float32)


def _quantize_i8(rows: npt.NDArray[np.float32], out: npt.NDArray[np.uint8]) -> None:
    """d = (largest of the row) / 127, q to the nearest, ties to even."""
    n = rows.shape[1]
    for start in range(0, len(rows), _CHUNK):
        part, to = rows[start : start + _CHUNK], out[start : start + _CHUNK]
        largest = np.abs(part).max(axis=1, keepdims=True)
        if not np.isfinite(largest).all():
            raise UsageError("a number is NaN or infinite")
        with np.errstate(over="ignore"):
            inverse = np.float32(127) / np.where(largest > 0, largest, np.float32(1))
        inverse[~np.isfinite(inverse)] = 0  # so small that the scale has no meaning
        to[:, :n] = (np.rint(part * inverse) + np.float32(128)).astype(np.uint8)
        to[:, n:] = np.ascontiguousarray(largest / np.float32(127)).view(np.uint8)


def _dequantize_i8(rows: npt.NDArray[np.uint8], out: npt.NDArray[np.float32]) -> None:
    n = out.shape[1]
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        scales = np.ascontiguousarray(part[:, n:]).view(np.float32)
        out[start : start + _CHUNK] = (part[:, :n].astype(np.float32) - np.float32(128)) * scales


def tiles_of_rows(rows: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """rows of i8 [n_rows][n + 4] -> tiles [n_rows / 16, rounded up][n / 4][64] and scales [n_rows], as files have them.

    A line of 64 bytes has four values of each of sixteen rows; rows beyond the last are zeros.
    """
    n_rows, n = rows.shape[0], rows.shape[1] - 4
    n_tiles = -(-n_rows // TILE_ROWS)
    whole = np.full((n_tiles * TILE_ROWS, n), 128, np.uint8)
    whole[:n_rows] = rows[:, :n]
    tiles = whole.reshape(n_tiles, TILE_ROWS, n // LINE_VALUES, LINE_VALUES).swapaxes(1, 2)
    scales = np.ascontiguousarray(rows[:, n:]).view(np.float32).reshape(n_rows)
    return np.ascontiguousarray(tiles).reshape(n_tiles, n // LINE_VALUES, TILE_ROWS * LINE_VALUES), scales


def rows_of_tiles(
    tiles: npt.NDArray[Any], scales: npt.NDArray[np.float32], rows: Sequence[int] | None = None
) -> npt.NDArray[np.uint8]:
    """The way back; rows: only these."""
    n_tiles, n_lines, _ = tiles.shape
    lines = tiles.view(np.uint8).reshape(n_tiles, n_lines, TILE_ROWS, LINE_VALUES)
    if rows is None:
        values = lines.swapaxes(1, 2).reshape(n_tiles * TILE_ROWS, n_lines * LINE_VALUES)[: len(scales)]
    else:
        wanted = np.asarray(rows, np.int64)
        values = lines[wanted // TILE_ROWS, :, wanted % TILE_ROWS].reshape(len(wanted), n_lines * LINE_VALUES)
        scales = scales[wanted]
    return np.concatenate([values, np.ascontiguousarray(scales, np.float32).reshape(-1, 1).view(np.uint8)], axis=1)


def type_number(type: str) -> int:
    """The fastgpt_type of a name; raises UsageError for an unknown one."""
    if type not in _TYPES:
        raise UsageError(f"type {type!r} is not one of {', '.join(_TYPES)}")
    return int(_TYPES[type])


def kv_type_number(model: Any, kv_type: str) -> int:
    """The fastgpt_type of a KV cache of model, a fastgpt_model *; "auto" is what the library recommends."""
    return int(lib.fastgpt_model_kv_type(model)) if kv_type == "auto" else type_number(kv_type)


def type_name(number: int) -> str:
    """The name of a fastgpt_type."""
    return str(ffi.string(lib.fastgpt_type_name(number)).decode().lower())


def _check_row(type: str, n: int) -> None:
    if n > 0 and row_bytes(type, n) == 0:
        raise UsageError(f"rows of {n} numbers are not whole blocks of {type}")


def _void(array: npt.NDArray[np.uint8]) -> Any:
    return ffi.cast("void *", ffi.from_buffer(array))
