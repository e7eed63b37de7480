"""The converter refuses what it cannot convert faithfully: by name, with the reason, and leaving nothing behind."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import CONFIG, edit_tensors, random_tensors, tokenizer_json, write_checkpoint, write_json

from fastgpt_c.convert import convert
from fastgpt_c.errors import ModelFileError, UsageError


def refused(source: Path, target: Path, **options: Any) -> str:
    """The text of the ModelFileError; nothing may be left beside target."""
    before = sorted(target.parent.iterdir())
    with pytest.raises(ModelFileError) as caught:
        convert(source, target, **options)
    assert sorted(target.parent.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "gpt_neo"),
        ("architectures", ["GPT2ForSequenceClassification"]),
        ("activation_function", "quick_gelu"),
        ("activation_function", ["relu"]),
        ("scale_attn_weights", "no"),
        ("scale_attn_weights", 0),  # false for transformers
        ("tie_word_embeddings", 0),
        ("scale_attn_by_inverse_layer_idx", 1),
        ("scale_attn_by_inverse_layer_idx", "yes"),
        ("quantization_config", {"bits": 4}),
        ("pruned_heads", {"0": [1]}),
        ("hidden_size", 48),
        ("add_cross_attention", True),
        ("eos_token_id", [1, "2"]),
        ("bos_token_id", "x"),
        ("n_head", 5),
        ("n_head", 0),
        ("n_layer", True),
        ("n_positions", 2**40),
        ("n_embd", "36"),
        ("n_inner", -1),
        ("layer_norm_epsilon", float("nan")),
        ("layer_norm_epsilon", None),
    ],
)
def test_config_values_are_refused_by_name(tmp_path: Path, key: str, value: Any):
    text = refused(write_checkpoint(tmp_path / "hf", {**CONFIG, key: value}, random_tensors()), tmp_path / "x.gguf")
    shown = json.dumps(value[0] if key == "architectures" else value)
    assert "config.json" in text
    assert f"{key} = {shown}" in text


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("tokenizer.json", "model.dropout", 0.1),
        ("tokenizer_config.json", "add_prefix_space", "yes"),
        ("tokenizer_config.json", "do_lower_case", "yes"),
        ("tokenizer_config.json", "add_bos_token", True),
        ("tokenizer_config.json", "tokenizer_class", "CLIPTokenizer"),
    ],
)
def test_tokenizers_of_other_kinds_are_refused_by_name(tmp_path: Path, file: str, key: str, value: Any):
    source = write_checkpoint(tmp_path / "hf")
    config = tokenizer_json() if file == "tokenizer.json" else {}
    *outer, last = key.split(".")
    (config[outer[0]] if outer else config)[last] = value
    write_json(source / file, config)
    text = refused(source, tmp_path / "x.gguf")
    assert f"{file}: {key} = {json.dumps(value)}" in text


def edit_tokenizer(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        value = tokenizer_json()
        change(value)
        write_json(folder / "tokenizer.json", value)

    return edit


def only_spiece(folder: Path) -> None:
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()
    (folder / "spiece.model").write_bytes(b"x")


def set_n_layer(n_layer: int) -> Callable[[Path], object]:
    return lambda folder: write_json(folder / "config.json", {**CONFIG, "n_layer": n_layer})


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def renamed(prefix: str) -> Callable[[Path], object]:
    """What a wrapper around the model makes of the names."""

    def rename(tensors: dict[str, Any]) -> None:
        names = list(tensors)
        tensors.update({prefix + name: tensors.pop(name) for name in names})

    return edit_tensors(rename)


def pointer(name: str) -> Callable[[Path], object]:
    """What a clone without Git LFS has instead of the weights."""

    def edit(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")

    return edit


def lone_index(weight_map: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})

    return edit


class Runs:
    """Unpickling it makes the file ran-code in the current folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran-code"),)


def pickle_that_runs(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"wte.weight": Runs()}))


W = "transformer.h.1.mlp.c_fc.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no config": (lambda d: (d / "config.json").unlink(), ["has no config.json"]),
    "config not JSON": (lambda d: (d / "config.json").write_bytes(b"{\xff"), ["config.json: is not JSON"]),
    "config deep": (lambda d: (d / "config.json").write_text("[" * 10**6), ["config.json: is not JSON"]),
    "config a list": (lambda d: (d / "config.json").write_text("[]"), ["config.json: is not a JSON object"]),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), ["has neither model.safetensors nor pytorch_model"]),
    "safetensors cut": (cut, ["model.safetensors: not a sound safetensors file"]),
    "safetensors noise": (lambda d: (d / "model.safetensors").write_bytes(b"\xff" * 99), ["not a sound safetensors"]),
    "safetensors on Git LFS": (pointer("model.safetensors"), ["model.safetensors: is only the pointer", "git lfs"]),
    "bin on Git LFS": (pointer("pytorch_model.bin"), ["pytorch_model.bin: is only the pointer"]),
    "index empty": (lone_index({}), ["index.json: has no weight_map"]),
    "index climbs": (lone_index({"a": "model-/../../x.safetensors"}), ["model-/../../x.safetensors"]),
    "shard missing": (lone_index({"a": "model-1.safetensors"}), ["model-1.safetensors: no such file"]),
    "tensor missing": (edit_tensors(lambda t: t.pop(W)), ["lack h.1.mlp.c_fc.weight"]),
    "layers missing": (set_n_layer(2**31 - 1), ["lack h.10.", "more"]),
    "layers left over": (set_n_layer(1), ["h.1.attn.c_attn.bias", "and 7 more"]),
    "tensor unknown": (edit_tensors(lambda t: t.update({"v_head.weight": t[W]})), ["v_head.weight"]),
    "tensor twice": (edit_tensors(lambda t: t.update({"h.1.mlp.c_fc.weight": t[W]})), ["h.1.mlp.c_fc.weight twice"]),
    "shape": (edit_tensors(lambda t: t.update({W: t[W].T.copy()})), ["h.1.mlp.c_fc", "[144, 36]", "[36, 144]"]),
    "type": (edit_tensors(lambda t: t.update({W: t[W].astype(np.float64)})), ["h.1.mlp.c_fc.weight has type F64"]),
    "nan": (edit_tensors(lambda t: t[W].__setitem__((3, 4), np.nan)), ["blk.1.ffn_up.weight has NaN"]),
    "head differs": (
        edit_tensors(lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"] + 1})),
        ["lm_head.weight differs", "tie_word_embeddings"],
    ),
    "nan in a copied head": (
        edit_tensors(
            lambda t: [
                t["transformer.wte.weight"].fill(np.nan),
                t.update({"lm_head.weight": t["transformer.wte.weight"]}),
            ]
        ),
        ["token_embd.weight has NaN"],
    ),
    "compiled": (renamed("_orig_mod."), ["'_orig_mod.'", "torch.compile", "save_pretrained"]),
    "data parallel": (renamed("module."), ["'module.'", "DataParallel", "removeprefix"]),
    "vocab alone": (lambda d: (d / "merges.txt").unlink(), ["has vocab.json but not"]),
    "sentencepiece": (only_spiece, ["spiece.model: the SentencePiece model is damaged"]),
    "id too large": (edit_tokenizer(lambda t: t["model"]["vocab"].update(x1=265)), ['"x1" has id 265', "265"]),
    "id no integer": (edit_tokenizer(lambda t: t["model"]["vocab"].update(x1=None)), ['"x1": null']),
    "id shared": (edit_tokenizer(lambda t: t["model"]["vocab"].update(x1=7)), ['"x1" have one id, 7']),
    "two ids": (edit_tokenizer(lambda t: t["added_tokens"][0].update(id=264)), ["two ids, 259 and 264"]),
    "half a surrogate": (edit_tokenizer(lambda t: t["model"]["vocab"].update({"\ud800": 264})), ["\\ud800", "264"]),
    "no vocab": (edit_tokenizer(lambda t: t["model"].pop("vocab")), ["has no vocab and merges"]),
    "merge of three": (edit_tokenizer(lambda t: t["model"].update(merges=["a b c"])), ['"a b c" is not a merge rule']),
    "merge unknown": (edit_tokenizer(lambda t: t["model"].update(merges=["a b"])), ['"a b" needs "ab"']),
    "added flag": (edit_tokenizer(lambda t: t["added_tokens"][0].update(lstrip=3)), ["the tokenizer is damaged"]),
    "pipeline": (edit_tokenizer(lambda t: t["decoder"].update(type="X")), ["tokenizer.json: the tokenizer is damaged"]),
    "added id": (lambda d: write_json(d / "added_tokens.json", {"x1": None}), ['added_tokens.json: "x1": null is not']),
    "template": (lambda d: (d / "chat_template.jinja").write_bytes(b"\xff"), ["chat_template.jinja: cannot be read"]),
    "added noise": (edit_tokenizer(lambda t: t.update(added_tokens=[1])), ["1 is not an added token"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints_are_refused_with_the_reason(tmp_path: Path, damage: str):
    source = write_checkpoint(tmp_path / "hf")
    edit, expected = DAMAGE[damage]
    edit(source)
    text = refused(source, tmp_path / "x.gguf")
    assert str(source) in text or "NaN" in text
    for part in expected:
        assert part in text.replace("\ud800", "\\ud800")


def test_a_pickle_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With PyTorch or without it."""
    monkeypatch.chdir(tmp_path)
    source = write_checkpoint(tmp_path / "hf")
    pickle_that_runs(source)
    (tmp_path / "out").mkdir()
    text = refused(source, tmp_path / "out" / "x.gguf")
    assert "pytorch_model.bin: " in text and "PyTorch" in text
    assert "\n" not in text and "weights_only" not in text  # PyTorch's own advice
    assert not (tmp_path / "ran-code").exists()


def test_numbers_too_large_for_half_precision_are_refused(tmp_path: Path):
    """65519 still rounds to the largest f16; 65520 would round to infinity."""
    tensors = random_tensors()
    tensors["h.0.mlp.c_fc.weight"][0, 0] = -65519
    source = write_checkpoint(tmp_path / "hf", tensors=tensors)
    convert(source, tmp_path / "x.gguf", type="f16")
    tensors["h.0.mlp.c_fc.weight"][0, 0] = -65520
    write_checkpoint(tmp_path / "hf", tensors=tensors)
    text = refused(source, tmp_path / "x.gguf", type="f16")
    assert "blk.0.ffn_up.weight has values up to 65520, too large for f16; use bf16" in text
    convert(source, tmp_path / "x.gguf", type="bf16")


def test_arguments_are_checked(tmp_path: Path):
    source = write_checkpoint(tmp_path / "hf")
    with pytest.raises(UsageError, match="'q5_1' is not one of f32, f16, bf16, q8_0, i8, q4_0"):
        convert(source, tmp_path / "x.gguf", type="q5_1")
    assert "nowhere: no such folder" in refused(tmp_path / "nowhere", tmp_path / "x.gguf")
    assert "give the folder" in refused(source / "config.json", tmp_path / "x.gguf")
    assert "is a folder" in refused(source, source)
    with pytest.raises(ModelFileError, match="there is no folder"):
        convert(source, tmp_path / "new" / "x.gguf")
    weights = (source / "model.safetensors").read_bytes()
    assert "is not a GGUF file" in refused(source, source / "model.safetensors")
    assert (source / "model.safetensors").read_bytes() == weights
