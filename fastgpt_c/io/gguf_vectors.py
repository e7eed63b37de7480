"""GGUF files of a few named F32 vectors: strict about what is read, since files are anybody's.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastgpt_c.errors import FastGPTError, ModelFileError
from fastgpt_c.io.atomic_files import atomically

Value = str | int
Vectors = dict[str, npt.NDArray[np.float32]]

MAGIC, VERSION, ALIGNMENT, F32 = b"GGUF", 3, 32, 0
STRING, ARRAY, UINT32 = 8, 9, 4
# struct's letters of the types of metadata values that are numbers.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
MAX_BYTES = 1 << 30  # of a file: 16 times the control vector of the largest model there is
MAX_ENTRIES = 1 << 16


@dataclass
class _Reader:
    path: Path
    data: bytes
    at: int = 0
    values: dict[str, Value] = field(default_factory=dict)

    def fail(self, why: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: {why}")

    def take(self, n: int) -> bytes:
        if n < 0 or n > len(self.data) - self.at:
            raise self.fail("the file ends early: it is damaged, or not whole")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, letter: str) -> int | float:
        value: int | float = struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0]
        return value

    def count(self, what: str) -> int:
        n = int(self.number("Q"))
        if n > MAX_ENTRIES:
            raise self.fail(f"it has {n} {what}, too many")
        return n

    def text(self) -> str:
        try:
            return self.take(int(self.number("Q"))).decode()
        except UnicodeDecodeError:
            raise self.fail("it has a name or text that is not UTF-8") from None

    def skip_array(self, key: str) -> None:
        kind, n = int(self.number("I")), int(self.number("Q"))
        if kind in NUMBERS:
            self.take(n * struct.calcsize("<" + NUMBERS[kind]))
        elif kind == STRING and n <= len(self.data) // 8:
            for _ in range(n):
                self.take(int(self.number("Q")))
        else:
            raise self.fail(f"key {key!r} has an array of type {kind}, which is unknown")

    def read_values(self, n: int) -> None:
        for _ in range(n):
            key, kind = self.text(), int(self.number("I"))
            if key in self.values:
                raise self.fail(f"key {key!r} stands twice")
            if kind == STRING:
                self.values[key] = self.text()
            elif kind == ARRAY:
                self.skip_array(key)
            elif kind in NUMBERS:
                value = self.number(NUMBERS[kind])
                if isinstance(value, int):
                    self.values[key] = value
            else:
                raise self.fail(f"key {key!r} has the type {kind}, which is unknown")

    def read_infos(self, n: int) -> dict[str, tuple[int, int]]:
        """name -> number of values, and where they are from the beginning of the data."""
        infos: dict[str, tuple[int, int]] = {}
        for _ in range(n):
            name, rank = self.text(), int(self.number("I"))
            if not 1 <= rank <= 4:
                raise self.fail(f"tensor {name!r} has {rank} dimensions")
            shape = [int(self.number("Q")) for _ in range(rank)]
            kind, offset = int(self.number("I")), int(self.number("Q"))
            if kind != F32 or any(size != 1 for size in shape[1:]):
                raise self.fail(f"tensor {name!r} is not a vector of F32")
            if name in infos:
                raise self.fail(f"tensor {name!r} stands twice")
            infos[name] = (shape[0], offset)
        return infos


def read_vectors(path: Path) -> tuple[dict[str, Value], Vectors]:
    """Texts and integers among the keys, and the vectors.

    Raises ModelFileError, which names the file and what is wrong with it: unreadable, cut, not GGUF, another type than
    F32, a name that stands twice, numbers that are not finite.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path}: is too large for a file of vectors")
        reader = _Reader(path, path.read_bytes())
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    if reader.data[:4] != MAGIC:
        raise reader.fail("is not a GGUF file")
    reader.take(4)
    if (version := int(reader.number("I"))) != VERSION:
        raise reader.fail(f"is GGUF of version {version}; 3 is implemented")
    n_tensors, n_values = reader.count("tensors"), reader.count("keys")
    reader.read_values(n_values)
    infos = reader.read_infos(n_tensors)
    alignment = reader.values.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 16:
        raise reader.fail(f"key 'general.alignment' is {alignment!r}")
    begin = -(-reader.at // alignment) * alignment
    return reader.values, {name: _vector(reader, name, begin + at, n) for name, (n, at) in infos.items()}


def _vector(reader: _Reader, name: str, at: int, n: int) -> npt.NDArray[np.float32]:
    if n < 1 or at + 4 * n > len(reader.data):
        raise reader.fail(f"tensor {name!r} reaches beyond the end of the file")
    vector = np.frombuffer(reader.data, "<f4", n, at).astype(np.float32)
    if not np.isfinite(vector).all():
        raise reader.fail(f"tensor {name!r} has numbers that are not finite")
    return vector


def write_vectors(path: Path, values: Mapping[str, Value], vectors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Writes a file, complete or not at all.  Raises FastGPTError where it cannot be written."""
    head = [MAGIC, struct.pack("<IQQ", VERSION, len(vectors), len(values))]
    for key, value in values.items():
        head.append(_text(key))
        number = isinstance(value, int)
        head.append(struct.pack("<II", UINT32, value) if number else struct.pack("<I", STRING) + _text(str(value)))
    offset = 0
    for name, vector in vectors.items():
        head.append(_text(name) + struct.pack("<IQIQ", 1, len(vector), F32, offset))
        offset += math.ceil(vector.nbytes / ALIGNMENT) * ALIGNMENT
    try:
        _write(path, b"".join(head), vectors)
    except OSError as error:
        raise FastGPTError(f"{path}: cannot be written: {error.strerror}") from error


def _write(path: Path, head: bytes, vectors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    with atomically(path) as part:
        part.write_bytes(_padded(head) + b"".join(_padded(v.astype("<f4").tobytes()) for v in vectors.values()))


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
