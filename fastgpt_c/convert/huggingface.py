"""Read a GPT-2 checkpoint in the folder layout of Hugging Face transformers.

config.json, model.safetensors (or shards and their index), and the tokenizer as tokenizer.json or as
vocab.json + merges.txt.  What the engine does not implement is refused by name.  Everything here may come
from a stranger: it is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - registers bfloat16, which safetensors needs to read it into NumPy
import numpy as np
from safetensors import SafetensorError, safe_open

from fastgpt_c.convert.checked_json import JSON, Implemented, check_values, not_implemented, read_json, show, some_of
from fastgpt_c.convert.gguf_file import Array, Contents, Hyperparameters, Shape, add_keys, tensor_shapes
from fastgpt_c.convert.huggingface_tokenizer import read_vocabulary
from fastgpt_c.errors import ModelFileError

TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}  # of safetensors, and ours

SOURCE_NAMES = {
    "token_embd": "wte",
    "position_embd": "wpe",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
    "output_norm": "ln_f",
    "output": "lm_head",
}

# Values that are implemented; None = absent, which means transformers' default.  reorder_and_upcast_attn is
# not here: it orders the same sums differently, for half precision.
CONFIG_VALUES: Implemented = {
    "model_type": ("gpt2", None),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", None),
    "scale_attn_weights": (True, None),
    "scale_attn_by_inverse_layer_idx": (False, None),
    "add_cross_attention": (False, None),
}
ARCHITECTURES = ("GPT2LMHeadModel", "GPT2Model")

HEAD = "lm_head.weight"


def read(folder: Path) -> Contents:
    """The checkpoint in folder, everything checked but the tensors' numbers, which are read as data is drawn."""
    config = _read_config(folder / "config.json")
    hparams = _hyperparameters(config, folder / "config.json")
    weights = Weights(folder)
    shapes = _checked_shapes(config, hparams, weights)
    vocabulary = read_vocabulary(folder, hparams.n_vocab)
    name = _model_name(folder)
    keys = partial(add_keys, name=name, hparams=hparams, vocabulary=vocabulary)
    return Contents(name, keys, shapes, _tensors(weights, shapes))


def stored_type(folder: Path) -> str:
    """The type of all matrices of the checkpoint, "f32" if they differ."""
    _read_config(folder / "config.json")
    weights = Weights(folder)
    types = {weights.type(name) for name in weights if len(weights.shape(name)) == 2}
    return types.pop() if len(types) == 1 else "f32"


# ---- config.json ---------------------------------------------------------------------------------------


def _read_config(path: Path) -> JSON:
    if not path.exists():
        raise ModelFileError(f"{path.parent}: has no config.json, so it is not a Hugging Face checkpoint")
    config = read_json(path)
    check_values(path, config, CONFIG_VALUES)
    for architecture in config.get("architectures") or ():
        if architecture not in ARCHITECTURES:
            raise not_implemented(path, "architectures", architecture, ARCHITECTURES)
    return config


def _hyperparameters(config: JSON, path: Path) -> Hyperparameters:
    n_vocab = _positive(config, "vocab_size", 50257, path)
    n_embd = _positive(config, "n_embd", 768, path)
    n_head = _positive(config, "n_head", 12, path)
    if n_embd % n_head:
        raise ModelFileError(f"{path}: n_embd = {n_embd} is not a multiple of n_head = {n_head}")
    epsilon = config.get("layer_norm_epsilon", 1e-5)
    if not isinstance(epsilon, float | int) or not 0 < epsilon < 1:
        raise ModelFileError(f"{path}: layer_norm_epsilon = {show(epsilon)} is not between 0 and 1")
    return Hyperparameters(
        n_vocab=n_vocab,
        n_ctx=_positive(config, "n_positions", 1024, path),
        n_embd=n_embd,
        n_head=n_head,
        n_layer=_positive(config, "n_layer", 12, path),
        n_ff=4 * n_embd if config.get("n_inner") is None else _positive(config, "n_inner", 0, path),
        layer_norm_epsilon=float(epsilon),
        bos_token=_token_id(config, "bos_token_id", n_vocab, path),
        eos_token=_token_id(config, "eos_token_id", n_vocab, path),
    )


def _positive(config: JSON, key: str, default: int, path: Path) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise ModelFileError(f"{path}: {key} = {show(value)} is not a positive 32-bit integer")
    return value


def _token_id(config: JSON, key: str, n_vocab: int, path: Path) -> int | None:
    """A token outside the vocabulary can never occur: transformers' default in a small model, for example."""
    value = config.get(key, 50256)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise not_implemented(path, key, value, ("one integer",))
    return value if value is not None and 0 <= value < n_vocab else None


# ---- Weights ---------------------------------------------------------------------------------------------


class Weights:
    """The tensors of a checkpoint, without the prefix "transformer.", from one file or several.

    Iterates over the names.  Only headers are read until read() is called.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place: dict[str, tuple[Path, Any, str]] = {}  # name -> file, open file, name in it
        for path, wanted in _weight_files(folder):
            file = _open(path)
            for stored in file.keys():  # noqa: SIM118 - not a mapping
                if wanted is None or stored in wanted:
                    self._add(path, file, stored)
            if wanted is not None and (absent := wanted.difference(file.keys())):
                raise ModelFileError(f"{path}: has no {some_of(absent)}, which the index says is here")

    def _add(self, path: Path, file: Any, stored: str) -> None:
        name = stored.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            return  # the causal mask, which old versions stored as a buffer
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
        return tuple(self._slice(name).get_shape())

    def type(self, name: str) -> str:
        dtype = self._slice(name).get_dtype()
        if dtype not in TYPES:
            raise ModelFileError(f"{self.path(name)}: {name} has type {dtype}; implemented are {', '.join(TYPES)}")
        return TYPES[dtype]

    def read(self, name: str, rows: slice = slice(None)) -> Array:
        """The tensor, or some rows of it, as a NumPy array of its own type."""
        path, _, stored = self._place[name]
        try:
            array: Array = self._slice(name)[rows]
        except SafetensorError as error:
            raise ModelFileError(f"{path}: {stored}: {error}") from error
        return array

    def _slice(self, name: str) -> Any:
        _, file, stored = self._place[name]
        return file.get_slice(stored)


def _weight_files(folder: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """The safetensors files and, for shards, which tensors to take from each."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        yield single, None
    elif index.exists():
        yield from _shards(index)
    elif (folder / "pytorch_model.bin").exists():
        raise ModelFileError(
            f"{folder}: has pytorch_model.bin only, a format that can run code; in a Python with transformers, "
            f"GPT2LMHeadModel.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r}, "
            "safe_serialization=True) writes model.safetensors"
        )
    else:
        raise ModelFileError(f"{folder}: has no model.safetensors")


def _shards(index: Path) -> Iterator[tuple[Path, set[str]]]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(f"{index}: has no weight_map")
    wanted: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or "/" in file or not fnmatchcase(file, "model-*.safetensors"):
            raise ModelFileError(f"{index}: {name} is in {show(file)}, not in a file model-*.safetensors")
        wanted.setdefault(file, set()).add(name)
    for file, names in wanted.items():
        yield index.parent / file, names


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: not a sound safetensors file: {error}") from error


# ---- What config.json implies, and what the weights are ----------------------------------------------------


def _checked_shapes(config: JSON, hparams: Hyperparameters, weights: Weights) -> dict[str, Shape]:
    """The tensors of the GGUF file, each of which the checkpoint has in the shape that config.json implies."""
    tied = config.get("tie_word_embeddings") is not False
    shapes = _present(tensor_shapes(hparams, tied=tied and HEAD not in weights), weights)
    for name, shape in shapes.items():
        _check_tensor(_source_name(name), shape[::-1] if _is_transposed(name, shape) else shape, weights)
    known = {_source_name(name) for name in shapes}
    if unexpected := [name for name in weights if name not in known]:
        raise ModelFileError(
            f"{weights.path(unexpected[0])}: has {some_of(unexpected)}, which is no part of the model in config.json"
        )
    if HEAD in weights and _same_numbers(weights, HEAD, "wte.weight"):
        del shapes["output.weight"]  # a copy
    elif HEAD in weights and tied:
        raise ModelFileError(
            f"{weights.path(HEAD)}: {HEAD} differs from wte.weight, though config.json ties them; "
            "set tie_word_embeddings to false there to use both"
        )
    return shapes


def _present(implied: Iterator[tuple[str, Shape]], weights: Weights) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    missing: list[str] = []
    for name, shape in implied:
        if _source_name(name) in weights:
            shapes[name] = shape
        else:
            missing.append(_source_name(name))
        if len(missing) > 100:  # n_layer is only the file's word: do not count to it
            break
    if missing:
        raise ModelFileError(f"{weights.folder}: the weights lack {some_of(missing)}, which config.json implies")
    return shapes


def _check_tensor(name: str, expected: Shape, weights: Weights) -> None:
    if weights.shape(name) != expected:
        raise ModelFileError(
            f"{weights.path(name)}: {name} has shape {list(weights.shape(name))}, "
            f"but config.json implies {list(expected)}"
        )
    weights.type(name)


def _same_numbers(weights: Weights, a: str, b: str) -> bool:
    """Whether two matrices of one shape are equal, looked at in blocks of rows to save memory."""
    n_rows = weights.shape(a)[0]
    blocks = (slice(row, min(row + 1024, n_rows)) for row in range(0, n_rows, 1024))
    return all(np.array_equal(weights.read(a, rows), weights.read(b, rows)) for rows in blocks)


def _tensors(weights: Weights, shapes: dict[str, Shape]) -> Iterator[tuple[str, Array]]:
    for name, shape in shapes.items():
        array = weights.read(_source_name(name))
        yield name, np.ascontiguousarray(array.T) if _is_transposed(name, shape) else array


def _is_transposed(name: str, shape: Shape) -> bool:
    """Linear layers of a block are of class Conv1D, which stores [n_in][n_out]."""
    return name.startswith("blk.") and len(shape) == 2


def _source_name(name: str) -> str:
    """blk.3.attn_qkv.weight -> h.3.attn.c_attn.weight"""
    *block, part, kind = name.split(".")
    return ".".join([*(["h", block[1]] if block else []), SOURCE_NAMES[part], kind])


def _model_name(folder: Path) -> str:
    """The folder's name; for one in huggingface_hub's cache (models--ORG--NAME/snapshots/COMMIT) the ORG/NAME."""
    folder = folder.resolve()
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return folder.name.encode("utf-8", "replace").decode()  # a file system allows names that are not UTF-8
