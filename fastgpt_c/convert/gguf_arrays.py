"""The reader and the writer of the package gguf, but for arrays among the keys: those stay bytes.

The package makes an object or two of each element: 700 times the memory of a list of small numbers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, GGUFValueType, GGUFWriter

# An array is the type of its elements, how many there are, and they.
HEAD = struct.Struct("<IQ")
LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class RawArray:
    """An array of keys as it stands in a file, from the type of its elements to the last of them."""

    content: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, type: GGUFValueType, elements: npt.NDArray[Any]) -> RawArray:
        """elements as they stand in a file."""
        head = np.frombuffer(HEAD.pack(type, len(elements)), np.uint8)
        return cls(np.concatenate([head, elements.view(np.uint8)]))


class ArrayReader(GGUFReader):
    """Of an array field, parts has the RawArray.content alone.  For files that our own reader has found sound."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY:
            parts: tuple[int, list[Any], list[int], list[GGUFValueType]] = super()._get_field_parts(orig_offs, raw_type)
            return parts
        start = int(orig_offs)
        type, n = HEAD.unpack_from(self.data.data, start)
        n_bytes = self._end(start + HEAD.size, type, n) - start
        content = self.data[start : start + n_bytes]
        return n_bytes, [content], [0], [GGUFValueType.ARRAY, GGUFValueType(type)]

    def _end(self, at: int, type: int, n: int) -> int:
        """Where an array of n elements ends whose first one is at that place."""
        if type != GGUFValueType.STRING:
            return at + n * np.dtype(self.gguf_scalar_to_np[GGUFValueType(type)]).itemsize
        data = self.data.data
        for _ in range(n):
            at += LENGTH.size + LENGTH.unpack_from(data, at)[0]
        return at


class ArrayWriter(GGUFWriter):
    """Takes a RawArray as the value of a key."""

    def _pack_val(self, val: Any, vtype: GGUFValueType, *arguments: Any, **options: Any) -> bytes:
        if isinstance(val, RawArray):
            return struct.pack("<I", vtype) + val.content.tobytes()
        packed: bytes = super()._pack_val(val, vtype, *arguments, **options)
        return packed
