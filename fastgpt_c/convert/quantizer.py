"""Read a GGUF file and write it again with its matrices in another number type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter, ReaderField, ReaderTensor

from fastgpt_c.convert.fingerprint import KEY
from fastgpt_c.convert.gguf_arrays import ArrayReader, RawArray
from fastgpt_c.convert.gguf_file import OURS, Array, Contents, Shape, check_target, narrow, scale_name, type_of, write
from fastgpt_c.engine.model import LoadedModel
from fastgpt_c.errors import ModelFileError
from fastgpt_c.native.dtypes import LINE_VALUES, dequantize_rows, rows_of_tiles

# What the writer sets itself: the type and what follows from it, and where tensors lie.
OWN_KEYS = {
    "general.architecture",
    "general.file_type",
    "general.quantization_version",
    "general.alignment",
    KEY,
}
PLAIN = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class TensorReport:
    """What became of one tensor."""

    name: str
    shape: Shape
    source_type: str
    type: str
    n_bytes: int  # as it is stored now
    rms_error: float  # root of the mean square of what rounding changed
    relative_error: float  # rms_error / root of the mean square of the numbers; 0 for a tensor of zeros


def quantize(source: Path, target: Path, *, type: str, progress: bool) -> list[TensorReport]:
    """See fastgpt_c.convert.quantize."""
    check_target(target, source)
    LoadedModel(source).close()  # our own reader trusts nothing; the package gguf trusts the file
    reader = _open(source)
    quantizer = _Quantizer(source, {tensor.name: tensor for tensor in reader.tensors}, type)
    contents = Contents(
        name=source.name,
        architecture=_architecture(reader),
        add_keys=lambda writer: _copy_keys(reader, writer),
        shapes=quantizer.shapes,
        data=quantizer.data(),
    )
    write(target, contents, type=type, progress=progress, store=quantizer.store)
    return quantizer.reports


class _Quantizer:
    """Gives the tensors of a file in their new types, and keeps account of the errors."""

    def __init__(self, source: Path, tensors: dict[str, ReaderTensor], type: str) -> None:
        self.tensors = tensors
        self.scales = {scale_name(name) for name, tensor in tensors.items() if _type(tensor) == "i8"}
        self.shapes = {name: self._shape(name) for name in tensors if name not in self.scales}
        self.reports: list[TensorReport] = []
        for name, shape in self.shapes.items():
            self._check_source(source, name, type_of(name, shape, type))

    def _check_source(self, source: Path, name: str, type: str) -> None:
        """Blocks may be copied, or widened, which is exact; rounding them again would add a second error."""
        stored = self.source_type(name)
        if stored not in (*PLAIN, type) and type != "f32":
            raise ModelFileError(
                f"{source}: {name} is {stored} already, and rounding it again, to {type}, would add to its error; "
                "start from the file with f32, f16 or bf16"
            )

    def source_type(self, name: str) -> str:
        return _type(self.tensors[name])

    def _shape(self, name: str) -> Shape:
        shape = tuple(map(int, reversed(self.tensors[name].shape)))
        if self.source_type(name) != "i8":
            return shape
        return (int(self.tensors[scale_name(name)].shape[0]), shape[1] * LINE_VALUES)

    def data(self) -> Iterator[tuple[str, Array]]:
        """Tensors in rows of their types."""
        for name in self.shapes:
            data = self.tensors[name].data
            is_tiled = self.source_type(name) == "i8"
            yield name, rows_of_tiles(data, self.tensors[scale_name(name)].data) if is_tiled else data

    def store(self, name: str, array: Array, type: str) -> Array:
        shape, source_type = self.shapes[name], self.source_type(name)
        if source_type == type and type not in PLAIN:
            stored, rms_error, relative_error = array, 0.0, 0.0
        else:
            numbers = dequantize_rows(array, source_type, shape[-1])
            stored = narrow(name, numbers, type)
            rms_error, relative_error = _errors(numbers, stored, type)
        self.reports.append(TensorReport(name, shape, source_type, type, stored.nbytes, rms_error, relative_error))
        return stored


def _errors(numbers: Array, stored: Array, type: str) -> tuple[float, float]:
    """The root mean square of the differences, and its ratio to that of the numbers; in slices, to save memory."""
    n = numbers.shape[-1]
    rows, stored_rows = numbers.reshape(-1, n), stored.reshape(-1, stored.shape[-1])
    difference = total = 0.0
    for start in range(0, len(rows), 1024):
        part = slice(start, start + 1024)
        error = dequantize_rows(stored_rows[part], type, n) - rows[part]
        difference += float(np.sum(np.square(error, dtype=np.float64)))
        total += float(np.sum(np.square(rows[part], dtype=np.float64)))
    return (difference / rows.size) ** 0.5, (difference / total) ** 0.5 if total else 0.0


def _open(source: Path) -> GGUFReader:
    try:
        return ArrayReader(source)
    except (ValueError, KeyError, IndexError) as error:  # for example a name that is not UTF-8
        raise ModelFileError(f"{source}: the package gguf cannot read it: {error}") from error


def _type(tensor: ReaderTensor) -> str:
    return str(tensor.tensor_type.name).lower()


def _architecture(reader: GGUFReader) -> str:
    """fastgpt-gpt2 where the activation is not gpt2's: a file in i8 has that name for its tiles alone."""
    return OURS if f"{OURS}.activation" in reader.fields else "gpt2"


def _copy_keys(reader: GGUFReader, writer: GGUFWriter) -> None:
    """Every key of the file, but for OWN_KEYS and the reader's own GGUF.*; text stays bytes: nothing changes but the
    architecture's name."""
    source = reader.fields["general.architecture"].contents()
    for name, field in reader.fields.items():
        if name in OWN_KEYS or name.startswith("GGUF."):
            continue
        if name.startswith(f"{source}."):
            name = f"{writer.arch}.{name.removeprefix(f'{source}.')}"
        writer.add_key_value(name, _value(field), field.types[0], sub_type=field.types[-1])


def _value(field: ReaderField) -> object:
    if field.types[0] == GGUFValueType.ARRAY:
        return RawArray(field.parts[-1])
    return bytes(field.parts[-1]) if field.types[0] == GGUFValueType.STRING else field.contents()
