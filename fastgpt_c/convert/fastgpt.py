"""Read the model files of fastGPT (https://github.com/certik/fastGPT): model.gguf, version 2, and model.dat, version 1.

Both hold twelve 32-bit integers, the first of them MARK, and then the same arrays in the same order, the layers of each
one after the other.  In model.dat they follow each other from the first byte on.  model.gguf has them from the place
that stands under its first key on, each at a multiple of 32 bytes; its own table of tensors tells nothing more.
"""

from __future__ import annotations

import math
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.convert import huggingface
from fastgpt_c.convert.config import openai_config
from fastgpt_c.convert.gguf_file import Array, Contents, Shape
from fastgpt_c.convert.huggingface_tokenizer import DEFAULT_SPECIAL, openai_vocabulary
from fastgpt_c.convert.weights import Weights
from fastgpt_c.errors import ModelFileError
from fastgpt_c.tokenizers.bpe_python import BYTE_TO_CHARACTER

MARK = 0xFA51697  # "fastGPT", as far as digits can spell it
HEADER = struct.Struct("<12i")  # MARK, version, SIZES
LENGTHS = ("n_decoder_idx", "n_decoder_txt", "n_vocab_idx", "n_vocab_txt", "n_byte_encoder")
SIZES = ("n_vocab", "n_ctx", "n_embd", "n_layer", "n_head", *LENGTHS)
# Magic, version, two counts; the first key: its length, text, type and number, the place of HEADER.
GGUF_START = struct.Struct("<4sIQQQ19sIi")
PLACE_KEY = b"general.data_offset"
# Version -> what each array's place is a multiple of.
ALIGNMENT = {1: 1, 2: 32}

# Arrays of all layers -> transformers' tensors.
OF_LAYERS = {
    "mlp_fc_w": "mlp.c_fc.weight",
    "mlp_fc_b": "mlp.c_fc.bias",
    "mlp_proj_w": "mlp.c_proj.weight",
    "mlp_proj_b": "mlp.c_proj.bias",
    "attn_w": "attn.c_attn.weight",
    "attn_b": "attn.c_attn.bias",
    "attn_proj_w": "attn.c_proj.weight",
    "attn_proj_b": "attn.c_proj.bias",
    "ln1_b": "ln_1.bias",
    "ln1_g": "ln_1.weight",
    "ln2_b": "ln_2.bias",
    "ln2_g": "ln_2.weight",
}
OF_MODEL = {"wte": "wte.weight", "wpe": "wpe.weight", "lnf_b": "ln_f.bias", "lnf_g": "ln_f.weight"}


def is_model(path: Path) -> bool:
    try:
        return path.is_file() and _find_header(path) is not None
    except OSError:
        return False


def read(path: Path) -> Contents:
    """The model in the file path, everything checked but the tensors' numbers, which are read as data is drawn."""
    file = FastGPTFile(path)
    tokens = file.texts("decoder_idx", "decoder_txt")
    end = tokens.index(DEFAULT_SPECIAL) if DEFAULT_SPECIAL in tokens else None
    config = openai_config(file.sizes, path, end)
    weights = Weights(path, [(path, file, None)])
    shapes = huggingface.checked_shapes(config, weights)
    if [chr(point) for point in file.array("byte_encoder", np.uint16)] != BYTE_TO_CHARACTER:
        raise ModelFileError(f"{path}: byte_encoder is not GPT-2's alphabet of bytes")
    vocabulary = openai_vocabulary(path, tokens, file.texts("vocab_idx", "vocab_txt"), config.hparams.n_vocab)
    return huggingface.contents_of(config, weights, shapes, vocabulary)


class FastGPTFile:
    """sizes: SIZES of the header.  See weights.TensorFile for info and read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        header = _find_header(path)
        if header is None:
            raise ModelFileError(f"{path}: is not a model of fastGPT")
        start, (_, version, *numbers) = header
        self.sizes = dict(zip(SIZES, numbers, strict=True))
        if version not in ALIGNMENT:
            raise ModelFileError(f"{path}: has version {version} of fastGPT's format; 1 and 2 are implemented")
        if min(numbers) < 0:
            raise ModelFileError(f"{path}: a size is negative: {self.sizes}")
        self._shapes = _shapes(self.sizes)
        self._places = self._find_places(start, ALIGNMENT[version])
        self.info: dict[str, tuple[Shape, str]] = {}
        self._tensors: dict[str, int] = {}  # name -> place
        self._name_tensors()

    def _find_places(self, start: int, alignment: int) -> dict[str, int]:
        """Where each array begins.  The last one must end where the file does."""
        places, end = {}, start + HEADER.size
        for name, shape in self._shapes.items():
            places[name] = -(-end // alignment) * alignment
            end = places[name] + math.prod(shape) * (1 if name.endswith("_txt") else 4)
        n_bytes = self._path.stat().st_size
        if not end <= n_bytes < end + alignment:
            raise ModelFileError(f"{self._path}: has {n_bytes:,} bytes, but its header implies {end:,}")
        return places

    def _name_tensors(self) -> None:
        for array, name in OF_MODEL.items():
            self._tensors[name], self.info[name] = self._places[array], (self._shapes[array], "F32")
        for layer in range(self.sizes["n_layer"]):
            for array, part in OF_LAYERS.items():
                name, shape = f"h.{layer}.{part}", self._shapes[array][1:]
                self._tensors[name] = self._places[array] + 4 * layer * math.prod(shape)
                self.info[name] = shape, "F32"

    def read(self, name: str, rows: slice) -> Array:
        shape = self.info[name][0]
        return self._numbers(self._tensors[name], math.prod(shape), np.float32).reshape(shape)[rows]

    def array(self, name: str, type: npt.DTypeLike) -> Array:
        """One of the last five arrays: integers, or bytes, as type."""
        stored = np.uint8 if name.endswith("_txt") else np.int32
        return self._numbers(self._places[name], math.prod(self._shapes[name]), stored).astype(type)

    def texts(self, index: str, text: str) -> list[str]:
        """Texts that stand end to end; index says where each begins and the last one ends."""
        ends, data = self.array(index, np.int64), self.array(text, np.uint8).tobytes()
        if len(ends) == 0 or ends[0] != 0 or ends[-1] != len(data) or (np.diff(ends) < 0).any():
            raise ModelFileError(f"{self._path}: {index} does not cut {text} into texts")
        try:
            return [data[a:b].decode() for a, b in pairwise(ends)]
        except UnicodeDecodeError as error:
            raise ModelFileError(f"{self._path}: {text} is not UTF-8: {error}") from error

    def _numbers(self, place: int, n: int, type: Any) -> Array:
        try:
            with self._path.open("rb") as file:
                file.seek(place)
                numbers = np.fromfile(file, type, n)
        except OSError as error:
            raise ModelFileError(f"{self._path}: cannot be read: {error.strerror}") from error
        if len(numbers) != n:
            raise ModelFileError(f"{self._path}: became shorter while it was read")
        return numbers


def _find_header(path: Path) -> tuple[int, tuple[int, ...]] | None:
    """Place and numbers of the header; None for a file without."""
    with path.open("rb") as file:
        place = _place_in_gguf(file.read(GGUF_START.size))
        file.seek(place)
        data = file.read(HEADER.size)
    numbers = HEADER.unpack(data) if len(data) == HEADER.size else (0,)
    return (place, numbers) if numbers[0] == MARK else None


def _place_in_gguf(data: bytes) -> int:
    """What stands under the first key of a GGUF file that fastGPT wrote; 0 for any other file."""
    if len(data) < GGUF_START.size:
        return 0
    magic, _, _, _, _, key, _, place = GGUF_START.unpack(data)
    return max(place, 0) if (magic, key) == (b"GGUF", PLACE_KEY) else 0


def _shapes(sizes: dict[str, int]) -> dict[str, Shape]:
    """Every array, in the order of the file.  Matrices are [n_in][n_out]."""
    n, layers = sizes["n_embd"], sizes["n_layer"]
    parts = {"mlp_fc": (n, 4 * n), "mlp_proj": (4 * n, n), "attn": (n, 3 * n), "attn_proj": (n, n)}
    shapes: dict[str, Shape] = {"wte": (sizes["n_vocab"], n), "wpe": (sizes["n_ctx"], n)}
    for part, (n_in, n_out) in parts.items():
        shapes |= {f"{part}_w": (layers, n_in, n_out), f"{part}_b": (layers, n_out)}
    shapes |= dict.fromkeys(("ln1_b", "ln1_g", "ln2_b", "ln2_g"), (layers, n)) | {"lnf_b": (n,), "lnf_g": (n,)}
    return shapes | {name.removeprefix("n_"): (sizes[name],) for name in LENGTHS}
