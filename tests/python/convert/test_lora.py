"""LoRA adapters: what convert(..., lora=) adds to the weights, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import CONFIG, random_tensors, write_checkpoint, write_json
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file

from fastgpt_c.convert import convert
from fastgpt_c.errors import ModelFileError, UsageError

RANK = 3
LAYERS = {"attn.c_attn": (36, 108), "attn.c_proj": (36, 36), "mlp.c_fc": (36, 144), "mlp.c_proj": (144, 36)}
IN_GGUF = {"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": RANK, "lora_alpha": 5, "bias": "none", "fan_in_fan_out": True}


def write_adapter(folder: Path, config: dict[str, Any], ranks: dict[str, int] | None = None) -> dict[str, Any]:
    """Random A and B for each layer -> them, by name."""
    rng, tensors = np.random.default_rng(3), {}
    for layer, (n_in, n_out) in LAYERS.items():
        rank = (ranks or {}).get(layer, RANK)
        for block in range(CONFIG["n_layer"]):
            name = f"base_model.model.transformer.h.{block}.{layer}"
            tensors[f"{name}.lora_A.weight"] = rng.normal(0, 0.2, (rank, n_in)).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = rng.normal(0, 0.2, (n_out, rank)).astype(np.float32)
    folder.mkdir()
    write_json(folder / "adapter_config.json", config)
    save_file(tensors, folder / "adapter_model.safetensors")
    return tensors


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


@pytest.mark.parametrize(
    "change, scaling",
    [
        ({}, lambda layer: 5 / RANK),
        ({"fan_in_fan_out": False}, lambda layer: 5 / RANK),
        ({"use_rslora": True}, lambda layer: 5 / math.sqrt(RANK)),
        ({"alpha_pattern": {"mlp.c_proj": 7}}, lambda layer: (7 if layer == "mlp.c_proj" else 5) / RANK),
        ({"alpha_pattern": {"c_proj": 7}}, lambda layer: (7 if layer.endswith("c_proj") else 5) / RANK),
    ],
)
def test_each_matrix_gains_scaling_times_b_a(tmp_path: Path, base: Path, change: dict[str, Any], scaling: Any):
    adapter = write_adapter(tmp_path / "adapter", PLAIN | change)
    convert(base, tmp_path / "merged.gguf", lora=tmp_path / "adapter")
    stored = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "merged.gguf").tensors}
    weights = random_tensors()
    for layer, block in ((layer, block) for layer in LAYERS for block in range(CONFIG["n_layer"])):
        name = f"base_model.model.transformer.h.{block}.{layer}"
        a, b = (adapter[f"{name}.lora_{part}.weight"].astype(np.float64) for part in "AB")
        expected = weights[f"h.{block}.{layer}.weight"].T + scaling(layer) * b @ a
        np.testing.assert_allclose(stored[f"blk.{block}.{IN_GGUF[layer]}.weight"], expected, atol=1e-6)
    np.testing.assert_array_equal(stored["token_embd.weight"], weights["wte.weight"])


def test_a_rank_pattern_is_what_the_matrices_have(tmp_path: Path, base: Path):
    config = PLAIN | {"rank_pattern": {"attn.c_attn": 1}}
    adapter = write_adapter(tmp_path / "adapter", config, {"attn.c_attn": 1})
    convert(base, tmp_path / "merged.gguf", lora=tmp_path / "adapter")
    stored = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "merged.gguf").tensors}
    name = "base_model.model.transformer.h.1.attn.c_attn"
    delta = 5 / 1 * adapter[f"{name}.lora_B.weight"] @ adapter[f"{name}.lora_A.weight"]
    np.testing.assert_allclose(
        stored["blk.1.attn_qkv.weight"], random_tensors()["h.1.attn.c_attn.weight"].T + delta, atol=1e-6
    )


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "IA3"},
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["wte"]},
        {"init_lora_weights": "pissa"},
        {"lora_alpha": "five"},
        {"lora_alpha": -1},
        {"lora_alpha": True},
        {"alpha_pattern": {"(a+)+": 1}},
        {"alpha_pattern": ["c_attn"]},
    ],
    ids=json.dumps,
)
def test_what_is_more_than_b_a_is_refused_by_its_key(tmp_path: Path, base: Path, change: dict[str, Any]):
    write_adapter(tmp_path / "adapter", PLAIN | change)
    with pytest.raises(ModelFileError, match=next(iter(change))):
        convert(base, tmp_path / "merged.gguf", lora=tmp_path / "adapter")
    assert not (tmp_path / "merged.gguf").exists()


LAYER = "base_model.model.transformer.h.0.mlp.c_fc"
BEYOND = "base_model.model.transformer.h.9.mlp.c_fc"
ODD = np.ones((3, 7), np.float32)


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda tensors: tensors.clear(), "no tensors"),
        (lambda tensors: tensors.pop(f"{LAYER}.lora_B.weight"), "h.0.mlp.c_fc has only"),
        (lambda tensors: tensors.update({"base_model.model.transformer.wte.lora_embedding_A": ODD}), "wte"),
        (lambda tensors: tensors.update({f"{LAYER}.lora_A.weight": ODD}), r"h.0.mlp.c_fc has lora_A \[3, 7\]"),
        (lambda tensors: tensors.update({f"{BEYOND}.lora_{part}.weight": ODD for part in "AB"}), "h.9.mlp.c_fc, which"),
        (lambda tensors: tensors.update({f"{LAYER}.lora_A.weight": ODD.astype(np.int8)}), "I8"),
    ],
    ids=["empty", "half a pair", "embedding", "shape", "layer", "integers"],
)
def test_damaged_adapters_are_refused_with_the_reason(tmp_path: Path, base: Path, damage: Any, words: str):
    write_adapter(tmp_path / "adapter", PLAIN)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    damage(tensors)
    save_file(tensors, path)
    with pytest.raises(ModelFileError, match=words):
        convert(base, tmp_path / "merged.gguf", lora=tmp_path / "adapter")


def test_a_folder_that_is_no_adapter_is_named(tmp_path: Path, base: Path):
    with pytest.raises(ModelFileError, match=r"has no adapter_config\.json"):
        convert(base, tmp_path / "merged.gguf", lora=base)


def test_an_adapter_alone_is_no_model(tmp_path: Path):
    write_adapter(tmp_path / "adapter", PLAIN)
    with pytest.raises(ModelFileError, match="--lora"):
        convert(tmp_path / "adapter", tmp_path / "merged.gguf")


def test_an_adapter_that_lies_beside_the_weights_is_mentioned(tmp_path: Path, base: Path):
    write_json(base / "adapter_config.json", PLAIN)
    (note,) = convert(base, tmp_path / "model.gguf")
    assert "adapter_config.json" in note and "--lora" in note


def test_only_checkpoints_of_transformers_take_an_adapter(tmp_path: Path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    folder = tmp_path / "openai"
    folder.mkdir()
    (folder / "hparams.json").write_text("{}")
    (folder / "checkpoint").write_text("")
    with pytest.raises((UsageError, ModelFileError)):
        convert(folder, tmp_path / "merged.gguf", lora=tmp_path)


def test_merging_equals_pefts_merge_and_unload(tmp_path: Path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    base = write_checkpoint(tmp_path / "base")
    torch.manual_seed(1)
    model = transformers.GPT2LMHeadModel.from_pretrained(base)
    config = peft.LoraConfig(
        r=4, lora_alpha=9, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, use_rslora=True,
        rank_pattern={"mlp.c_fc": 2}, alpha_pattern={"attn.c_attn": 3}, init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload().state_dict()
    convert(base, tmp_path / "merged.gguf", lora=tmp_path / "adapter")
    stored = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "merged.gguf").tensors}
    for layer, block in ((layer, block) for layer in LAYERS for block in range(CONFIG["n_layer"])):
        expected = merged[f"transformer.h.{block}.{layer}.weight"].numpy().T
        np.testing.assert_allclose(stored[f"blk.{block}.{IN_GGUF[layer]}.weight"], expected, atol=1e-5)
