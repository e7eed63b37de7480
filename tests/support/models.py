"""Models for tests: one of a checkpoint of tests/vectors, and random ones of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

import fastgpt_c
from fastgpt_c.native.dtypes import quantize_rows, row_bytes


class Tiny(NamedTuple):
    """A model made by tools/make_vectors.py, what transformers says about it, and its GGUF file."""

    model: fastgpt_c.Model
    golden: dict[str, Any]
    path: Path


def write_random_gguf(
    path: Path, *, n_layer: int, n_head: int, n_embd: int, n_ctx: int, n_vocab: int, seed: int = 0, type: str = "f32"
) -> Path:
    """A model with random weights and no tokenizer, of a size that nobody would want to commit; type is that of its
    matrices."""
    rng, n_ff = np.random.default_rng(seed), 4 * n_embd
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(n_layer)
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(n_embd)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("none")

    def add(name: str, *shape: int, mean: float = 0.0) -> None:
        std = 0.3 if len(shape) == 1 else 1.5 / shape[1] ** 0.5
        numbers = (mean + std * rng.standard_normal(shape, np.float32)).astype(np.float32)
        if len(shape) == 1 or type == "f32":
            writer.add_tensor(name, numbers)
            return
        raw = random_q6_k(rng, numbers) if type == "q6_k" else quantize_rows(numbers, type)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType[type.upper()])

    def add_layer(name: str, n_out: int, n_in: int) -> None:
        add(f"{name}.weight", n_out, n_in)
        add(f"{name}.bias", n_out)

    def add_norm(name: str) -> None:
        add(f"{name}.weight", n_embd, mean=1.0)
        add(f"{name}.bias", n_embd)

    add("token_embd.weight", n_vocab, n_embd)
    add("position_embd.weight", n_ctx, n_embd)
    for layer in range(n_layer):
        add_norm(f"blk.{layer}.attn_norm")
        add_layer(f"blk.{layer}.attn_qkv", 3 * n_embd, n_embd)
        add_layer(f"blk.{layer}.attn_output", n_embd, n_embd)
        add_norm(f"blk.{layer}.ffn_norm")
        add_layer(f"blk.{layer}.ffn_up", n_ff, n_embd)
        add_layer(f"blk.{layer}.ffn_down", n_embd, n_ff)
    add_norm("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_q6_k(rng: np.random.Generator, numbers: np.ndarray) -> np.ndarray:
    """Rows of random blocks whose numbers are about as large as these."""
    blocks = rng.integers(0, 256, (numbers.size // 256, row_bytes("q6_k", 256)), np.uint8)
    blocks[:, -2:] = np.full(len(blocks), numbers.std() / 1500, np.float16).view(np.uint8).reshape(-1, 2)
    return blocks.reshape(len(numbers), -1)
