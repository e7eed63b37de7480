"""Laws of weights with one scale a row (i8): what is rounded, where it lies in the file, and that it comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import CONFIG, random_tensors, write_checkpoint
from command import output_of
from gguf import GGUFReader

import fastgpt_c
from fastgpt_c.convert import convert, quantize
from fastgpt_c.convert.fingerprint import KEY, fingerprint_of
from fastgpt_c.errors import ModelFileError, UsageError
from fastgpt_c.native.dtypes import dequantize_rows, quantize_rows, row_bytes, rows_of_tiles, tiles_of_rows

Floats = npt.NDArray[np.float32]

# n_vocab fills no whole tile of 16 rows; rows of ffn_down have 80 numbers, no multiple of 64, and become f16.
SIZES = {**CONFIG, "n_embd": 64, "n_head": 4, "n_inner": 80, "vocab_size": 523}


# ---- Rows --------------------------------------------------------------------------------------------------


def test_a_value_is_off_by_half_a_step_at_most() -> None:
    """The step is 1/127 of the row's largest; rows of zeros and of numbers near the smallest stay finite."""
    x = np.random.default_rng(1).standard_normal((2000, 192)).astype(np.float32)
    x *= np.exp2(np.arange(2000) % 230 - 105).astype(np.float32)[:, None]
    x[3] = 0
    x[4] = np.float32(1e-45)
    data = quantize_rows(x, "i8")
    assert data.shape == (2000, 196)
    back = dequantize_rows(data, "i8", 192)
    step = np.abs(x).max(axis=1, keepdims=True).astype(np.float64) / 127
    assert (np.abs(back - x.astype(np.float64)) <= step * (0.5 + 1e-5) + 1e-44).all()
    assert data[:, :192].min() >= 1  # -127


def test_tiles_and_rows_are_the_same_numbers() -> None:
    rows = quantize_rows(np.random.default_rng(2).standard_normal((37, 128)).astype(np.float32), "i8")
    tiles, scales = tiles_of_rows(rows)
    assert (tiles.shape, scales.shape) == ((3, 32, 64), (37,))
    for row, k in ((0, 0), (5, 7), (36, 127), (20, 66)):
        assert tiles[row // 16, k // 4, 4 * (row % 16) + k % 4] == rows[row, k]
    np.testing.assert_array_equal(rows_of_tiles(tiles, scales), rows)
    np.testing.assert_array_equal(rows_of_tiles(tiles, scales, [36, 0, 36]), rows[[36, 0, 36]])


def test_rows_that_are_no_rows_of_it_are_refused() -> None:
    assert (row_bytes("i8", 64), row_bytes("i8", 96), row_bytes("i8", 65536), row_bytes("i8", 65600)) == (
        68,
        0,
        65540,
        0,
    )
    with pytest.raises(UsageError, match="rows of 96 numbers are not whole blocks of i8"):
        quantize_rows(np.zeros(96), "i8")
    for bad in (np.nan, np.inf):
        with pytest.raises(UsageError, match="NaN or infinite"):
            quantize_rows(np.array([bad] + [0.0] * 63), "i8")


# ---- Files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same checkpoint as f32, as i8, and as the f32 of that i8."""
    folder = tmp_path_factory.mktemp("i8")
    checkpoint = write_checkpoint(folder / "hf", SIZES, random_tensors(SIZES))
    paths = {name: folder / f"{name}.gguf" for name in ("f32", "i8", "back", "converted")}
    convert(checkpoint, paths["f32"])
    quantize(paths["f32"], paths["i8"], type="i8")
    quantize(paths["i8"], paths["back"], type="f32")
    convert(checkpoint, paths["converted"], type="i8")
    return paths


def tensors_of(path: Path) -> dict[str, tuple[str, Floats]]:
    return {tensor.name: (tensor.tensor_type.name, tensor.data) for tensor in GGUFReader(path).tensors}


def test_matrices_of_products_are_tiles_with_scales(files: dict[str, Path]) -> None:
    """And everything else is as in f32, but for rows that are not whole blocks."""
    before, after = tensors_of(files["f32"]), tensors_of(files["i8"])
    for name, (_, x) in before.items():
        type, data = after.pop(name)
        if x.ndim == 1 or name == "position_embd.weight":
            np.testing.assert_array_equal(data, x)
        elif "ffn_down" in name:
            assert type == "F16"
        else:
            tiles, scales = tiles_of_rows(quantize_rows(x, "i8"))
            scale_type, stored_scales = after.pop(name.replace(".weight", ".scale"))
            assert (type, scale_type) == ("I8", "F32")
            np.testing.assert_array_equal(data.view(np.uint8), tiles)
            np.testing.assert_array_equal(stored_scales, scales)
    assert not after


def test_the_file_says_what_it_is(files: dict[str, Path]) -> None:
    """Another architecture than gpt2, which other programs refuse; without the tiles it is gpt2 again."""
    assert files["converted"].read_bytes() == files["i8"].read_bytes()
    architectures = [
        GGUFReader(files[name]).fields["general.architecture"].contents() for name in ("f32", "i8", "back")
    ]
    assert architectures == ["gpt2", "fastgpt-gpt2", "gpt2"]
    assert GGUFReader(files["i8"]).fields[KEY].contents() == fingerprint_of(files["i8"])
    assert all(tensor.data_offset % 64 == 0 for tensor in GGUFReader(files["i8"]).tensors)
    info = output_of("info", "-m", files["i8"])
    assert b"I8" in info and b"523" in info


def test_the_way_back_is_exact(files: dict[str, Path]) -> None:
    """f32 holds every weight; i8 is copied as it is; no other type rounds it again."""
    narrow, wide = tensors_of(files["i8"]), tensors_of(files["back"])
    for name, (type, data) in wide.items():
        assert type == "F32"
        if narrow[name][0] == "I8":
            rows = rows_of_tiles(narrow[name][1], narrow[name.replace(".weight", ".scale")][1])
            np.testing.assert_array_equal(data, dequantize_rows(rows, "i8", data.shape[-1]))
    again = files["i8"].with_name("again.gguf")
    quantize(files["i8"], again, type="i8")
    assert again.read_bytes() == files["i8"].read_bytes()
    for other in ("q8_0", "f16", "q4_0"):
        with pytest.raises(ModelFileError, match="is i8 already"):
            quantize(files["i8"], again, type=other)


def test_an_activation_of_its_own_stays(tmp_path: Path) -> None:
    sizes = {**SIZES, "activation_function": "silu"}
    convert(write_checkpoint(tmp_path / "hf", sizes, random_tensors(sizes)), tmp_path / "i8.gguf", type="i8")
    quantize(tmp_path / "i8.gguf", tmp_path / "back.gguf", type="f32")
    for name in ("i8", "back"):
        assert GGUFReader(tmp_path / f"{name}.gguf").fields["general.architecture"].contents() == "fastgpt-gpt2"
        with fastgpt_c.load(tmp_path / f"{name}.gguf") as model:
            assert model.activation == "silu"


# ---- The model ---------------------------------------------------------------------------------------------


def logits_of(path: Path, tokens: list[int]) -> Floats:
    with fastgpt_c.load(path) as model, model.session() as session:
        return session.prefill(tokens, all_logits=True)


def test_it_predicts_what_its_weights_predict_in_f32(files: dict[str, Path]) -> None:
    """Only activations are rounded, to 1/127 of a token's largest."""
    tokens = [int(token) for token in np.random.default_rng(3).integers(0, 523, SIZES["n_positions"])]
    i8, back = logits_of(files["i8"], tokens), logits_of(files["back"], tokens)
    assert 0 < np.abs(i8 - back).max() < 0.1 * back.std()


def test_tensors_are_those_of_the_f32_file(files: dict[str, Path]) -> None:
    with fastgpt_c.load(files["i8"]) as tiled, fastgpt_c.load(files["back"]) as wide:
        for name in ("token_embd.weight", "blk.1.attn_qkv.weight", "blk.0.ffn_down.weight", "blk.0.ffn_up.bias"):
            np.testing.assert_array_equal(tiled.tensor(name), wide.tensor(name))
        np.testing.assert_array_equal(
            tiled.tensor("output.weight", rows=[522, 0]), wide.tensor("output.weight", rows=[522, 0])
        )
        assert tiled.tensor("token_embd.scale").shape == (523,)
        assert (tiled.n_vocab, tiled.n_params, tiled.type) == (wide.n_vocab, wide.n_params, "I8")
