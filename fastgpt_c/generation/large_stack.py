"""Calls in a thread with a large stack, for native code that recurses: a stack overflow would end the process."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from typing import TypeVar

from fastgpt_c.errors import FastGPTError

Result = TypeVar("Result")

_UNIT = 1 << 20  # every system takes multiples of it
_stack_size = threading.Lock()  # threading.stack_size is one setting for the whole process


def call_with_stack(n_bytes: int, function: Callable[[], Result]) -> Result:
    """Calls function in a thread with a stack of at least n_bytes; returns what it returns, raises what it raises.

    Where the system refuses such a thread, function runs in the main thread if that has a stack twice as large.
    Raises FastGPTError where neither is possible.
    """
    outcome: list[Result] = []
    errors: list[BaseException] = []

    def call_function() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # Rust panics derive from BaseException
            errors.append(error)

    thread = threading.Thread(target=call_function, daemon=True)
    try:
        _start_thread(thread, -(-n_bytes // _UNIT) * _UNIT)
    except (RuntimeError, ValueError) as error:
        if not _main_thread_has(2 * n_bytes):
            raise FastGPTError(f"no thread with a stack of {n_bytes:,} bytes: {error}") from error
        return function()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


def _start_thread(thread: threading.Thread, n_bytes: int) -> None:
    with _stack_size:
        usual = threading.stack_size(n_bytes)
        try:
            thread.start()
        finally:
            threading.stack_size(usual)


def _main_thread_has(n_bytes: int) -> bool:
    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return threading.current_thread() is threading.main_thread() and (
        limit == resource.RLIM_INFINITY or limit >= n_bytes
    )
