"""Laws of files whose types no kernel computes with: read as the package gguf reads them, and run as Q8_0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import CONFIG, write_checkpoint
from conversions import back_by_gguf, by_gguf
from gguf import GGMLQuantizationType, GGUFReader

import fastgpt_c
from fastgpt_c.cli.__main__ import main
from fastgpt_c.convert import convert, quantize
from fastgpt_c.convert.gguf_arrays import ArrayReader, ArrayWriter
from fastgpt_c.convert.quantizer import _copy_keys
from fastgpt_c.errors import ModelFileError
from fastgpt_c.native.dtypes import row_bytes

Array = npt.NDArray[Any]

# Rows of 256 are whole blocks of every type.
SIZES = {**CONFIG, "n_embd": 256, "n_head": 4, "n_layer": 1, "n_inner": 256}
TYPES = ("q4_1", "q5_0", "q5_1", "q4_k", "q5_k")
# Where the F16 scales of a block stand, in halves.
N_SCALES = {"q4_1": 2, "q5_0": 1, "q5_1": 2, "q4_k": 2, "q5_k": 2}


def random_blocks(rng: np.random.Generator, type: str, n_rows: int, n: int) -> Array:
    """Any blocks with scales that leave weights of a common size; [n_rows][bytes]."""
    data = rng.integers(0, 256, (n_rows, row_bytes(type, n)), np.uint8)
    n_bytes = row_bytes(type, 256 if type.endswith("_k") else 32)
    halves = data.reshape(-1, n_bytes)[:, : 2 * N_SCALES[type]].view(np.float16)
    halves[:] = rng.uniform(-1, 1, halves.shape) * (2e-4 if type.endswith("_k") else 1e-2)
    return data


def rewrite(source: Path, target: Path, change: Callable[[str, Array], tuple[Array, str]]) -> Path:
    """source again with other matrices: change(name, data) -> (bytes, type)."""
    reader, writer = ArrayReader(source), ArrayWriter(target, "gpt2")
    _copy_keys(reader, writer)
    for tensor in reader.tensors:
        data, type = change(tensor.name, tensor.data) if tensor.data.ndim == 2 else (tensor.data, "f32")
        writer.add_tensor(tensor.name, data, raw_dtype=GGMLQuantizationType[type.upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recode")
    convert(write_checkpoint(folder / "hf", SIZES), folder / "plain.gguf")
    return folder / "plain.gguf"


def logits_of(path: Path) -> Array:
    with fastgpt_c.load(path) as model, model.session() as session:
        return session.prefill(list(range(60, 60 + model.n_ctx)), all_logits=True)


@pytest.mark.parametrize("type", TYPES)
def test_logits_are_those_of_the_file_rounded_to_q8_0(type: str, plain: Path, tmp_path: Path) -> None:
    """To the bit; the package gguf reads the blocks, and rounds their numbers."""
    rng = np.random.default_rng(0)
    blocks: dict[str, Array] = {}

    def of_type(name: str, data: Array) -> tuple[Array, str]:
        blocks[name] = random_blocks(rng, type, *data.shape)
        return blocks[name], type

    recoded = rewrite(plain, tmp_path / "recoded.gguf", of_type)
    rounded = rewrite(
        plain, tmp_path / "q8_0.gguf", lambda name, _: (by_gguf(back_by_gguf(blocks[name], type), "q8_0"), "q8_0")
    )
    logits = logits_of(recoded)
    assert np.isfinite(logits).all() and logits.std() > 0.01
    np.testing.assert_array_equal(logits, logits_of(rounded))


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
def test_a_scale_that_is_not_finite_is_refused_by_name(type: str, scale: float, plain: Path, tmp_path: Path) -> None:
    def with_bad_block(name: str, data: Array) -> tuple[Array, str]:
        blocks = random_blocks(np.random.default_rng(2), type, *data.shape)
        if name == "blk.0.ffn_up.weight":
            blocks[-1, -row_bytes(type, 256) :].view(np.float16)[N_SCALES[type] - 1] = scale
            blocks[-1] |= 1  # no group's scale or minimum is zero
        return blocks, type

    file = rewrite(plain, tmp_path / "bad.gguf", with_bad_block)
    with pytest.raises(ModelFileError, match=r"blk\.0\.ffn_up\.weight has numbers that are not finite, or too large"):
        fastgpt_c.load(file)


def test_the_file_s_own_type_is_told_and_widened(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """info names it; quantize widens it exactly, and refuses to round it a second time."""
    file = rewrite(
        plain,
        tmp_path / "x.gguf",
        lambda _, data: (random_blocks(np.random.default_rng(3), "q4_k", *data.shape), "q4_k"),
    )
    assert main(["info", str(file)]) == 0
    assert "Q4_K" in capsys.readouterr().out
    quantize(file, tmp_path / "wide.gguf", type="f32")
    wide = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "wide.gguf").tensors}
    for tensor in GGUFReader(file).tensors:
        if tensor.data.ndim == 2:
            np.testing.assert_array_equal(wide[tensor.name], back_by_gguf(tensor.data, "q4_k"))
    with pytest.raises(ModelFileError, match="is q4_k already"):
        quantize(file, tmp_path / "again.gguf", type="q8_0")
