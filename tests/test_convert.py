"""Laws of the converter: what a checkpoint says is in the file, bit for bit, or the converter says why not."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from checkpoints import (
    CONFIG,
    MERGES,
    random_tensors,
    tokenizer_json,
    vocabulary,
    write_checkpoint,
    write_json,
)
from gguf import GGUFReader, GGUFWriter, ReaderTensor
from safetensors.numpy import load_file, save_file

from fastgpt_c.convert import convert
from fastgpt_c.errors import ModelFileError, UsageError

# llama.cpp's name of each tensor: (where it is in transformers' model, whether that stores the transpose).
TOP = {
    "token_embd.weight": ("wte.weight", False),
    "position_embd.weight": ("wpe.weight", False),
    "output_norm.weight": ("ln_f.weight", False),
    "output_norm.bias": ("ln_f.bias", False),
}
BLOCK = {
    "attn_norm.weight": ("ln_1.weight", False),
    "attn_norm.bias": ("ln_1.bias", False),
    "attn_qkv.weight": ("attn.c_attn.weight", True),
    "attn_qkv.bias": ("attn.c_attn.bias", False),
    "attn_output.weight": ("attn.c_proj.weight", True),
    "attn_output.bias": ("attn.c_proj.bias", False),
    "ffn_norm.weight": ("ln_2.weight", False),
    "ffn_norm.bias": ("ln_2.bias", False),
    "ffn_up.weight": ("mlp.c_fc.weight", True),
    "ffn_up.bias": ("mlp.c_fc.bias", False),
    "ffn_down.weight": ("mlp.c_proj.weight", True),
    "ffn_down.bias": ("mlp.c_proj.bias", False),
}


def llama_tensors(n_layer: int, *, untied: bool = False) -> dict[str, tuple[str, bool]]:
    """Every tensor that llama.cpp looks for in a gpt2 file, and nothing else."""
    names = dict(TOP)
    for i in range(n_layer):
        names |= {f"blk.{i}.{name}": (f"h.{i}.{source}", t) for name, (source, t) in BLOCK.items()}
    return names | ({"output.weight": ("lm_head.weight", False)} if untied else {})


def bf16_bits(array: np.ndarray) -> np.ndarray:
    """float32 -> the upper half of its bits, rounded to nearest, ties to even."""
    bits = array.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def bits_in_file(tensor: ReaderTensor) -> np.ndarray:
    """The stored numbers as unsigned integers, [n_out][n_in]."""
    width = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}[tensor.tensor_type.name]
    return np.ascontiguousarray(tensor.data).view(width).reshape(tensor.shape[::-1].astype(int))


def expected_bits(array: np.ndarray, type: str) -> np.ndarray:
    if type == "BF16":
        return bf16_bits(array)
    return array.astype(np.float16).view(np.uint16) if type == "F16" else array.astype(np.float32).view(np.uint32)


def read_value(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def keys_of(reader: GGUFReader) -> set[str]:
    return {key for key in reader.fields if not key.startswith("GGUF.")}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def refused(source: Path, target: Path, **options: Any) -> str:
    """The text of the ModelFileError; nothing may be left beside target."""
    before = sorted(target.parent.iterdir())
    with pytest.raises(ModelFileError) as caught:
        convert(source, target, **options)
    assert sorted(target.parent.iterdir()) == before
    return str(caught.value)


# ---- Tensors -----------------------------------------------------------------------------------------------

UNTIED = {**CONFIG, "tie_word_embeddings": False}
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (CONFIG, {}),
    "sharded": (CONFIG, {"n_shards": 3}),
    "without prefix": (CONFIG, {"prefix": ""}),
    "n_inner": ({**CONFIG, "n_inner": 50}, {}),
    "untied": (UNTIED, {"n_shards": 2}),
}


@pytest.mark.parametrize("type", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_is_the_source_rounded_once(tmp_path: Path, target: Path, layout: str, dtype: str, type: str):
    """Names and shapes are llama.cpp's; linear weights are transposed; only matrices, but not wpe, are narrowed."""
    config, options = LAYOUTS[layout]
    source = random_tensors(config, dtype)
    if config is UNTIED:
        source["lm_head.weight"] = source["wte.weight"][::-1].copy()
    convert(write_checkpoint(tmp_path / "hf", config, source, **options), target, type=type)
    names = llama_tensors(config["n_layer"], untied=config is UNTIED)
    tensors = {tensor.name: tensor for tensor in GGUFReader(target).tensors}
    assert set(tensors) == set(names)
    for name, (source_name, transposed) in names.items():
        array = source[source_name].T if transposed else source[source_name]
        narrow = array.ndim == 2 and name != "position_embd.weight"
        stored_type = type.upper() if narrow else "F32"
        assert tensors[name].tensor_type.name == stored_type
        np.testing.assert_array_equal(bits_in_file(tensors[name]), expected_bits(array, stored_type), err_msg=name)


def test_what_is_no_weight_is_left_out(tmp_path: Path, target: Path):
    """Causal masks of old versions, and a copy of wte under the head's name, add nothing to the file."""
    tensors = random_tensors()
    convert(write_checkpoint(tmp_path / "a", tensors=tensors), target)
    plain = target.read_bytes()
    tensors |= {f"h.{i}.attn.bias": np.ones((1, 1, 7, 7), np.float32) for i in range(2)}
    tensors |= {"h.0.attn.masked_bias": np.array(-1e4, np.float32), "lm_head.weight": tensors["wte.weight"].copy()}
    write_checkpoint(tmp_path / "a", tensors=tensors)
    convert(tmp_path / "a", target)
    assert target.read_bytes() == plain


def test_memory_is_that_of_the_largest_tensors(tmp_path: Path, target: Path):
    """The peak does not grow with the number of layers."""
    config = {**CONFIG, "n_embd": 96, "n_layer": 20}
    source = write_checkpoint(tmp_path / "hf", config)
    largest = 4 * 96 * 4 * 96
    total = sum(array.nbytes for array in load_file(source / "model.safetensors").values())
    convert(source, target)  # imports and caches
    tracemalloc.start()
    convert(source, target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * largest < total / 4


# ---- Keys and vocabulary -----------------------------------------------------------------------------------


def test_keys_are_those_of_llama_cpp(tmp_path: Path, target: Path):
    convert(write_checkpoint(tmp_path / "my-model", {**CONFIG, "n_inner": 50}), target, type="f16")
    reader = GGUFReader(target)
    expected = {
        "general.architecture": "gpt2",
        "general.name": "my-model",
        "general.file_type": 1,
        "gpt2.block_count": 2,
        "gpt2.context_length": 7,
        "gpt2.embedding_length": 36,
        "gpt2.feed_forward_length": 50,
        "gpt2.attention.head_count": 3,
        "gpt2.attention.layer_norm_epsilon": float(np.float32(1e-6)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*vocabulary(), *(f"[PAD{i}]" for i in range(260, 265))],
        "tokenizer.ggml.token_type": [1] * 259 + [3] + [5] * 5,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 259,
        "tokenizer.ggml.eos_token_id": 259,
    }
    assert {key: read_value(reader, key) for key in keys_of(reader)} == expected


def test_absent_settings_take_the_defaults_of_transformers(tmp_path: Path, target: Path):
    """n_inner is 4 n_embd, epsilon 1e-5; the default end token 50256 is dropped where the vocabulary has it not."""
    absent = ("layer_norm_epsilon", "bos_token_id", "eos_token_id", "model_type", "architectures")
    config = {key: value for key, value in CONFIG.items() if key not in absent}
    convert(write_checkpoint(tmp_path / "hf", config), target)
    reader = GGUFReader(target)
    assert read_value(reader, "gpt2.feed_forward_length") == 144
    assert read_value(reader, "gpt2.attention.layer_norm_epsilon") == float(np.float32(1e-5))
    assert not {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"} & keys_of(reader)


def test_without_tokenizer_files_the_size_of_the_vocabulary_remains(tmp_path: Path, target: Path):
    convert(write_checkpoint(tmp_path / "hf", tokenizer=False), target)
    reader = GGUFReader(target)
    assert read_value(reader, "tokenizer.ggml.model") == "none"
    assert read_value(reader, "gpt2.vocab_size") == 265
    assert "tokenizer.ggml.tokens" not in keys_of(reader)


def with_pairs(folder: Path) -> None:
    write_json(folder / "tokenizer.json", tokenizer_json())


def with_strings(folder: Path) -> None:
    """As early versions of `tokenizers` wrote it: merges "a b", and fewer fields."""
    value = tokenizer_json()
    value["model"] = {"vocab": vocabulary(), "merges": MERGES}
    del value["pre_tokenizer"]["use_regex"]
    write_json(folder / "tokenizer.json", value)


def with_settings(folder: Path) -> None:
    settings = {"tokenizer_class": "GPT2Tokenizer", "eos_token": {"content": "<|endoftext|>"}}
    settings["added_tokens_decoder"] = {"259": {"content": "<|endoftext|>", "special": True}}
    write_json(folder / "tokenizer_config.json", settings)


@pytest.mark.parametrize("rewrite", [with_pairs, with_strings, with_settings])
def test_every_spelling_of_a_tokenizer_gives_one_file(tmp_path: Path, target: Path, rewrite: Callable[[Path], None]):
    source = write_checkpoint(tmp_path / "hf")
    convert(source, target)
    plain = target.read_bytes()
    rewrite(source)
    if (source / "tokenizer.json").exists():
        (source / "vocab.json").unlink()
        (source / "merges.txt").unlink()
    convert(source, target)
    assert target.read_bytes() == plain


def test_added_tokens_are_control_or_user_defined(tmp_path: Path, target: Path):
    """Type 3 if special by flag or by role, 4 otherwise; ids that no token has stay padding, also in the middle."""
    source = write_checkpoint(tmp_path / "hf")
    write_json(source / "added_tokens.json", {"<user>": 260, "<|sep|>": 262, "<end>": 263})
    write_json(source / "special_tokens_map.json", {"sep_token": "<|sep|>", "additional_special_tokens": ["<end>"]})
    convert(source, target)
    reader = GGUFReader(target)
    assert read_value(reader, "tokenizer.ggml.tokens")[259:] == [
        *("<|endoftext|>", "<user>", "[PAD261]", "<|sep|>", "<end>", "[PAD264]")
    ]
    assert read_value(reader, "tokenizer.ggml.token_type")[258:] == [1, 3, 4, 5, 3, 3, 5]


# ---- Refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "gpt_neo"),
        ("architectures", ["GPT2ForSequenceClassification"]),
        ("activation_function", "relu"),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
        ("eos_token_id", [1, 2]),
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
def test_config_values_are_refused_by_name(tmp_path: Path, target: Path, key: str, value: Any):
    text = refused(write_checkpoint(tmp_path / "hf", {**CONFIG, key: value}, random_tensors()), target)
    shown = json.dumps(value[0] if key == "architectures" else value)
    assert "config.json" in text
    assert f"{key} = {shown}" in text


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("tokenizer.json", "normalizer", {"type": "Lowercase"}),
        ("tokenizer.json", "pre_tokenizer.type", "Whitespace"),
        ("tokenizer.json", "pre_tokenizer.add_prefix_space", True),
        ("tokenizer.json", "pre_tokenizer.use_regex", False),
        ("tokenizer.json", "post_processor.type", "TemplateProcessing"),
        ("tokenizer.json", "decoder.type", "WordPiece"),
        ("tokenizer.json", "model.type", "Unigram"),
        ("tokenizer.json", "model.dropout", 0.1),
        ("tokenizer.json", "model.end_of_word_suffix", "</w>"),
        ("tokenizer.json", "model.continuing_subword_prefix", "##"),
        ("tokenizer.json", "model.byte_fallback", True),
        ("tokenizer.json", "model.ignore_merges", True),
        ("tokenizer_config.json", "add_prefix_space", True),
        ("tokenizer_config.json", "add_bos_token", True),
        ("tokenizer_config.json", "tokenizer_class", "CLIPTokenizer"),
    ],
)
def test_tokenizers_of_other_kinds_are_refused_by_name(tmp_path: Path, target: Path, file: str, key: str, value: Any):
    source = write_checkpoint(tmp_path / "hf")
    config = tokenizer_json() if file == "tokenizer.json" else {}
    *outer, last = key.split(".")
    (config[outer[0]] if outer else config)[last] = value
    write_json(source / file, config)
    text = refused(source, target)
    assert f"{file}: {key} = {json.dumps(value)}" in text


def edit_tokenizer(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        value = tokenizer_json()
        change(value)
        write_json(folder / "tokenizer.json", value)

    return edit


def edit_tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

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


def lone_index(weight_map: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})

    return edit


W = "transformer.h.1.mlp.c_fc.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no config": (lambda d: (d / "config.json").unlink(), ["has no config.json"]),
    "config not JSON": (lambda d: (d / "config.json").write_bytes(b"{\xff"), ["config.json: is not JSON"]),
    "config deep": (lambda d: (d / "config.json").write_text("[" * 10**6), ["config.json: is not JSON"]),
    "config a list": (lambda d: (d / "config.json").write_text("[]"), ["config.json: is not a JSON object"]),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), ["has no model.safetensors"]),
    "pickle only": (
        lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
        ["pytorch_model.bin", "safe_serialization=True"],
    ),
    "safetensors cut": (cut, ["model.safetensors: not a sound safetensors file"]),
    "safetensors noise": (lambda d: (d / "model.safetensors").write_bytes(b"\xff" * 99), ["not a sound safetensors"]),
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
    "vocab alone": (lambda d: (d / "merges.txt").unlink(), ["has vocab.json but not"]),
    "sentencepiece": (only_spiece, ['tokenizer = "spiece.model" is not implemented']),
    "id too large": (edit_tokenizer(lambda t: t["model"]["vocab"].update(x1=265)), ['"x1" has id 265', "265"]),
    "id no integer": (edit_tokenizer(lambda t: t["model"]["vocab"].update(x1=None)), ['"x1": null']),
    "id shared": (edit_tokenizer(lambda t: t["model"]["vocab"].update(x1=7)), ['"x1" have one id, 7']),
    "two ids": (edit_tokenizer(lambda t: t["added_tokens"][0].update(id=264)), ["two ids, 259 and 264"]),
    "half a surrogate": (edit_tokenizer(lambda t: t["model"]["vocab"].update({"\ud800": 264})), ["\\ud800", "264"]),
    "no vocab": (edit_tokenizer(lambda t: t["model"].pop("vocab")), ["has no vocab and merges"]),
    "merge of three": (edit_tokenizer(lambda t: t["model"].update(merges=["a b c"])), ['"a b c" is not a merge rule']),
    "merge unknown": (edit_tokenizer(lambda t: t["model"].update(merges=["a b"])), ['"a b" needs "ab"']),
    "added flag": (edit_tokenizer(lambda t: t["added_tokens"][0].update(lstrip=True)), ["lstrip = true"]),
    "added noise": (edit_tokenizer(lambda t: t.update(added_tokens=[1])), ["1 is not an added token"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints_are_refused_with_the_reason(tmp_path: Path, target: Path, damage: str):
    source = write_checkpoint(tmp_path / "hf")
    edit, expected = DAMAGE[damage]
    edit(source)
    text = refused(source, target)
    assert str(source) in text or damage == "nan"
    for part in expected:
        assert part in text.replace("\ud800", "\\ud800")


def test_numbers_too_large_for_half_precision_are_refused(tmp_path: Path, target: Path):
    """65519 still rounds to the largest f16; 65520 would round to infinity."""
    tensors = random_tensors()
    tensors["h.0.mlp.c_fc.weight"][0, 0] = -65519
    source = write_checkpoint(tmp_path / "hf", tensors=tensors)
    convert(source, target, type="f16")
    tensors["h.0.mlp.c_fc.weight"][0, 0] = -65520
    write_checkpoint(tmp_path / "hf", tensors=tensors)
    text = refused(source, target, type="f16")
    assert "blk.0.ffn_up.weight has values up to 65520, too large for f16; use bf16" in text
    convert(source, target, type="bf16")


def test_arguments_are_checked(tmp_path: Path, target: Path):
    source = write_checkpoint(tmp_path / "hf")
    with pytest.raises(UsageError, match="'q8_0' is not one of f32, f16, bf16"):
        convert(source, target, type="q8_0")
    assert "nowhere: no such folder" in refused(tmp_path / "nowhere", target)
    assert "give the folder" in refused(source / "config.json", target)
    assert "is a folder" in refused(source, target.parent)
    with pytest.raises(ModelFileError, match="there is no folder"):
        convert(source, tmp_path / "new" / "x.gguf")
    weights = (source / "model.safetensors").read_bytes()
    assert "is not a GGUF file" in refused(source, source / "model.safetensors")
    assert (source / "model.safetensors").read_bytes() == weights
    os.mkfifo(target.parent / "pipe")
    assert "is not a GGUF file" in refused(source, target.parent / "pipe")


# ---- Writing -----------------------------------------------------------------------------------------------


@contextmanager
def interrupted(source: Path) -> Iterator[type[BaseException]]:
    """Ctrl-C when the 20th tensor has been written."""
    write, n_written = GGUFWriter.write_tensor_data, count(1)

    def write_or_stop(self: GGUFWriter, tensor: np.ndarray) -> None:
        write(self, tensor)
        if next(n_written) == 20:
            raise KeyboardInterrupt

    with patch.object(GGUFWriter, "write_tensor_data", write_or_stop):
        yield KeyboardInterrupt


@contextmanager
def disk_full(source: Path) -> Iterator[type[BaseException]]:
    """The system refuses to let a file grow beyond 100 kB, about two thirds of what is needed."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        yield ModelFileError
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def infinite_last_tensor(source: Path) -> Iterator[type[BaseException]]:
    edit_tensors(lambda t: t["transformer.ln_f.bias"].__setitem__(0, np.inf))(source)
    yield ModelFileError


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("failure", [interrupted, disk_full, infinite_last_tensor])
def test_a_failure_half_way_leaves_no_trace(
    tmp_path: Path, target: Path, failure: Callable[[Path], AbstractContextManager[type[BaseException]]], replaces: bool
):
    """Neither a target nor a temporary file; a file that was there is as it was."""
    source = write_checkpoint(tmp_path / "hf")
    before = {}
    if replaces:
        convert(source, target, type="f16")
        before = {target: target.read_bytes()}
    with failure(source) as error, pytest.raises(error):
        convert(source, target)
    assert {path: path.read_bytes() for path in target.parent.iterdir()} == before


def test_progress_is_shown_on_stderr_when_asked_for(tmp_path: Path, target: Path, capfd: pytest.CaptureFixture[str]):
    source = write_checkpoint(tmp_path / "my-model")
    convert(source, target)
    assert capfd.readouterr() == ("", "")
    convert(source, target, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "my-model: 100%" in shown.err


@pytest.mark.parametrize("package", ["safetensors", "gguf", "ml_dtypes", "tqdm"])
def test_without_the_extra_the_error_has_the_command(tmp_path: Path, target: Path, package: str):
    program = f"""
import sys
from pathlib import Path
import fastgpt_c.convert, fastgpt_c.hub, fastgpt_c.errors
heavy = {{"safetensors", "gguf", "ml_dtypes", "tqdm", "huggingface_hub", "torch"}} & set(sys.modules)
assert not heavy, heavy
sys.modules[{package!r}] = None  # as if it were not installed
try:
    fastgpt_c.convert.convert(Path({str(tmp_path)!r}), Path({str(target)!r}))
except fastgpt_c.errors.MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ""
    assert "pip install 'fastgpt-c[convert]'" in done.stdout
