"""The tensors of a Hugging Face checkpoint, by name, from one file or several: safetensors, or PyTorch's own format.

Only headers are read until a tensor is asked for, and a tensor's file is open only while it is read: a mapping that
stays would count all that was ever read from it as memory of the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes  # noqa: F401 - registers bfloat16, which safetensors needs to read it into NumPy
import numpy as np
from safetensors import SafetensorError, safe_open

from fastgpt_c.convert.gguf_file import Array, Shape
from fastgpt_c.errors import ModelFileError
from fastgpt_c.io.checked_json import read_json, show, some_of

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}  # of safetensors, and ours


class TensorFile(Protocol):
    """A file of named tensors.  info: name -> (shape, type in the words of safetensors)."""

    info: dict[str, tuple[Shape, str]]

    def read(self, name: str, rows: slice) -> Array:
        """The tensor, or some rows of it, as a NumPy array of its own type."""


class SafetensorsFile:
    """https://huggingface.co/docs/safetensors"""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            self.info = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}

    def read(self, name: str, rows: slice) -> Array:
        with self._open() as file:
            try:
                array: Array = file.get_slice(name)[rows]
            except SafetensorError as error:
                raise ModelFileError(f"{self._path}: {name}: {error}") from error
            return array

    def _open(self) -> Any:
        try:
            return safe_open(self._path, framework="np")
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{self._path}: not a sound safetensors file: {error}") from error


class Weights:
    """The tensors without the prefix "transformer.", and without buffers of old versions.  Iterates over the names.

    files: path, what it holds, and which of it to take (None = all).
    """

    def __init__(self, folder: Path, files: Iterable[tuple[Path, TensorFile, set[str] | None]]) -> None:
        self.folder = folder
        self._place: dict[str, tuple[Path, TensorFile, str]] = {}  # name -> path, file, name in it
        for path, file, wanted in files:
            for stored in file.info:
                if wanted is None or stored in wanted:
                    self._add(path, file, stored)
            if wanted is not None and (absent := wanted.difference(file.info)):
                raise ModelFileError(f"{path}: has no {some_of(absent)}, which the index says is here")

    def _add(self, path: Path, file: TensorFile, stored: str) -> None:
        name = stored.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            return  # the causal mask
        if name in self._place:
            raise ModelFileError(f"{path}: has {name} twice, with and without the prefix 'transformer.'")
        self._place[name] = path, file, stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def path(self, name: str) -> Path:
        return self._place[name][0]

    def shape(self, name: str) -> Shape:
        return self._info(name)[0]

    def type(self, name: str) -> str:
        dtype = self._info(name)[1]
        if dtype not in TYPES:
            raise ModelFileError(f"{self.path(name)}: {name} has type {dtype}; implemented are {', '.join(TYPES)}")
        return TYPES[dtype]

    def read(self, name: str, rows: slice = slice(None)) -> Array:
        """The tensor, or some rows of it, as a NumPy array of its own type."""
        _, file, stored = self._place[name]
        return file.read(stored, rows)

    def equal(self, a: str, b: str) -> bool:
        """Whether two matrices of one shape are equal, looked at in blocks of rows to save memory."""
        n_rows = self.shape(a)[0]
        blocks = (slice(row, min(row + 1024, n_rows)) for row in range(0, n_rows, 1024))
        return all(_equal(self.read(a, rows), self.read(b, rows)) for rows in blocks)

    def rename(self, old: str, new: str) -> None:
        self._place[new] = self._place.pop(old)

    def _info(self, name: str) -> tuple[Shape, str]:
        _, file, stored = self._place[name]
        return file.info[stored]


def _equal(a: Array, b: Array) -> bool:
    """By value; of one type also by bits, so that a copy of a NaN equals it."""
    return np.array_equal(a, b) or (a.dtype == b.dtype and a.tobytes() == b.tobytes())


def weights_of(folder: Path) -> Weights:
    """Those of a folder that transformers saved.  Raises ModelFileError."""
    return Weights(folder, ((path, open_tensors(path), wanted) for path, wanted in _weight_files(folder)))


def open_tensors(path: Path) -> TensorFile:
    """A file of safetensors or of PyTorch.  Raises ModelFileError, or MissingExtraError."""
    _check_content(path)
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    from fastgpt_c.convert.torch_file import TorchFile

    return TorchFile(path)


def _check_content(path: Path) -> None:
    """A clone without Git LFS has a small text in place of each large file."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(LFS_POINTER))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file") from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    if begin == LFS_POINTER:
        raise ModelFileError(f"{path}: is only the pointer that Git LFS keeps of the file; fetch it:  git lfs pull")


def _weight_files(folder: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """The files and, for shards, which tensors to take from each; safetensors come first."""
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        single, index = folder / f"{stem}{suffix}", folder / f"{stem}{suffix}.index.json"
        if single.exists():
            yield single, None
            return
        if index.exists():
            yield from _shards(index, f"{stem}-*{suffix}")
            return
    if (folder / "adapter_config.json").exists():
        raise ModelFileError(
            f"{folder}: is an adapter, not a whole model; merge it into the model it was trained on:  "
            f"fastgpt-c convert MODEL_FOLDER --lora {folder} -o FILE"
        )
    raise ModelFileError(f"{folder}: has neither model.safetensors nor pytorch_model.bin")


def _shards(index: Path, pattern: str) -> Iterator[tuple[Path, set[str]]]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(f"{index}: has no weight_map")
    wanted: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or "/" in file or not fnmatchcase(file, pattern):
            raise ModelFileError(f"{index}: {name} is in {show(file)}, not in a file {pattern}")
        wanted.setdefault(file, set()).add(name)
    for file, names in wanted.items():
        yield index.parent / file, names
