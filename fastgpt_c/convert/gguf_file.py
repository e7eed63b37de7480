"""Write a GGUF file of architecture gpt2: its keys, its tensors, and how it reaches the disk.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.  Keys and tensor names are those of
llama.cpp, so that one file runs in both.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from tqdm import tqdm

from fastgpt_c.errors import ModelFileError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

# Values of tokenizer.ggml.token_type.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

DTYPES: dict[str, npt.DTypeLike] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
TENSOR_TYPES = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16, "bf16": GGMLQuantizationType.BF16}
FILE_TYPES = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "bf16": LlamaFileType.MOSTLY_BF16}
WIDER_RANGE = {"f16": "bf16", "bf16": "f32"}


@dataclass(frozen=True)
class Hyperparameters:
    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int
    n_ff: int
    layer_norm_epsilon: float
    bos_token: int | None
    eos_token: int | None


@dataclass(frozen=True)
class Vocabulary:
    """tokens and types [n_vocab] by id, merges ("a b") by rank.

    NORMAL tokens and merges are in GPT-2's byte alphabet; CONTROL and USER_DEFINED tokens are plain text.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]


@dataclass(frozen=True)
class Contents:
    """What goes into one file.  data yields (name, array) once, in the order of shapes, one tensor at a time."""

    name: str
    hparams: Hyperparameters
    vocabulary: Vocabulary | None
    shapes: dict[str, Shape]
    data: Iterator[tuple[str, Array]]


def tensor_shapes(h: Hyperparameters, *, tied: bool) -> Iterator[tuple[str, Shape]]:
    """Every tensor of the file and its shape, in order.  Weights of linear layers are [n_out][n_in]."""
    yield "token_embd.weight", (h.n_vocab, h.n_embd)
    yield "position_embd.weight", (h.n_ctx, h.n_embd)
    for layer in range(h.n_layer):
        for part, n_out, n_in in (
            ("attn_norm", h.n_embd, None),
            ("attn_qkv", 3 * h.n_embd, h.n_embd),
            ("attn_output", h.n_embd, h.n_embd),
            ("ffn_norm", h.n_embd, None),
            ("ffn_up", h.n_ff, h.n_embd),
            ("ffn_down", h.n_embd, h.n_ff),
        ):
            yield f"blk.{layer}.{part}.weight", (n_out,) if n_in is None else (n_out, n_in)
            yield f"blk.{layer}.{part}.bias", (n_out,)
    yield "output_norm.weight", (h.n_embd,)
    yield "output_norm.bias", (h.n_embd,)
    if not tied:
        yield "output.weight", (h.n_vocab, h.n_embd)


def write(target: Path, contents: Contents, *, type: str, progress: bool) -> None:
    """Write contents to target, which appears, or is replaced, only when it is complete.

    Raises ModelFileError for a target that cannot be written, and for numbers that type cannot hold.
    """
    _check_target(target)
    try:
        with _atomically(target) as part, closing(GGUFWriter(part, "gpt2")) as writer:
            _add_keys(writer, contents, type)
            n_bytes = _add_tensor_list(writer, contents.shapes, type)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            with tqdm(total=n_bytes, desc=contents.name, unit="B", unit_scale=True, disable=not progress) as bar:
                for name, array in contents.data:
                    stored = _narrow(name, array, _type_of(name, contents.shapes[name], type))
                    writer.write_tensor_data(stored)
                    bar.update(stored.nbytes)
    except OSError as error:
        raise ModelFileError(f"{target}: cannot be written: {error.strerror or error}") from error


def _check_target(target: Path) -> None:
    """Only a GGUF file may be replaced: not a folder, not a device, not the weights of the checkpoint itself."""
    if not target.parent.is_dir():
        raise ModelFileError(f"{target}: there is no folder {target.parent}")
    if target.is_dir():
        raise ModelFileError(f"{target}: is a folder; give the name of the file to write")
    if target.exists() and not _is_gguf(target):
        raise ModelFileError(f"{target}: exists and is not a GGUF file; delete it or give another name")


def _is_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


@contextmanager
def _atomically(target: Path) -> Iterator[Path]:
    """A temporary sibling of target, which takes its place after the block and vanishes if that fails."""
    part = target.parent / f".fastgpt-c-{secrets.token_hex(8)}.part"
    try:
        yield part
        _flush_to_disk(part, os.O_RDWR)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _flush_to_disk(target.parent, os.O_RDONLY)


def _flush_to_disk(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _add_keys(writer: GGUFWriter, contents: Contents, type: str) -> None:
    h = contents.hparams
    writer.add_name(contents.name)
    writer.add_file_type(FILE_TYPES[type])
    writer.add_block_count(h.n_layer)
    writer.add_context_length(h.n_ctx)
    writer.add_embedding_length(h.n_embd)
    writer.add_feed_forward_length(h.n_ff)
    writer.add_head_count(h.n_head)
    writer.add_layer_norm_eps(h.layer_norm_epsilon)
    _add_vocabulary(writer, contents.vocabulary, h)
    if h.bos_token is not None:
        writer.add_bos_token_id(h.bos_token)
    if h.eos_token is not None:
        writer.add_eos_token_id(h.eos_token)


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary | None, h: Hyperparameters) -> None:
    if vocabulary is None:
        writer.add_tokenizer_model("none")
        writer.add_vocab_size(h.n_vocab)  # llama.cpp takes it from the tokens where there are some
        return
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)


def _add_tensor_list(writer: GGUFWriter, shapes: dict[str, Shape], type: str) -> int:
    """Announces every tensor and returns the bytes of all of them."""
    total = 0
    for name, shape in shapes.items():
        tensor_type = _type_of(name, shape, type)
        dtype = np.dtype(DTYPES[tensor_type])
        n_bytes = math.prod(shape) * dtype.itemsize
        writer.add_tensor_info(name, shape, dtype, n_bytes, raw_dtype=TENSOR_TYPES[tensor_type])
        total += n_bytes
    return total


def _type_of(name: str, shape: Shape, type: str) -> str:
    """As llama.cpp's converter does: only matrices are narrowed, and position embeddings are not."""
    return type if len(shape) == 2 and name != "position_embd.weight" else "f32"


def _narrow(name: str, array: Array, type: str) -> Array:
    """array rounded to the nearest numbers of type.  NaN and infinity are refused: no model works with them."""
    with np.errstate(over="ignore"):
        stored = array.astype(DTYPES[type], copy=False)
    if np.isfinite(stored).all():
        return stored
    if not np.isfinite(array).all():
        raise ModelFileError(f"{name} has NaN or infinite values: the checkpoint is damaged, or its training diverged")
    largest = float(np.abs(array).max())
    raise ModelFileError(f"{name} has values up to {largest:g}, too large for {type}; use {WIDER_RANGE[type]}")
