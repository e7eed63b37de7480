"""Laws of fastGPT's own model files: what its create_model.py writes becomes the file of the checkpoint itself."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import CONFIG, MERGES, random_tensors, vocabulary, write_checkpoint
from mutants import N_MUTANTS, mutate_bytes
from watched import Job, run_all

import fastgpt_c
from fastgpt_c.convert import convert, fastgpt
from fastgpt_c.convert.fingerprint import fingerprint_of
from fastgpt_c.errors import ModelFileError
from fastgpt_c.tokenizers.bpe_python import BYTE_TO_CHARACTER

SIZES = {**CONFIG, "vocab_size": 260, "layer_norm_epsilon": 1e-5}
PARTS = {"mlp_fc": "mlp.c_fc", "mlp_proj": "mlp.c_proj", "attn": "attn.c_attn", "attn_proj": "attn.c_proj"}

Arrays = dict[str, npt.NDArray[Any]]


def text_arrays(name: str, texts: list[str]) -> Arrays:
    ends = np.cumsum([0, *(len(text.encode()) for text in texts)]).astype(np.int32)
    return {f"{name}_idx": ends, f"{name}_txt": np.frombuffer("".join(texts).encode(), np.int8)}


def arrays_of(version: int) -> Arrays:
    """The header and the arrays, in the order of fastGPT's driver.f90."""
    tensors, layers = random_tensors(SIZES), range(SIZES["n_layer"])
    arrays: Arrays = {"wte": tensors["wte.weight"], "wpe": tensors["wpe.weight"]}
    for ours, theirs in PARTS.items():
        for short, kind in (("w", "weight"), ("b", "bias")):
            arrays[f"{ours}_{short}"] = np.stack([tensors[f"h.{i}.{theirs}.{kind}"] for i in layers])
    for norm in ("ln_1", "ln_2"):
        for short, kind in (("b", "bias"), ("g", "weight")):
            arrays[norm.replace("_", "") + f"_{short}"] = np.stack([tensors[f"h.{i}.{norm}.{kind}"] for i in layers])
    arrays |= {"lnf_b": tensors["ln_f.bias"], "lnf_g": tensors["ln_f.weight"]}
    arrays |= text_arrays("decoder", list(vocabulary())) | text_arrays("vocab", [*MERGES, ""])
    arrays["byte_encoder"] = np.array([ord(character) for character in BYTE_TO_CHARACTER], np.int32)
    lengths = [arrays[name].size for name in ("decoder_idx", "decoder_txt", "vocab_idx", "vocab_txt", "byte_encoder")]
    sizes = [SIZES[name] for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")]
    return {"header": np.array([0xFA51697, version, *sizes, *lengths], np.int32), **arrays}


def write_dat(path: Path) -> Path:
    path.write_bytes(b"".join(array.tobytes() for array in arrays_of(1).values()))
    return path


def write_gguf(path: Path) -> Path:
    """Twice, as fastGPT does: the place of the data is known after the first time."""
    place = 0
    for _ in range(2):
        writer = gguf.GGUFWriter(path, "")  # no architecture
        writer.add_int32("general.data_offset", place)
        for name, array in arrays_of(2).items():
            writer.add_tensor({"decoder_idx": "idx", "byte_encoder": "byte_decoder"}.get(name, name), array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        place = gguf.GGUFReader(path).tensors[0].data_offset
    return path


WRITERS = {"model.dat": write_dat, "model.gguf": write_gguf}


@pytest.mark.parametrize("name", WRITERS)
def test_it_becomes_the_file_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    """The same sizes, weights, tokens and merges; and text runs."""
    convert(WRITERS[name](tmp_path / name), tmp_path / "x.gguf")
    convert(write_checkpoint(tmp_path / "hf", SIZES, random_tensors(SIZES)), tmp_path / "expected.gguf")
    assert fingerprint_of(tmp_path / "x.gguf") == fingerprint_of(tmp_path / "expected.gguf")
    with fastgpt_c.load(tmp_path / "x.gguf") as model, fastgpt_c.load(tmp_path / "expected.gguf") as expected:
        assert model.name == name
        assert model.eos_token == expected.eos_token == 259
        for text in ("the he", "h\n\u00e9<|endoftext|> the"):
            assert model.encode(text) == expected.encode(text)
        bias = {259: float("-inf")}
        assert len(model.generate("h", max_new_tokens=3, temperature=0, logit_bias=bias).tokens) == 3


@pytest.mark.parametrize("name", WRITERS)
def test_unconverted_it_is_refused_with_the_command(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / name)
    done = subprocess.run([sys.executable, "-m", "fastgpt_c", "generate", "-m", str(path), "h"], capture_output=True,
                          text=True, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 1
    assert "a model file of fastGPT" in done.stderr and "fastgpt-c convert THIS_FILE -o" in done.stderr


def spoiled(index: int, value: int) -> bytes:
    arrays = arrays_of(1)
    arrays["header"][index] = value
    return b"".join(array.tobytes() for array in arrays.values())


@pytest.mark.parametrize(
    ("index", "value", "culprit"),
    [
        (1, 3, "version 3 of fastGPT's format"),
        (2, -1, "a size is negative"),
        (3, 8, "but its header implies"),
        (5, 2**31 - 1, "but its header implies"),
        (6, 5, "n_embd = 36 is not a multiple of n_head = 5"),
        (6, 0, "n_head = 0 is not a positive"),
    ],
)
def test_damaged_headers_are_refused(index: int, value: int, culprit: str, tmp_path: Path) -> None:
    path = tmp_path / "model.dat"
    path.write_bytes(spoiled(index, value))
    with pytest.raises(ModelFileError, match=culprit):
        convert(path, tmp_path / "x.gguf")


def test_damaged_texts_are_refused(tmp_path: Path) -> None:
    path, sound = tmp_path / "model.dat", write_dat(tmp_path / "sound.dat").read_bytes()
    for change, culprit in (
        (lambda data: data.replace(b"<|endof", b"<|end\xff\xff"), "decoder_txt is not UTF-8"),
        (lambda data: data.replace(b"h e", b"h_e"), "is not a merge rule"),
        (lambda data: data[:-4] + b"\1\0\0\0", "not GPT-2's alphabet"),
        (lambda data: data[:-1], "but its header implies"),
        (lambda data: b"\0" + data[1:], "is a file, and none of fastGPT"),
    ):
        path.write_bytes(change(sound))
        with pytest.raises(ModelFileError, match=culprit):
            convert(path, tmp_path / "x.gguf")


@pytest.mark.parametrize("name", WRITERS)
def test_mutants_are_read_or_refused(name: str, tmp_path: Path) -> None:
    """FASTGPT_TEST_MUTANTS of them, half of them damaged near the beginning."""
    path = WRITERS[name](tmp_path / name)
    sound = path.read_bytes()

    def mutant(i: int) -> bytes:
        random_ = random.Random(f"{name} {i}")
        return mutate_bytes(sound[:1600], random_) + sound[1600:] if i % 2 else mutate_bytes(sound, random_)

    def read(i: int) -> bool:
        try:
            if not fastgpt.is_model(path):
                return False
            contents = fastgpt.read(path)
            assert [name for name, _ in contents.data] == list(contents.shapes)
        except ModelFileError as error:
            assert str(path) in str(error)
            return False
        return True

    job = Job(lambda: read(0), lambda i: path.write_bytes(mutant(i)), read, lambda i: repr(mutant(i)[:3000]))
    print(f"{name}: {N_MUTANTS} mutants, {run_all(job, N_MUTANTS)}")
