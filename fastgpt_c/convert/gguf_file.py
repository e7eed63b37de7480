"""Write a GGUF file of a GPT-2: its keys, its tensors, and how it reaches the disk.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.  Keys and tensor names are those of
llama.cpp, so that one file runs in both.  A model with another activation than gpt2's gets the architecture
fastgpt-gpt2 and a key of ours, so that llama.cpp refuses it instead of running it wrong; so does one in i8, whose
matrices are tiles, each with a tensor of scales beside it (native/dtypes.py).
"""

from __future__ import annotations

import math
import mmap
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFValueType, GGUFWriter, Keys, LlamaFileType
from tqdm import tqdm

from fastgpt_c.convert.fingerprint import KEY, Fingerprint
from fastgpt_c.convert.gguf_arrays import ArrayWriter, RawArray
from fastgpt_c.errors import FastGPTError, ModelFileError, UsageError
from fastgpt_c.io.atomic_files import atomically, check_output, is_model, is_stream
from fastgpt_c.native.dtypes import LINE_VALUES, TILE_ROWS, quantize_rows, row_bytes, tiles_of_rows
from fastgpt_c.tokenizers import NORMALIZED_TOKENS

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

# Further tokens that end a text, beyond those that llama.cpp has keys for.
EOS_TOKENS_KEY = "fastgpt.eos_token_ids"

# Values of tokenizer.ggml.token_type.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

# The architecture of files that llama.cpp is to refuse.
OURS = "fastgpt-gpt2"
LINE_BYTES = TILE_ROWS * LINE_VALUES

FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
}


@dataclass(frozen=True)
class Hyperparameters:
    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int
    n_ff: int
    layer_norm_epsilon: float
    activation: str  # gelu_tanh, gelu_erf, relu or silu
    bos_token: int | None
    eos_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Vocabulary:
    """tokens and types [n_vocab] by id, merges ("a b") by rank.

    NORMAL tokens and merges are in GPT-2's byte alphabet; CONTROL and USER_DEFINED tokens are plain text.
    normalized: ids of those CONTROL and USER_DEFINED tokens that are cut out of a text after the others, as in the
    library `tokenizers`; None = the USER_DEFINED ones.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    normalized: list[int] | None = None


@dataclass(frozen=True)
class StoredTokenizer:
    """A tokenizer that a library runs: what to store under which keys."""

    values: dict[str, str | bytes]


@dataclass(frozen=True)
class Contents:
    """What goes into one file: its keys but for the fingerprint and those that name the type, and its tensors.

    data yields (name, array) once, in the order of shapes, one tensor at a time.
    architecture is that of every type but i8.
    notes say what the user should know of this conversion, a sentence each.
    """

    name: str
    architecture: str
    add_keys: Callable[[GGUFWriter], None]
    shapes: dict[str, Shape]
    data: Iterator[tuple[str, Array]]
    notes: list[str] = field(default_factory=list)


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


def write(
    target: Path,
    contents: Contents,
    *,
    type: str,
    progress: bool,
    store: Callable[[str, Array, str], Array] | None = None,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write contents to target, which appears, or is replaced, only when it is complete.
    store(name, array, type) gives the bytes of a tensor; usually narrow does.  check(path) raises where the file, once
    written, is not to take its place.
    Raises ModelFileError for a target that cannot be written, and for numbers that type cannot hold.
    """
    store = store or narrow
    try:
        with atomically(target) as part:
            place = secrets.token_hex(32)  # where the fingerprint goes, once the tensors are known
            fingerprint = _write_all(part, contents, type, progress, store, place)
            _replace_in_keys(part, place.encode(), fingerprint.encode())
            if check is not None:
                check(part)
    except OSError as error:
        why = error.strerror or f"is the disk full? ({error})"  # NumPy knows only how much was taken
        raise ModelFileError(f"{target}: cannot be written: {why}") from error


def _write_all(
    part: Path, contents: Contents, type: str, progress: bool, store: Callable[[str, Array, str], Array], place: str
) -> str:
    """Everything but the fingerprint, which is returned; instead of it the text place."""
    architecture = OURS if type == "i8" else contents.architecture
    with closing(ArrayWriter(part, architecture)) as writer:
        contents.add_keys(writer)
        if type in FILE_TYPES:
            writer.add_file_type(FILE_TYPES[type])
        else:  # a type of ours
            writer.add_custom_alignment(LINE_BYTES)
        writer.add_quantization_version(GGML_QUANT_VERSION)
        writer.add_string(KEY, place)
        n_bytes = _add_tensor_list(writer, contents.shapes, type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        keys = {key: value.value for key, value in writer.kv_data[0].items()}
        fingerprint = Fingerprint(architecture, keys)
        with tqdm(total=n_bytes, desc=contents.name, unit="B", unit_scale=True, disable=not progress) as bar:
            for name, array in contents.data:
                tensor_type = type_of(name, contents.shapes[name], type)
                stored = store(name, array, tensor_type)
                layout = file_tensors(name, contents.shapes[name], tensor_type)
                parts: tuple[Array, ...] = tiles_of_rows(stored) if tensor_type == "i8" else (stored,)
                for (part_name, part_shape, part_type), data in zip(layout, parts, strict=True):
                    fingerprint.add(part_name, part_type.upper(), part_shape, data.view(np.uint8))
                    writer.write_tensor_data(data)
                    bar.update(data.nbytes)
    return fingerprint.text()


def _replace_in_keys(part: Path, old: bytes, new: bytes) -> None:
    """old stands once among the keys, which the file begins with."""
    with part.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.find(old)
        content[at : at + len(old)] = new


def check_target(target: Path, source: Path) -> None:
    """Whether a GGUF file may be written to target, before source is read: it may replace another GGUF file, but not
    the weights of a checkpoint.  Raises ModelFileError, and UsageError where target is source."""
    try:
        check_output(target, source, may_replace_model=True)
    except UsageError:
        raise
    except FastGPTError as error:
        raise ModelFileError(str(error)) from error
    if target.is_file() and not is_stream(target) and not is_model(target):
        raise ModelFileError(f"{target}: exists and is not a GGUF file; delete it or give another name")


def architecture_of(h: Hyperparameters) -> str:
    return "gpt2" if h.activation == "gelu_tanh" else OURS


def add_keys(
    writer: GGUFWriter,
    name: str,
    texts: dict[str, str],
    hparams: Hyperparameters,
    vocabulary: Vocabulary | StoredTokenizer | None,
) -> None:
    """The keys of a model that comes from no GGUF file.  texts: what the checkpoint says of itself, by key."""
    h = hparams
    writer.add_name(name)
    writer.add_block_count(h.n_layer)
    writer.add_context_length(h.n_ctx)
    writer.add_embedding_length(h.n_embd)
    writer.add_feed_forward_length(h.n_ff)
    writer.add_head_count(h.n_head)
    writer.add_layer_norm_eps(float(np.float32(h.layer_norm_epsilon)))
    if h.activation != "gelu_tanh":
        writer.add_string(f"{writer.arch}.activation", h.activation)
    for key, text in texts.items():
        writer.add_string(key, text)
    _add_vocabulary(writer, vocabulary, h)
    if h.bos_token is not None:
        writer.add_bos_token_id(h.bos_token)
    _add_eos_tokens(writer, h.eos_tokens)


def _add_eos_tokens(writer: GGUFWriter, tokens: tuple[int, ...]) -> None:
    """llama.cpp has three keys for what ends a text, and stops at each; a model with more gets a list of ours, too."""
    adders = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, token in zip(adders, tokens, strict=False):
        add(token)
    if len(tokens) > len(adders):
        array = RawArray.of(GGUFValueType.UINT32, np.array(tokens, "<u4"))
        writer.add_key_value(EOS_TOKENS_KEY, array, GGUFValueType.ARRAY)


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary | StoredTokenizer | None, h: Hyperparameters) -> None:
    if isinstance(vocabulary, StoredTokenizer):
        for key, value in vocabulary.values.items():
            if isinstance(value, str):
                writer.add_string(key, value)
            else:
                writer.add_array(key, value)
    if not isinstance(vocabulary, Vocabulary):
        writer.add_tokenizer_model("none")
        writer.add_vocab_size(h.n_vocab)  # llama.cpp takes it from the tokens where there are some
        return
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    else:  # the package leaves an empty list out, and llama.cpp wants the key
        nothing = RawArray.of(GGUFValueType.STRING, np.zeros(0, np.uint8))
        writer.add_key_value(Keys.Tokenizer.MERGES, nothing, GGUFValueType.ARRAY)
    if vocabulary.normalized is not None:
        writer.add_array(NORMALIZED_TOKENS, vocabulary.normalized)


def _add_tensor_list(writer: GGUFWriter, shapes: dict[str, Shape], type: str) -> int:
    """Announces every tensor and returns the bytes of all of them."""
    total = 0
    for matrix, matrix_shape in shapes.items():
        for name, shape, stored in file_tensors(matrix, matrix_shape, type_of(matrix, matrix_shape, type)):
            n_bytes = math.prod(shape) if stored == "i8" else math.prod(shape[:-1]) * row_bytes(stored, shape[-1])
            raw_dtype = GGMLQuantizationType[stored.upper()]
            writer.add_tensor_info(name, shape, np.dtype(np.float32), n_bytes, raw_dtype=raw_dtype)
            total += n_bytes
    return total


def file_tensors(name: str, shape: Shape, type: str) -> list[tuple[str, Shape, str]]:
    """The tensors of the file that make one of the model, as (name, shape, type): of i8, tiles and scales."""
    if type != "i8":
        return [(name, shape, type)]
    n_rows, n = shape
    tiles = (-(-n_rows // TILE_ROWS), n // LINE_VALUES, LINE_BYTES)
    return [(name, tiles, "i8"), (scale_name(name), (n_rows,), "f32")]


def scale_name(name: str) -> str:
    """The tensor with the scales of a matrix in i8."""
    return name.removesuffix(".weight") + ".scale"


def type_of(name: str, shape: Shape, type: str) -> str:
    """As in llama.cpp: only matrices are narrowed, and position embeddings are not.  Rows that are not whole blocks of
    type are stored as f16.  Of what 4 bits lose, most is lost in the embedding: it keeps 8 (docs/quality.md)."""
    if len(shape) != 2 or name == "position_embd.weight":
        return "f32"
    if type == "q4_0" and name in ("token_embd.weight", "output.weight"):
        type = "q8_0"
    return type if row_bytes(type, shape[-1]) else "f16"


def narrow(name: str, array: Array, type: str) -> Array:
    """array rounded to type, as bytes.  NaN and infinity are refused: no model works with them."""
    try:
        return quantize_rows(array, type)
    except UsageError:
        if not np.isfinite(array).all():
            raise ModelFileError(
                f"{name} has NaN or infinite values: the model is damaged, or its training diverged"
            ) from None
        largest = float(np.abs(array).max())
        raise ModelFileError(f"{name} has values up to {largest:g}, too large for {type}; use {_wider(type)}") from None


def _wider(type: str) -> str:
    return "f32" if type == "bf16" else "bf16"
