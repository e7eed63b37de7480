"""Families of GPT-2 checkpoints (docs/families.md): a tiny model of each one's config gives transformers' logits.

The real ones, some gigabytes:  pytest -m pretrained tests/python/convert/test_families.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import CONFIG, random_tensors, write_checkpoint

import fastgpt_c
from fastgpt_c.convert import convert

pytest.importorskip("torch").set_num_threads(1)
pytest.importorskip("transformers")

TINY = {**CONFIG, "n_positions": 40, "layer_norm_epsilon": 1e-5}
MISTRAL = {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}

# What sets each apart, in the words of its own config.json; and where it lives.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "OpenAI": ("openai-community/gpt2", {"n_ctx": 40}),
    "DistilGPT2": ("distilbert/distilgpt2", {"n_layer": 3, "_num_labels": 1}),
    "DialoGPT": ("microsoft/DialoGPT-small", {"n_ctx": 40, "model_type": "gpt2"}),
    "Cerebras-GPT": ("cerebras/Cerebras-GPT-111M", {"activation_function": "gelu", "n_inner": 144, "n_positions": 80}),
    "CodeParrot": ("codeparrot/codeparrot-small", {**MISTRAL, "vocab_size": 300}),
    "Mistral": ("stanford-crfm/alias-gpt2-small-x21", MISTRAL),
    "GPT-SW3": ("AI-Sweden-Models/gpt-sw3-126m", {"activation_function": "gelu", "n_inner": 100}),
    "rinna": ("rinna/japanese-gpt2-small", {"n_inner": 144}),
    "Chinese GPT-2": ("uer/gpt2-chinese-cluecorpussmall", {"n_ctx": 40, "tokenizer_class": "BertTokenizer"}),
    "kogpt2": ("skt/kogpt2-base-v2", {"activation_function": "gelu_new", "n_inner": None}),
    "MIDI": ("skytnt/midi-model", {"vocab_size": 280}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tiny_model_of_the_family(name: str, tmp_path: Path) -> None:
    """Matrices are large enough for each step of the model to show."""
    from fastgpt_c.analysis.verify import compare

    config = {**TINY, **FAMILIES[name][1]}
    tensors = {name: array * (4 if array.ndim == 2 else 1) for name, array in random_tensors(config).items()}
    folder = write_checkpoint(tmp_path / "hf", config, tensors, tokenizer=False)
    convert(folder, tmp_path / "x.gguf")
    with fastgpt_c.load(tmp_path / "x.gguf") as model:
        report = compare(model, folder)
    assert report.difference < 1e-4
    assert report.parted is None


@pytest.mark.pretrained
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "MIDI"])
def test_the_real_ones(name: str, tmp_path: Path) -> None:
    """The checkpoint as it is on the hub: logits within 1e-3, and the same tokens of texts."""
    from fastgpt_c.analysis.verify import compare
    from fastgpt_c.checkpoints import resolve

    folder = resolve.download(FAMILIES[name][0])
    convert(folder, tmp_path / "x.gguf")
    with fastgpt_c.load(tmp_path / "x.gguf") as model:
        report = compare(model, folder)
    assert report.difference < 1e-3
    assert report.other_tokens is None or name == "rinna"
