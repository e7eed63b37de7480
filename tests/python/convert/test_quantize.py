"""Laws of quantisation: bytes are those of the package gguf, a file keeps all else, and little quality is lost."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import CONFIG, random_tensors, write_checkpoint
from command import FAILURE, WRONG_USAGE, assert_complains, output_of, run
from conversions import Bytes, Floats, back_by_gguf, by_gguf, disk_full, interrupted, keys_of
from gguf import GGUFReader, GGUFValueType, GGUFWriter, ReaderTensor
from paths import ROOT

import fastgpt_c
from fastgpt_c.convert import convert, gguf_file, huggingface, quantize
from fastgpt_c.convert.fingerprint import KEY, fingerprint_of
from fastgpt_c.errors import ModelFileError, UsageError
from fastgpt_c.native.dtypes import dequantize_rows, quantize_rows, row_bytes

# Numbers of this magnitude become infinity, or make the scale of their block infinite, which is an F16.
LIMITS = {"f16": 65520.0, "bf16": float.fromhex("0x1.FFp127"), "q8_0": 65520.0 * 127, "q4_0": 65520.0 * 8}


def bits(x: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


# ---- Numbers -----------------------------------------------------------------------------------------------

N = 512


def any_bits(rng: np.random.Generator, limit: float) -> Floats:
    """Every exponent, normal or not; what is too large is left out."""
    x = rng.integers(0, 2**32, (2000, N), np.uint64).astype(np.uint32).view(np.float32)
    return np.where(np.abs(x) < limit, x, np.float32(0.0))


def of_all_magnitudes(rng: np.random.Generator, limit: float) -> Floats:
    """Rows from 1e-36, whose scales vanish as F16, up to the limit."""
    x = rng.standard_normal((3000, N)) * np.exp2(rng.integers(-120, 130, (3000, 1)))
    return np.where(np.abs(x) < limit, x, 1.0).astype(np.float32)


def vanishing(rng: np.random.Generator, limit: float) -> Floats:
    """Scales that are denormal as F32, whose inverses overflow."""
    return (rng.standard_normal((1000, N)) * np.exp2(rng.integers(-149, -120, (1000, 1)))).astype(np.float32)


def q8_0_ties(rng: np.random.Generator, limit: float) -> Floats:
    """Halves of integers beside a 127: all in the middle of two numbers of q8_0."""
    x = rng.integers(-127, 127, (500, N)).astype(np.float32) + np.float32(0.5)
    x[:, ::32] = 127
    return x


def q4_0_ties(rng: np.random.Generator, limit: float) -> Floats:
    """Halves of integers beside 8s and -8s: ties, and blocks with two numbers of the largest magnitude."""
    x = rng.integers(-16, 17, (500, N)).astype(np.float32) / 2
    x[:, ::32] = 8
    return x


def half_ties(rng: np.random.Generator, limit: float) -> Floats:
    """Numbers in the middle of two neighbours in F16, and in BF16, and right beside."""
    fraction = rng.integers(0, 2**11, (500, N)) << 12 | rng.integers(-1, 2, (500, N))
    near = fraction.astype(np.int32) + np.int32(0x3F800000)
    return np.ldexp(near.view(np.float32), rng.integers(-26, 15, (500, N))).astype(np.float32)


def zeros(rng: np.random.Generator, limit: float) -> Floats:
    """Of both signs: the scale of a block has the sign of its first."""
    return np.where(rng.integers(0, 2, (50, N)), np.float32(0.0), np.float32(-0.0))


def largest(rng: np.random.Generator, limit: float) -> Floats:
    """The largest number that a type takes, among others."""
    x = rng.standard_normal((50, N)).astype(np.float32)
    x[:, ::7] = np.nextafter(np.float32(limit), np.float32(0)) * np.float32(-1)
    return x


KINDS = [any_bits, of_all_magnitudes, vanishing, q8_0_ties, q4_0_ties, half_ties, zeros, largest]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("type", LIMITS)
def test_bytes_are_those_of_the_gguf_package(type: str, kind: Callable[[np.random.Generator, float], Floats]) -> None:
    """Rounding, scales, signs of zero: every bit, there and back."""
    if kind in (vanishing, any_bits) and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("NumPy turns infinity into other integers here; what is tested are x86-64's")
    x = kind(np.random.default_rng(3), LIMITS[type])
    data = quantize_rows(x, type)
    np.testing.assert_array_equal(data, by_gguf(x, type))
    np.testing.assert_array_equal(bits(dequantize_rows(data, type, N)), bits(back_by_gguf(data, type)))


@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"])
def test_any_bytes_are_read_as_the_gguf_package_reads_them(type: str) -> None:
    data = np.random.default_rng(4).integers(0, 256, (500, row_bytes(type, N)), np.uint8)
    ours, theirs = dequantize_rows(data, type, N), back_by_gguf(data, type)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_array_equal(bits(np.nan_to_num(ours, nan=7)), bits(np.nan_to_num(theirs, nan=7)))


def test_f32_is_exact() -> None:
    x = any_bits(np.random.default_rng(5), np.inf)
    assert quantize_rows(x, "f32").tobytes() == x.tobytes()
    assert dequantize_rows(x, "f32", N).tobytes() == x.tobytes()


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
def test_leading_axes_stay(shape: tuple[int, ...]) -> None:
    x = np.full((*shape, 64), -127, np.int64)
    data = quantize_rows(x, "q8_0")
    assert data.shape == (*shape, 68)
    np.testing.assert_array_equal(dequantize_rows(data, "q8_0", 64), x)


@pytest.mark.parametrize("type", LIMITS)
@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "limit"])
def test_numbers_that_a_type_cannot_hold_are_refused(type: str, bad: str) -> None:
    x = np.zeros((3, N), np.float32)
    x[1, 77] = LIMITS[type] if bad == "limit" else float(bad)
    with pytest.raises(UsageError, match="NaN or infinite, or too large"):
        quantize_rows(x, type)


def test_rows_and_types_are_checked() -> None:
    with pytest.raises(UsageError, match="'q2_k' is not one of f32, f16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, "):
        quantize_rows(np.zeros(32), "q2_k")
    with pytest.raises(UsageError, match="rows of 33 numbers are not whole blocks of q4_0"):
        quantize_rows(np.zeros(33), "q4_0")
    with pytest.raises(UsageError, match="rows of 33 bytes are not 32 numbers of type q8_0, 34 bytes"):
        dequantize_rows(np.zeros(33, np.uint8), "q8_0", 32)
    for type in ("q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"):
        with pytest.raises(UsageError):
            quantize_rows(np.zeros(256), type)


# ---- Files -------------------------------------------------------------------------------------------------

# Rows of 64 are two blocks; those of ffn_down, 80 numbers, are no whole blocks.
SIZES: dict[str, Any] = {**CONFIG, "n_embd": 64, "n_head": 4, "n_inner": 80, "tie_word_embeddings": False}


def write_source(folder: Path, first_numbers: Mapping[str, float] = MappingProxyType({})) -> Path:
    """A checkpoint with an output layer of its own; some tensors begin with the numbers given."""
    tensors = random_tensors(SIZES)
    for name, value in first_numbers.items():
        tensors[name].flat[0] = value
    tensors["lm_head.weight"] = tensors["wte.weight"][::-1].copy()
    return write_checkpoint(folder, SIZES, tensors)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The same as an F32 file."""
    convert(write_source(tmp_path / "hf"), tmp_path / "source.gguf")
    return tmp_path / "source.gguf"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def bytes_of(tensor: ReaderTensor) -> Bytes:
    """[n_rows][bytes of a row], or one row."""
    return np.ascontiguousarray(tensor.data).view(np.uint8)


def numbers_of(tensor: ReaderTensor) -> Floats:
    return back_by_gguf(bytes_of(tensor), tensor.tensor_type.name.lower())


def expected_type(name: str, n_dimensions: int, type: str) -> str:
    """By hand: what a file of a type stores a tensor as."""
    if n_dimensions == 1 or name == "position_embd.weight":
        return "f32"
    if type == "q4_0" and name in ("token_embd.weight", "output.weight"):
        return "q8_0"
    return "f16" if type in ("q8_0", "q4_0") and "ffn_down" in name else type


@pytest.mark.parametrize("type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("source_type", ["f32", "f16", "bf16"])
def test_every_tensor_is_that_of_the_source_rounded_once(
    source: Path, target: Path, source_type: str, type: str
) -> None:
    """In its order, with its shape; the report has the errors that NumPy finds."""
    convert(source.parent / "hf", source, type=source_type)
    reports = quantize(source, target, type=type)
    before, after = GGUFReader(source).tensors, GGUFReader(target).tensors
    for old, new, report in zip(before, after, reports, strict=True):
        stored, x = expected_type(old.name, len(old.shape), type), numbers_of(old)
        assert (new.name, new.shape.tolist(), new.tensor_type.name) == (old.name, old.shape.tolist(), stored.upper())
        np.testing.assert_array_equal(bytes_of(new), by_gguf(x, stored))
        error = numbers_of(new).astype(np.float64) - x
        rms, scale = np.sqrt(np.mean(error**2)), np.sqrt(np.mean(x.astype(np.float64) ** 2))
        assert (report.name, report.shape, report.n_bytes) == (new.name, x.shape, new.n_bytes)
        assert (report.source_type, report.type) == (old.tensor_type.name.lower(), stored)
        assert (report.rms_error, report.relative_error) == pytest.approx((rms, rms / scale), rel=1e-9)


@pytest.mark.parametrize("type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_convert_quantises_in_one_go(source: Path, target: Path, type: str) -> None:
    """To the byte the file that two commands make."""
    convert(source.parent / "hf", target, type=type)
    quantize(source, source.with_name("two.gguf"), type=type)
    assert target.read_bytes() == source.with_name("two.gguf").read_bytes()


ODD_KEYS = {
    "general.license": (b"MIT \xff, not UTF-8", GGUFValueType.STRING, None),
    "general.tags": ([b"a", b"", b"\xe9"], GGUFValueType.ARRAY, GGUFValueType.STRING),
    "x.u8": (255, GGUFValueType.UINT8, None),
    "x.i64": (-(2**63), GGUFValueType.INT64, None),
    "x.f32": (float(np.float32(0.1)), GGUFValueType.FLOAT32, None),
    "x.f64": (0.1, GGUFValueType.FLOAT64, None),
    "x.bool": (True, GGUFValueType.BOOL, None),
    "x.i16s": ([-3, 4], GGUFValueType.ARRAY, GGUFValueType.INT16),
    "x.bools": ([True, False], GGUFValueType.ARRAY, GGUFValueType.BOOL),
}


def keys_and_bytes(path: Path) -> dict[str, list[bytes]]:
    """Every key, with its types and values as they are in the file."""
    fields = GGUFReader(path).fields
    return {name: [part.tobytes() for part in fields[name].parts] for name in keys_of(GGUFReader(path))}


def test_keys_are_copied(source: Path, target: Path) -> None:
    """Of every type, to the bit; only the type of the file is another."""
    contents = huggingface.read(source.parent / "hf")

    def add_all(writer: GGUFWriter) -> None:
        contents.add_keys(writer)
        for name, (value, type, sub_type) in ODD_KEYS.items():
            writer.add_key_value(name, value, type, sub_type)

    gguf_file.write(source, replace(contents, add_keys=add_all), type="f32", progress=False)
    quantize(source, target, type="q4_0")
    before, after = keys_and_bytes(source), keys_and_bytes(target)
    assert set(before) == set(after) >= set(ODD_KEYS)
    assert {name for name in before if before[name] != after[name]} == {"general.file_type", KEY}
    fields = GGUFReader(target).fields
    assert (fields["general.file_type"].contents(), fields["general.quantization_version"].contents()) == (2, 2)


def test_blocks_are_never_rounded_twice(source: Path, target: Path) -> None:
    """The same type copies them, F32 holds them exactly, and anything else is refused by name."""
    again = target.with_name("again.gguf")
    for type in ("q8_0", "q4_0"):
        quantize(source, target, type=type)
        GGUFReader(target, "r+").tensors[0].data[:, 2:34] = 7  # a block that rounding again would change
        quantize(target, again, type=type)
        stated, found = (GGUFReader(path).fields[KEY].contents().encode() for path in (target, again))
        assert found == fingerprint_of(target).encode() != stated
        assert again.read_bytes() == target.read_bytes().replace(stated, found)
        quantize(target, again, type="f32")
        for wide, narrow in zip(GGUFReader(again).tensors, GGUFReader(target).tensors, strict=True):
            np.testing.assert_array_equal(wide.data, numbers_of(narrow))
        again.unlink()
        for other in {"q8_0", "q4_0", "f16", "bf16"} - {type}:
            with pytest.raises(ModelFileError, match=r"q[48]_0 already.* start from the file with f32, f16 or bf16"):
                quantize(target, again, type=other)
            assert not again.exists()


@pytest.mark.parametrize("activation", ["gelu_new", "silu"])
def test_the_fingerprint_is_that_of_the_new_file(tmp_path: Path, target: Path, activation: str) -> None:
    """For either architecture, which stays."""
    source = tmp_path / "f32.gguf"
    convert(write_checkpoint(tmp_path / "hf", {**CONFIG, "activation_function": activation}), source)
    quantize(source, target, type="q8_0")
    fields = GGUFReader(target).fields
    assert fields[KEY].contents() == fingerprint_of(target) != fingerprint_of(source)
    assert fields["general.architecture"].contents() == ("gpt2" if activation == "gelu_new" else "fastgpt-gpt2")
    with fastgpt_c.load(target) as model:
        assert model.activation == {"gelu_new": "gelu_tanh"}.get(activation, activation)


@contextmanager
def too_large(source: Path) -> Iterator[type[BaseException]]:
    convert(write_source(source.parent / "hf", {"h.1.mlp.c_fc.weight": 1e7}), source)
    yield ModelFileError


@pytest.mark.parametrize("failure", [interrupted, disk_full, too_large])
def test_a_failure_half_way_leaves_no_trace(
    source: Path, target: Path, failure: Callable[[Path], AbstractContextManager[type[BaseException]]]
) -> None:
    target.write_bytes(source.read_bytes())
    before = target.read_bytes()
    with failure(source) as error, pytest.raises(error):
        quantize(source, target, type="q8_0")
    assert {path: path.read_bytes() for path in target.parent.iterdir()} == {target: before}


@pytest.mark.parametrize(
    ("type", "name", "value", "words"),
    [
        ("f16", "h.0.ln_1.bias", np.nan, "blk.0.attn_norm.bias has NaN or infinite values"),
        ("q4_0", "wte.weight", 65520 * 127, "token_embd.weight has values up to 8.32104e+06, too large for q8_0"),
        ("q8_0", "h.1.mlp.c_proj.weight", -7e4, "blk.1.ffn_down.weight has values up to 70000, too large for f16"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(
    tmp_path: Path, type: str, name: str, value: float, words: str
) -> None:
    folder = write_source(tmp_path / "hf", {name: value})
    with pytest.raises(ModelFileError, match=re.escape(words)):
        convert(folder, tmp_path / "x.gguf", type=type)
    assert not (tmp_path / "x.gguf").exists()


# ---- The command -------------------------------------------------------------------------------------------


def test_the_command_reports_every_tensor(source: Path, target: Path) -> None:
    """A line each on stdout, the sizes of both files on stderr; the file works."""
    result = run("quantize", source, target, "--type", "q4_0")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.decode().splitlines()}
    assert list(lines) == [tensor.name for tensor in GGUFReader(source).tensors]
    assert lines["blk.1.attn_norm.bias"] == "[64] f32 256 bytes exact"
    assert lines["blk.0.ffn_down.weight"].startswith("[64][80] f32 -> f16 10,240 bytes error ")
    error = r"error \d\.\d\de-\d\d \(\d+\.\d{3}%\)"
    assert re.fullmatch(r"\[80\]\[64\] f32 -> q4_0 2,880 bytes " + error, lines["blk.0.ffn_up.weight"])
    sizes = f"{target}: {target.stat().st_size:,} bytes, {source}: {source.stat().st_size:,} bytes\n"
    assert (result.returncode, result.stderr.decode()) == (0, sizes)


def test_the_command_takes_what_m_takes(source: Path, target: Path) -> None:
    """The folder of a checkpoint, for example; and what comes out generates."""
    cache = str(source.parent / "cache")
    done = run("quantize", source.parent / "hf", target, "--type", "q8_0", FASTGPT_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert output_of("generate", "-m", target, "a", "-n", "3", "--temperature", "0")


def test_the_command_refuses_in_one_line(source: Path, target: Path) -> None:
    q8_0 = source.with_name("q8_0.gguf")
    quantize(source, q8_0, type="q8_0")
    damaged = source.with_name("damaged.gguf")
    damaged.write_bytes(source.read_bytes()[:-1000])
    assert_complains(run("quantize", q8_0, target, "--type", "q4_0"), FAILURE, str(q8_0), "is q8_0 already")
    assert_complains(run("quantize", damaged, target, "--type", "q4_0"), FAILURE, str(damaged))
    assert_complains(run("quantize", source.parent / "no.gguf", target, "--type", "q4_0"), FAILURE, "no such file")
    assert_complains(run("quantize", source, source.parent / "hf", "--type", "q4_0"), FAILURE, "is a folder")
    for arguments in (["--type", "q5_1"], []):
        result = run("quantize", source, target, *arguments)
        assert result.returncode == WRONG_USAGE and b"--type" in result.stderr
    assert list(target.parent.iterdir()) == []


# ---- Quality -----------------------------------------------------------------------------------------------


def test_rounded_weights_predict_almost_as_well(tmp_path: Path) -> None:
    """On some pages that the demo model has not seen: perplexity within 0.1% of F32 for F16 and BF16, 0.5% for Q8_0; by
    either way through the kernels.  tools/quality.py prints the table of docs/quality.md on the whole text."""
    text = (ROOT / "tests" / "data" / "fairy_tales_heldout.txt").read_text(encoding="utf-8")
    (tmp_path / "text").write_text(text[:2000], encoding="utf-8")
    command = [sys.executable, ROOT / "tools" / "quality.py", tmp_path / "text"]
    output = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True).stdout
    rows = [[cell.strip(" %") for cell in row.split("|")[1:-1]] for row in output.splitlines() if row.startswith("| ")]
    changes = {(type, path): abs(float(change)) for type, _, path, _, change, *_ in rows[1:]}
    bounds = {"f32": 0.001, "f16": 0.1, "bf16": 0.1, "q8_0": 0.5, "i8": 1.0, "q4_0": 5.0}
    assert changes.keys() == {(type, path) for type in bounds for path in ("prefill", "decode")}
    assert {key: change for key, change in changes.items() if change > bounds[key[0]]} == {}
