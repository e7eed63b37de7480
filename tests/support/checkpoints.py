"""Tiny Hugging Face GPT-2 checkpoints with random weights, for the tests of the converter and the hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Tensors = dict[str, npt.NDArray[Any]]
DTYPES: dict[str, npt.DTypeLike] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}

# Sizes that are no multiples of anything.
CONFIG: dict[str, Any] = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 265,
    "n_positions": 7,
    "n_embd": 36,
    "n_layer": 2,
    "n_head": 3,
    "layer_norm_epsilon": 1e-6,
    "bos_token_id": 259,
    "eos_token_id": 259,
}

MERGES = ["h e", "Ġ t", "Ġt he"]


def vocabulary() -> dict[str, int]:
    """GPT-2's 256 byte characters, three merges, and the end of a text: ids 0 to 259."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(byte) for byte in shown] + [chr(0x100 + i) for i in range(256 - len(shown))]
    tokens = [*alphabet, *(rule.replace(" ", "") for rule in MERGES), "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}


def source_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of transformers' GPT2LMHeadModel without prefix; Conv1D is [n_in][n_out]."""
    n, n_ff = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (config["vocab_size"], n)}
    shapes["wpe.weight"] = (config["n_positions"], n)
    for i in range(config["n_layer"]):
        for name, n_in, n_out in [
            ("attn.c_attn", n, 3 * n),
            ("attn.c_proj", n, n),
            ("mlp.c_fc", n, n_ff),
            ("mlp.c_proj", n_ff, n),
        ]:
            shapes |= {f"h.{i}.{name}.weight": (n_in, n_out), f"h.{i}.{name}.bias": (n_out,)}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{name}.weight": (n,), f"h.{i}.{name}.bias": (n,)}
    return shapes | {"ln_f.weight": (n,), "ln_f.bias": (n,)}


def random_tensors(config: Mapping[str, Any] = CONFIG, dtype: str = "f32") -> Tensors:
    rng = np.random.default_rng(1)
    shapes = source_shapes(config)
    return {name: rng.normal(0, 0.1, shape).astype(DTYPES[dtype]) for name, shape in shapes.items()}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def tokenizer_json() -> dict[str, Any]:
    """As the `tokenizers` library saves GPT-2's."""
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": 259,
                "content": "<|endoftext|>",
                "special": True,
                **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
            }
        ],
        "normalizer": None,
        "pre_tokenizer": dict(BYTE_LEVEL),
        "post_processor": dict(BYTE_LEVEL),
        "decoder": dict(BYTE_LEVEL),
        "model": {"type": "BPE", "vocab": vocabulary(), "merges": [rule.split(" ") for rule in MERGES]},
    }


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any] = CONFIG,
    tensors: Tensors | None = None,
    *,
    prefix: str = "transformer.",
    n_shards: int = 1,
    tokenizer: bool = True,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    if tokenizer:
        write_json(folder / "vocab.json", vocabulary())
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    tensors = random_tensors(config) if tensors is None else tensors
    named = {name if name.startswith("lm_head") else prefix + name: array for name, array in tensors.items()}
    if n_shards == 1:
        save_file(named, folder / "model.safetensors")
    else:
        write_shards(folder, named, n_shards)
    return folder


def write_shards(folder: Path, tensors: Tensors, n_shards: int) -> None:
    weight_map = {}
    for shard in range(n_shards):
        file = f"model-{shard + 1:05}-of-{n_shards:05}.safetensors"
        part = dict(list(tensors.items())[shard::n_shards])
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def edit_tensors(change: Callable[[Tensors], object]) -> Callable[[Path], object]:
    """What applies change to the tensors (as stored, by name) of the checkpoint in a folder."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return edit
