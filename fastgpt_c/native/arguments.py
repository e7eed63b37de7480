"""What callers give -> what the library takes: checked once, with an error that names what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.errors import UsageError

Tokens = Sequence[int] | npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

KV_TYPES = ("f32", "f16", "bf16")


def checked_int(name: str, value: int, least: int = -(2**31), most: int = 2**31 - 1) -> int:
    """value as a C int32_t; raises UsageError where it is none, or outside [least, most]."""
    try:
        number = value.__index__()
    except AttributeError:
        raise UsageError(f"{name} is {value!r}, not an integer") from None
    if not least <= number <= most:
        raise UsageError(f"{name} is {number}, not in [{least}, {most}]")
    return number


def check_kv_type(kv_type: str) -> None:
    if kv_type not in KV_TYPES:
        raise UsageError(f"kv_type is {kv_type!r}; it must be one of {', '.join(KV_TYPES)}")


def checked_n_threads(n_threads: int | None) -> int:
    """As fastgpt_pool_create takes it, 0 for None: the usable cores."""
    return checked_int("n_threads", n_threads or 0, 0, 1024)


def token_array(tokens: Tokens) -> npt.NDArray[np.int32]:
    """Tokens as a contiguous int32 array [n_tokens]; raises UsageError for anything but a row of integers."""
    array = np.asarray(tokens)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UsageError(f"tokens must be a row of integers, not {array.dtype} of shape {array.shape}")
    limits = np.iinfo(np.int32)
    if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
        raise UsageError("a token is outside [0, n_vocab)")
    return np.ascontiguousarray(array, np.int32)
