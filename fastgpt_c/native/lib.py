"""The compiled library: ffi, lib, and status -> exception.  Nothing else imports the extension."""

from __future__ import annotations

from typing import Any

from fastgpt_c.errors import Cancelled, ContextFullError, FastGPTError, ModelFileError, UsageError, not_built

try:
    from fastgpt_c._fastgpt import ffi, lib
except ModuleNotFoundError as error:
    if error.name != "fastgpt_c._fastgpt":
        raise
    raise not_built() from None

_EXCEPTIONS: dict[int, type[Exception]] = {
    lib.FASTGPT_ERR_MEMORY: MemoryError,
    lib.FASTGPT_ERR_IO: ModelFileError,
    lib.FASTGPT_ERR_FORMAT: ModelFileError,
    lib.FASTGPT_ERR_UNSUPPORTED: ModelFileError,
    lib.FASTGPT_ERR_CONTEXT_FULL: ContextFullError,
    lib.FASTGPT_ERR_CANCELLED: Cancelled,
    lib.FASTGPT_ERR_THREADS: FastGPTError,
    lib.FASTGPT_ERR_NO_TOKEN: ModelFileError,
}


def check(status: int, detail: str = "") -> None:
    """Raises the exception of a status other than OK; detail replaces its general text."""
    if status != lib.FASTGPT_OK:
        text = detail or ffi.string(lib.fastgpt_status_text(status)).decode()
        raise _EXCEPTIONS.get(status, UsageError)(text)


def error_text(error: Any) -> str:
    """The words of a fastgpt_error *."""
    return str(ffi.string(error.text).decode("utf-8", "replace"))


def create(function: Any, *arguments: Any, free: Any, sizeof: Any = None) -> Any:
    """Calls a _create function of the library -> the handle, which is freed with the last reference to it.

    sizeof  tells Python's garbage collector how much memory the handle owns
    """
    out = ffi.new(ffi.getctype(ffi.typeof(function).args[-1].item, "*"))
    check(function(*arguments, out))
    return ffi.gc(out[0], free, size=sizeof(out[0]) if sizeof else 0)


def float_pointer(array: Any) -> Any:
    """float * to a contiguous float32 array that outlives the call."""
    return ffi.from_buffer("float[]", array)


__all__ = ["check", "create", "error_text", "ffi", "float_pointer", "lib"]
