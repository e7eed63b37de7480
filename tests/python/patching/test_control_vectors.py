"""Steered texts, alone and in batches; files of control vectors, and what is wrong in hostile ones."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import fastgpt_c
from fastgpt_c import ControlVector, Edit, patching
from fastgpt_c.errors import FastGPTError, ModelFileError, UsageError

PROMPT = "Once upon a time, there was a little"


@pytest.fixture(scope="module")
def sad(demo: fastgpt_c.Model) -> ControlVector:
    pairs = [("The girl was very sad", "The girl was very happy"), ("Tim began to cry", "Tim began to laugh")]
    return patching.control_vector(demo, pairs, [3]).times(4)


@pytest.fixture(scope="module")
def demo() -> Any:
    with fastgpt_c.load() as model:
        yield model


def test_a_steered_text_is_that_of_edited_steps(demo: fastgpt_c.Model, sad: ControlVector) -> None:
    """Greedy: each token is the likeliest after a prefill of all before it, with the vector added everywhere."""
    text = demo.generate(PROMPT, max_new_tokens=12, temperature=0, control_vector=sad)
    tokens = demo.encode(PROMPT)
    for token in text.tokens:
        with demo.session() as session:
            edit = Edit(3, "resid_post", "add", np.asarray(sad.directions[3]) * 4)
            assert session.prefill(tokens, edits=[edit]).argmax() == token
        tokens.append(token)
    assert text.text != demo.generate(PROMPT, max_new_tokens=12, temperature=0).text
    other = demo.generate(PROMPT, max_new_tokens=12, temperature=0, control_vector=sad.times(0))
    assert other.text == demo.generate(PROMPT, max_new_tokens=12, temperature=0).text


def test_a_batch_gives_the_texts_of_lone_runs(demo: fastgpt_c.Model, sad: ControlVector) -> None:
    """Steered this way, that way and not at all, in one batch whose prompts begin alike."""
    prompts = [PROMPT + end for end in (" girl", " boy", " dog", " girl")] * 2
    vectors = [None, sad, sad.times(-1), sad] * 2
    options = {"max_new_tokens": 10, "temperature": 0.7, "deterministic": True}
    lone = [
        demo.generate(prompt, seed=i, control_vector=vector, **options).text  # type: ignore[arg-type]
        for i, (prompt, vector) in enumerate(zip(prompts, vectors, strict=True))
    ]
    requests = [
        fastgpt_c.Request(prompt, seed=i, control_vector=vector, max_new_tokens=10, temperature=0.7)
        for i, (prompt, vector) in enumerate(zip(prompts, vectors, strict=True))
    ]
    for max_batch in (3, 8):
        batch = demo.generate_batch(requests, max_batch=max_batch, deterministic=True)
        assert [completion.text for completion in batch] == lone
    assert len({*lone}) >= 5


def test_vectors_of_pairs(demo: fastgpt_c.Model) -> None:
    """The mean difference after the last tokens; by pca its axis is unit length times that of the mean."""
    pairs: list[tuple[Any, Any]] = [("a b c", "a b d"), (demo.encode("The sun"), demo.encode("The moon was"))]
    with demo.session() as session:
        ends = [[], []]  # type: ignore[var-annotated]
        for pair in pairs:
            for side, prompt in zip(ends, pair, strict=True):
                session.truncate(0)
                tokens = demo.encode(prompt) if isinstance(prompt, str) else prompt
                side.append(session.inspect(tokens, "hidden")["hidden"][4, -1].astype(np.float64))
    differences = np.array(ends[0]) - np.array(ends[1])
    by_mean, by_axis = (
        np.asarray(patching.control_vector(demo, pairs, [3], kind).directions[3]) for kind in ("mean", "pca")
    )
    np.testing.assert_allclose(by_mean, differences.mean(axis=0), atol=1e-4)
    assert np.linalg.norm(by_axis) == pytest.approx(np.linalg.norm(by_mean), rel=1e-4) and by_axis @ by_mean > 0
    captured = [np.linalg.norm(differences @ v) / np.linalg.norm(v) for v in (by_axis, by_mean)]
    assert captured[0] >= captured[1] * (1 - 1e-5)
    assert list(patching.control_vector(demo, pairs).directions) == list(range(1, demo.n_layer))


def test_files_go_round(demo: fastgpt_c.Model, tmp_path: Path) -> None:
    """Written and read again; the package gguf reads it as llama.cpp would; strength is multiplied in."""
    rng = np.random.default_rng(0)
    made = ControlVector({1: rng.standard_normal(7), 4: rng.standard_normal(7)}, 2.5)
    path = tmp_path / "v.gguf"
    patching.save_control_vector(path, made)
    read = patching.load_control_vector(path, -1)
    assert read.strength == -1 and list(read.directions) == [1, 4]
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.layer_count"].contents() == 2
    for tensor in reader.tensors:
        layer = int(tensor.name.removeprefix("direction."))
        expected = np.asarray(made.directions[layer]) * np.float32(2.5)
        assert np.array_equal(tensor.data, expected) and np.array_equal(read.directions[layer], expected)
    patching.save_control_vector(path, read)  # its own kind may be replaced
    with pytest.raises(UsageError, match="layer 0 out"):
        patching.save_control_vector(path, ControlVector({0: [1.0]}))
    model = tmp_path / "model.gguf"
    model.write_bytes(demo.path.read_bytes())
    with pytest.raises(UsageError, match="no control vector"):
        patching.save_control_vector(model, made)
    assert model.read_bytes() == demo.path.read_bytes()


def test_a_file_of_llama_cpp_loads(tmp_path: Path) -> None:
    """As its cvector-generator writes one: by the package gguf, with further keys."""
    path = tmp_path / "v.gguf"
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_array("tokens", ["a", "b"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_float32("scale", 0.5)
    for layer in (1, 2, 11):
        writer.add_tensor(f"direction.{layer}", np.full(5, layer, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert [vector[0] for vector in map(np.asarray, patching.load_control_vector(path).directions.values())] == [
        1,
        2,
        11,
    ]


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    """Cut at any byte, or with any byte changed: read, or an error that names the file; nothing else."""
    good, bad = tmp_path / "good.gguf", tmp_path / "bad.gguf"
    patching.save_control_vector(good, ControlVector({1: [1.0, 2.0, 3.0], 2: [0.5, 0.25, 0.125]}))
    data = good.read_bytes()
    rng = np.random.default_rng(1)
    for n in range(len(data) - 20):  # the last 20 bytes are padding
        bad.write_bytes(data[:n])
        with pytest.raises(ModelFileError, match=r"bad\.gguf"):
            patching.load_control_vector(bad)
    n_read = 0
    for at in range(len(data)):
        for value in {0, 255, data[at] ^ 1, int(rng.integers(256))} - {data[at]}:
            bad.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                patching.load_control_vector(bad)
                n_read += 1
            except ModelFileError as error:
                assert "bad.gguf" in str(error)
    assert n_read > 0  # numbers changed, and keys that nobody reads


@pytest.mark.parametrize(
    ("name", "values", "culprit"),
    [
        ("direction.0", [1.0], "direction.0"),
        ("direction.01", [1.0], "direction.01"),
        ("direct", [1.0], "'direct'"),
        ("direction.1", [float("nan")], "not finite"),
    ],
)
def test_wrong_tensors_are_named(tmp_path: Path, name: str, values: list[float], culprit: str) -> None:
    from fastgpt_c.io.gguf_vectors import write_vectors

    path = tmp_path / "v.gguf"
    write_vectors(path, {"general.architecture": "controlvector"}, {name: np.array(values, np.float32)})
    with pytest.raises(ModelFileError, match=culprit):
        patching.load_control_vector(path)


def test_other_files(demo: fastgpt_c.Model, tmp_path: Path) -> None:
    """A model, another version, an absent file, one that claims more than it has."""
    with pytest.raises(ModelFileError, match="gguf"):
        patching.load_control_vector(demo.path)
    path = tmp_path / "v.gguf"
    for data, match in ((b"GGUF" + struct.pack("<IQQ", 2, 0, 0), "version 2"), (b"PK", "not a GGUF"),
                        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 1), "too many")):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(ModelFileError, match=match):
            patching.load_control_vector(path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        patching.load_control_vector(tmp_path / "none.gguf")
    with pytest.raises(FastGPTError):
        patching.save_control_vector(tmp_path / "no" / "v.gguf", ControlVector({1: [1.0]}))


def test_sums_and_layers() -> None:
    """A sum adds directions times strengths, layer by layer; a range keeps the layers within, and the strength."""
    one = ControlVector({1: [1.0, 2.0], 2: [3.0, 4.0]}, 2)
    both = one.plus(ControlVector({2: [1.0, 0.0], 5: [0.5, 0.5]}, -1))
    assert both.strength == 1
    assert {layer: np.asarray(vector).tolist() for layer, vector in both.directions.items()} == {
        1: [2.0, 4.0], 2: [5.0, 8.0], 5: [-0.5, -0.5],
    }  # fmt: skip
    part = one.within(2, 7)
    assert list(part.directions) == [2] and part.strength == 2
    with pytest.raises(UsageError, match="no layer from 3 to 7; its own are 1 to 2"):
        one.within(3, 7)
    with pytest.raises(UsageError, match="2 numbers a layer, the other one 3"):
        one.plus(ControlVector({1: [1.0, 2.0, 3.0]}))


def test_what_cannot_steer(demo: fastgpt_c.Model) -> None:
    """A vector that does not fit the model, or is none; searches with steps of their own."""
    vector = np.zeros(demo.n_embd, np.float32)
    for error, options in (
        ("n_embd is", {"control_vector": ControlVector({1: [1.0]})}),
        ("has layer 6", {"control_vector": ControlVector({6: vector})}),
        ("not a ControlVector", {"control_vector": 3}),
        ("prompt_lookup has steps of its own", {"control_vector": ControlVector({1: vector}), "prompt_lookup": 3}),
    ):
        with pytest.raises(UsageError, match=error):
            demo.generate(PROMPT, **options)  # type: ignore[arg-type]
    for make, error in (
        (lambda: ControlVector({}), "directions is"),
        (lambda: ControlVector({1: [np.nan]}), "finite"),
        (lambda: ControlVector({1: [1.0], 2: [1.0, 2.0]}), "lengths"),
        (lambda: ControlVector({-1: [1.0]}), "layer is -1"),
        (lambda: ControlVector({1: [1.0]}, np.inf), "strength"),
        (lambda: fastgpt_c.steer(demo, [1.0], 2), "n_embd"),
        (lambda: patching.control_vector(demo, []), "at least one pair"),
        (lambda: patching.control_vector(demo, [("a", "b")], method="sum"), "method is 'sum'"),
    ):
        with pytest.raises(UsageError, match=error):
            make()
