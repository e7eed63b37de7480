"""Functions of Python that see and change the values of a site while a step runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgpt_c.engine.sites import Site, site_of
from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import Floats, checked_int, shown
from fastgpt_c.native.lib import ffi, lib


@dataclass(frozen=True)
class HookPoint:
    """Where a hook is called.

    site, layer  as in the key of the hook
    span         which session of the step, counted from 0
    first        position of the first token that it gets, in its sequence
    """

    site: str
    layer: int
    span: int
    first: int


Hook = Callable[[Floats, HookPoint], "Floats | None"]
Hooks = Mapping[tuple[str, int], Hook]


class HookedStep:
    """The hooks of one step: its fastgpt_hook[], and the exception that one of them has raised.

    spans    for each span of the step, which session of the caller's list it is
    n_keys   positions of the longest sequence after the step
    """

    def __init__(self, hooks: Hooks, spans: Sequence[int], shape: tuple[int, int], n_tokens: int, n_keys: int) -> None:
        """shape  n_head and n_embd of the model"""
        self._hooks = [(site_of(site), checked_int("layer", layer), hook) for (site, layer), hook in _items(hooks)]
        self._spans, (self._n_head, self._n_embd) = spans, shape
        self.raised: BaseException | None = None
        self.structs = ffi.new("fastgpt_hook[]", len(self._hooks))
        self._handles, self._buffers = [], []
        for i, (site, layer, _) in enumerate(self._hooks):
            struct, handle = self.structs[i], ffi.new_handle((self, i))
            self._handles.append(handle)
            struct.site, struct.layer = site.number, layer
            struct.callback, struct.user = lib.call_python_hook, handle
            if site.kind == "keys":
                self._buffers.append(ffi.new("float[]", self._n_head * n_tokens * n_keys))
                struct.buffer, struct.n_keys = self._buffers[-1], n_keys

    def call(self, i: int, values: Any) -> int:
        """Calls hook i; 1 if it has raised an exception."""
        site, layer, hook = self._hooks[i]
        try:
            memory = self._memory(site, values)
            array = memory.copy()
            changed = hook(array, HookPoint(site.name, layer, self._spans[values.span], values.first))
            memory[...] = _checked(array if changed is None else changed, array.shape, site)
        except BaseException as error:  # there is no Python frame above that could catch it
            self.raised = error
            return 1
        return 0

    def _memory(self, site: Site, values: Any) -> Floats:
        """The library's own memory of the values, which is there during the call alone."""
        if site.kind == "keys":
            shape = (values.n_rows, values.n_tokens, values.width)
            strides = (4 * values.ld_head, 4 * values.ld, 4)
        elif site.kind == "heads":
            width = self._n_embd // self._n_head
            shape, strides = (values.n_tokens, self._n_head, width), (4 * values.ld, 4 * width, 4)
        else:
            return self._rows(values, (values.n_tokens, values.width), (4 * values.ld, 4))
        return self._rows(values, shape, strides)

    @staticmethod
    def _rows(values: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Floats:
        n_bytes = 4 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        rows: Floats = np.ndarray(shape, np.float32, ffi.buffer(values.values, n_bytes), strides=strides)
        return rows


def _items(hooks: Hooks) -> list[tuple[tuple[str, int], Hook]]:
    if not isinstance(hooks, Mapping):
        raise UsageError(f"hooks is {shown(hooks)}, not a dict such as {{('resid_pre', 3): function}}")
    for key, hook in hooks.items():
        if not isinstance(key, tuple) or len(key) != 2:
            raise UsageError(f"hooks has the key {shown(key)}, not a site and a layer such as ('resid_pre', 3)")
        if not callable(hook):
            raise UsageError(f"the hook of {shown(key)} is {shown(hook)}, not a function")
    return list(hooks.items())


def _checked(changed: object, shape: tuple[int, ...], site: Site) -> Floats:
    try:
        array = np.asarray(changed, np.float32)
    except (ValueError, TypeError, OverflowError):
        raise UsageError(f"the hook of {site.name} returned {shown(changed)}, not an array of numbers") from None
    if array.shape != shape:
        raise UsageError(f"the hook of {site.name} returned the shape {array.shape}, not {shape}")
    if np.isnan(array).any():
        raise UsageError(f"the hook of {site.name} returned NaN")
    return array


def _call(user: Any, values: Any) -> int:
    step, i = ffi.from_handle(user)
    return int(step.call(i, values))


# An exception outside of call's own "try" ends the step, too.
ffi.def_extern(name="call_python_hook", error=1)(_call)
