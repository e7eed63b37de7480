"""Calls in a thread with a large stack, for native code that recurses: a stack that overflows ends the process."""

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
    """What function returns, or the exception that it raises, from a thread with a stack of n_bytes or more.

    Where the system gives no such thread, the main thread calls it itself if its stack is twice as large.
    Raises FastGPTError where neither is possible.
    """
    outcome: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # panics of Rust are no Exception
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    try:
        _start(thread, -(-n_bytes // _UNIT) * _UNIT)
    except (RuntimeError, ValueError) as error:
        if not _main_thread_has(2 * n_bytes):
            raise FastGPTError(f"no thread with a stack of {n_bytes:,} bytes: {error}") from error
        return function()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


def _start(thread: threading.Thread, n_bytes: int) -> None:
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
