"""What tests of conversions share: reading what was written, and failures half way."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from fastgpt_c.errors import ModelFileError

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def read_value(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def keys_of(reader: GGUFReader) -> set[str]:
    return {key for key in reader.fields if not key.startswith("GGUF.")}


@contextmanager
def interrupted(source: Path) -> Iterator[type[BaseException]]:
    """Ctrl-C when the 20th tensor has been written."""
    write, n_written = GGUFWriter.write_tensor_data, count(1)

    def write_or_stop(self: GGUFWriter, tensor: np.ndarray) -> None:
        write(self, tensor)
        if next(n_written) == 20:
            raise KeyboardInterrupt

    with patch.object(GGUFWriter, "write_tensor_data", write_or_stop):
        yield KeyboardInterrupt


@contextmanager
def disk_full(source: Path) -> Iterator[type[BaseException]]:
    """The system refuses to let a file grow beyond 100 kB, about two thirds of what is needed."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        yield ModelFileError
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def by_gguf(x: Floats, type: str) -> Bytes:
    with np.errstate(all="ignore"):  # inverses of tiny scales overflow
        data = gguf.quants.quantize(x, GGMLQuantizationType[type.upper()])
    return np.ascontiguousarray(data).view(np.uint8)


def back_by_gguf(data: Bytes, type: str) -> Floats:
    with np.errstate(all="ignore"):  # random bytes hold scales that are NaN
        return gguf.quants.dequantize(
            data.view(np.float16) if type == "f16" else data, GGMLQuantizationType[type.upper()]
        )
