"""A LoRA adapter in the folder layout of PEFT: low-rank changes of a checkpoint's matrices, added before it is stored.

W + scaling * B A, with A [r][n_in] and B [n_out][r] (Hu et al. 2021, arXiv 2106.09685); scaling is alpha / r, or
alpha / sqrt(r) for rank-stabilised adapters (Kalajdzievski 2023, arXiv 2312.03732).  B A is [n_out][n_in], as GGUF
stores linear layers; PEFT transposes it for a Conv1D ("fan_in_fan_out"), so that flag needs no reading here.
What changes more than that (DoRA, trained biases, adapted embeddings) is refused by name.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from fastgpt_c.convert.gguf_file import Array
from fastgpt_c.convert.weights import TYPES, TensorFile, open_tensors
from fastgpt_c.errors import ModelFileError
from fastgpt_c.io.checked_json import JSON, Implemented, check_values, read_json, show, some_of

CONFIG = "adapter_config.json"

NOTHING: tuple[object, ...] = (None, False, [], {})
CONFIG_VALUES: Implemented = {
    "peft_type": ("LORA",),
    # Other ways to begin, PiSSA for one, change the checkpoint's own matrices, too.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),
    "bias": ("none", None),
    "use_rslora": (True, False, None),
    "use_dora": NOTHING,
    "use_qalora": NOTHING,
    "lora_bias": NOTHING,
    "modules_to_save": NOTHING,
    "trainable_token_indices": NOTHING,
    "layer_replication": NOTHING,
    "alora_invocation_tokens": NOTHING,
    "arrow_config": NOTHING,
    "target_parameters": NOTHING,
}
# base_model.model.transformer.h.0.attn.c_attn.lora_A.weight; adapters of a GPT2Model lack "transformer."
TENSOR = re.compile(
    r"base_model\.model\.(?:transformer\.)?(h\.\d{1,6}\.(?:attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj))"
    r"\.lora_([AB])\.weight"
)
# PEFT takes the keys of its patterns as regular expressions.  Those that are plain names need none.
PLAIN_NAME = re.compile(r"[\w.]{1,200}", re.ASCII)


class Adapter:
    """The adapter in a folder: what it adds to the matrices of a checkpoint, by the names of transformers."""

    def __init__(self, folder: Path) -> None:
        self._config_path = folder / CONFIG
        if not self._config_path.exists():
            raise ModelFileError(f"{folder}: has no {CONFIG}, so it is not a LoRA adapter that PEFT saved")
        self._config = read_json(self._config_path)
        check_values(self._config_path, self._config, CONFIG_VALUES)
        binary = folder / "adapter_model.bin"
        self._path = binary if binary.exists() else folder / "adapter_model.safetensors"
        self._file: TensorFile = open_tensors(self._path)
        self._pairs = self._paired()
        self._alphas = self._numbers("alpha_pattern")

    def _paired(self) -> dict[str, tuple[str, str]]:
        """Layer ("h.0.attn.c_attn") -> the names of A and B."""
        pairs: dict[str, dict[str, str]] = {}
        unknown = []
        for name, (_, dtype) in self._file.info.items():
            match = TENSOR.fullmatch(name)
            if match and dtype in TYPES:
                pairs.setdefault(match[1], {})[match[2]] = name
            else:
                unknown.append(f"{name} ({dtype})")
        if unknown or not pairs:
            raise ModelFileError(
                f"{self._path}: has {some_of(unknown) or 'no tensors'}; implemented are lora_A and lora_B of c_attn, "
                f"c_proj and c_fc in {', '.join(TYPES)}"
            )
        for layer, pair in pairs.items():
            if len(pair) == 1:
                raise ModelFileError(f"{self._path}: {layer} has only one of lora_A and lora_B")
        return {layer: (pair["A"], pair["B"]) for layer, pair in pairs.items()}

    def check(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """shapes: the [n_out, n_in] of each matrix that the model has, by layer."""
        for layer, (a, b) in self._pairs.items():
            shape_a, shape_b = self._file.info[a][0], self._file.info[b][0]
            if layer not in shapes:
                raise ModelFileError(f"{self._path}: has {layer}, which is no part of the model")
            n_out, n_in = shapes[layer]
            rank = shape_a[0] if shape_a else 0
            if rank == 0 or shape_a != (rank, n_in) or shape_b != (n_out, rank):
                raise ModelFileError(
                    f"{self._path}: {layer} has lora_A {list(shape_a)} and lora_B {list(shape_b)}, "
                    f"which do not fit the model's [{n_out}, {n_in}]"
                )

    def merged(self, layer: str, matrix: Array) -> Array:
        """matrix [n_out][n_in] of the layer with what the adapter adds, in F32; itself where that is nothing."""
        if layer not in self._pairs:
            return matrix
        a, b = (self._file.read(name, slice(None)).astype(np.float32) for name in self._pairs[layer])
        sum: Array = matrix.astype(np.float32) + np.float32(self._scaling(layer, a.shape[0])) * (b @ a)
        return sum

    def _scaling(self, layer: str, rank: int) -> float:
        alpha = next((value for name, value in self._alphas.items() if _names(name, layer)), None)
        if alpha is None:
            alpha = self._number("lora_alpha", self._config.get("lora_alpha", 8))
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def _numbers(self, key: str) -> dict[str, float]:
        values: JSON = self._config.get(key) or {}
        if not isinstance(values, dict) or not all(PLAIN_NAME.fullmatch(name) for name in values):
            raise ModelFileError(f"{self._config_path}: {key} = {show(values)}: implemented are plain names of layers")
        return {name: self._number(f"{key}.{name}", value) for name, value in values.items()}

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            raise ModelFileError(f"{self._config_path}: {key} = {show(value)} is not a positive number")
        return float(value)


def _names(pattern: str, layer: str) -> bool:
    """Whether PEFT would take pattern for this layer: a whole name of it, or its last parts."""
    name = f"transformer.{layer}"
    return name == pattern or name.endswith(f".{pattern}")
