"""Laws of the converter: what a checkpoint says is in the file, bit for bit, or the converter says why not."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    CONFIG,
    MERGES,
    edit_tensors,
    random_tensors,
    tokenizer_json,
    vocabulary,
    write_checkpoint,
    write_json,
)
from conversions import disk_full, interrupted, keys_of, read_value
from gguf import GGUFReader, ReaderTensor
from safetensors.numpy import load_file

from fastgpt_c.checkpoints.resolve import resolve
from fastgpt_c.convert import convert
from fastgpt_c.convert.fingerprint import fingerprint_of
from fastgpt_c.errors import ModelFileError

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


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


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
        "fastgpt.fingerprint.sha256": fingerprint_of(target),
        "general.architecture": "gpt2",
        "general.name": "my-model",
        "general.file_type": 1,
        "general.quantization_version": 2,
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


def with_idle_template(folder: Path) -> None:
    """As transformers 5 saves a plain GPT-2: a post-processor that adds no token."""
    value = tokenizer_json()
    single = [{"Sequence": {"id": "A", "type_id": 0}}]
    template = {"type": "TemplateProcessing", "single": single, "pair": [*single, *single], "special_tokens": {}}
    value["post_processor"] = {"type": "Sequence", "processors": [template, value["post_processor"]]}
    write_json(folder / "tokenizer.json", value)


def with_lone_steps(folder: Path) -> None:
    value = tokenizer_json()
    value["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [value["pre_tokenizer"]]}
    value["decoder"] = {"type": "Sequence", "decoders": [value["decoder"]]}
    value["normalizer"] = {"type": "Sequence", "normalizers": []}
    write_json(folder / "tokenizer.json", value)


@pytest.mark.parametrize("rewrite", [with_pairs, with_strings, with_settings, with_idle_template, with_lone_steps])
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


def test_a_tokenizer_that_needs_a_library_is_noted_with_its_key(tmp_path: Path, target: Path):
    pytest.importorskip("tokenizers")
    source = write_checkpoint(tmp_path / "hf")
    assert convert(source, target) == []
    value = tokenizer_json()
    value["normalizer"] = {"type": "NFC"}
    write_json(source / "tokenizer.json", value)
    (note,) = convert(source, target)
    assert 'normalizer = {"type": "NFC"}' in note and "fastgpt-c[tokenizers]" in note


def test_what_m_folder_converts_has_its_notes_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("tokenizers")
    monkeypatch.setenv("FASTGPT_CACHE", str(tmp_path / "cache"))
    source, value = write_checkpoint(tmp_path / "hf"), tokenizer_json()
    value["normalizer"] = {"type": "NFC"}
    write_json(source / "tokenizer.json", value)
    resolve(source, progress=True)
    assert "note: " in (shown := capsys.readouterr().err) and "normalizer" in shown


def test_added_tokens_json_counts_beside_tokenizer_json(tmp_path: Path, target: Path):
    source = write_checkpoint(tmp_path / "hf")
    with_pairs(source)
    write_json(source / "added_tokens.json", {"<new>": 260})
    convert(source, target)
    assert read_value(GGUFReader(target), "tokenizer.ggml.tokens")[260] == "<new>"


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_a_tied_model_may_be_saved_under_the_name_of_its_head_alone(tmp_path: Path, target: Path, prefix: str):
    source = write_checkpoint(tmp_path / "hf", prefix=prefix)
    convert(source, target)
    plain = target.read_bytes()
    edit_tensors(lambda tensors: tensors.update({"lm_head.weight": tensors.pop(f"{prefix}wte.weight")}))(source)
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


# ---- Writing -----------------------------------------------------------------------------------------------


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
    with failure(source) as error, pytest.raises(error) as raised:
        convert(source, target)
    assert failure is not disk_full or "cannot be written: is the disk full?" in str(raised.value)
    assert {path: path.read_bytes() for path in target.parent.iterdir()} == before


# Kills itself, as kill -9 would, at the given call of those that bring a file to the disk.
DIES = """
import os, sys
from pathlib import Path
from gguf import GGUFWriter
from fastgpt_c.convert import convert, gguf_file
n_calls = 0
def deadly(function):
    def call(*arguments):
        global n_calls
        n_calls += 1
        if n_calls == int(sys.argv[3]): os.kill(os.getpid(), 9)
        return function(*arguments)
    return call
GGUFWriter.write_tensor_data = deadly(GGUFWriter.write_tensor_data)
os.fsync, Path.replace = deadly(os.fsync), deadly(Path.replace)
gguf_file._replace_in_keys = deadly(gguf_file._replace_in_keys)
convert(Path(sys.argv[1]), Path(sys.argv[2]))
print(n_calls)
"""


def test_kill_9_leaves_the_old_file_or_the_new_one(tmp_path: Path, target: Path):
    """Killed before the first tensor, a middle one, the fingerprint, the sync, the renaming, the folder's sync.

    What is left then goes with the next conversion, but not what another process still writes.
    """
    source = write_checkpoint(tmp_path / "hf")
    convert(source, target, type="f16")
    old = target.read_bytes()

    def killed_at(call: int) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-c", DIES, str(source), str(target), str(call)]
        return subprocess.run(command, capture_output=True, cwd=tmp_path)

    n_calls = int(killed_at(-1).stdout)
    new = target.read_bytes()
    for call in (1, n_calls // 2, n_calls - 3, n_calls - 2, n_calls - 1, n_calls):
        target.write_bytes(old)
        assert killed_at(call).returncode == -9
        assert target.read_bytes() == (new if call == n_calls else old)

    left = set(target.parent.iterdir()) - {target}
    assert left
    in_use = left.pop()
    for part in (*left, in_use):
        os.utime(part, (0, 0))
    with in_use.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        convert(source, target)
        assert set(target.parent.iterdir()) == {target, in_use}
    in_use.touch()  # as if it had just been made, and were not locked yet
    convert(source, target)
    assert set(target.parent.iterdir()) == {target, in_use}
    os.utime(in_use, (0, 0))
    convert(source, target)
    assert set(target.parent.iterdir()) == {target}


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
import fastgpt_c.convert, fastgpt_c.checkpoints.resolve, fastgpt_c.errors
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
