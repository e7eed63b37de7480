"""Laws of the converter beyond plain GPT-2: variants of the architecture, model cards, fingerprints, memory."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import CONFIG, edit_tensors, random_tensors, source_shapes, write_checkpoint, write_json
from conversions import keys_of, read_value
from gguf import GGUFReader

from fastgpt_c.convert import convert
from fastgpt_c.convert.fingerprint import fingerprint_of


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


@pytest.mark.parametrize("name", ["gelu", "relu", "silu"])
def test_another_activation_is_another_architecture(tmp_path: Path, target: Path, name: str):
    """No key of gpt2 is left, so that llama.cpp cannot take the file for one."""
    convert(write_checkpoint(tmp_path / "hf", {**CONFIG, "activation_function": name}), target)
    reader = GGUFReader(target)
    assert read_value(reader, "general.architecture") == "fastgpt-gpt2"
    assert read_value(reader, "fastgpt-gpt2.activation") == {"gelu": "gelu_erf"}.get(name, name)
    assert read_value(reader, "fastgpt-gpt2.block_count") == 2
    assert not [key for key in keys_of(reader) if key.startswith("gpt2.")]


@pytest.mark.parametrize("by_width", [True, False])
@pytest.mark.parametrize("by_layer", [True, False])
def test_the_scale_of_attention_goes_into_the_queries(tmp_path: Path, target: Path, by_width: bool, by_layer: bool):
    """Rows [0, n_embd) of each layer are multiplied by sqrt(head width), by 1 / (layer + 1), or by both."""
    source = random_tensors()
    config = {**CONFIG, "scale_attn_weights": by_width, "scale_attn_by_inverse_layer_idx": by_layer}
    convert(write_checkpoint(tmp_path / "hf", config, source), target)
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(target).tensors}
    for layer in range(2):
        scale = np.ones(3 * 36, np.float32)
        scale[:36] = (1 if by_width else 12**0.5) / (layer + 1 if by_layer else 1)
        weight, bias = source[f"h.{layer}.attn.c_attn.weight"].T, source[f"h.{layer}.attn.c_attn.bias"]
        np.testing.assert_array_equal(tensors[f"blk.{layer}.attn_qkv.weight"], weight * scale[:, None])
        np.testing.assert_array_equal(tensors[f"blk.{layer}.attn_qkv.bias"], bias * scale)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("hidden_size", "n_embd"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
        ("max_position_embeddings", "n_positions"),
    ],
)
def test_other_names_of_sizes_mean_the_same(tmp_path: Path, target: Path, alias: str, name: str):
    source = write_checkpoint(tmp_path / "hf")
    convert(source, target)
    plain = target.read_bytes()
    write_json(source / "config.json", {alias if key == name else key: value for key, value in CONFIG.items()})
    convert(source, target)
    assert target.read_bytes() == plain


# ---- What the checkpoint says of itself --------------------------------------------------------------------

CARD = (
    "---\nlicense: other\nlicense_name: 'my licence'\nlicense_link: https://x.example/l\ntags: [a, b]\n---\n# A model\n"
)


def test_the_model_card_travels(tmp_path: Path, target: Path):
    """Name, licence, source and revision, from README.md and the folder of huggingface_hub's cache."""
    folder = tmp_path / "models--some--one" / "snapshots" / ("c" * 40)
    write_checkpoint(folder)
    (folder / "README.md").write_text(CARD)
    convert(folder, target)
    reader = GGUFReader(target)
    expected = {
        "name": "some/one",
        "license": "other",
        "license.name": "my licence",
        "license.link": "https://x.example/l",
        "source.repo_url": "https://huggingface.co/some/one",
        "source.url": f"https://huggingface.co/some/one/tree/{'c' * 40}",
    }
    assert {key: read_value(reader, f"general.{key}") for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("mit  # as its authors say", "mit"),
        ('"a # b"  # c', "a # b"),
        ("'the \"second\"'", 'the "second"'),
        ('"Bob\'s own"', "Bob's own"),
        ("Bob's own#1", "Bob's own#1"),
    ],
)
def test_texts_of_a_card_are_read_as_yaml(tmp_path: Path, target: Path, line: str, text: str):
    source = write_checkpoint(tmp_path / "hf")
    (source / "README.md").write_text(f"---\r\nlicense: {line}\r\n---\r\n", newline="")
    convert(source, target)
    assert read_value(GGUFReader(target), "general.license") == text


@pytest.mark.parametrize("place", ["text", "list", "file"])
def test_the_chat_template_travels(tmp_path: Path, target: Path, place: str):
    """From wherever versions of transformers keep it: the file comes first, and of several the default one."""
    source = write_checkpoint(tmp_path / "hf")
    several = [{"name": "rag", "template": "x"}, {"name": "default", "template": "{{ a }}"}, 5]
    value = {"text": "{{ a }}", "list": several, "file": "x"}[place]
    write_json(source / "tokenizer_config.json", {"chat_template": value})
    if place == "file":
        (source / "chat_template.jinja").write_text("{{ a }}")
    convert(source, target)
    assert read_value(GGUFReader(target), "tokenizer.chat_template") == "{{ a }}"


FRONTS = ["license: [", "- mit", "license: ''", "[" * 5000, "license: {a: b}", "license: >", 'license: "a']


@pytest.mark.parametrize(
    "card", ["", "# title\n---\nlicense: mit\n---\n", *(f"---\n{front}\n---\n" for front in FRONTS)]
)
def test_a_card_that_says_nothing_adds_nothing(tmp_path: Path, target: Path, card: str):
    source = write_checkpoint(tmp_path / "hf")
    convert(source, target)
    plain = target.read_bytes()
    (source / "README.md").write_text(card)
    convert(source, target)
    assert target.read_bytes() == plain


def test_the_fingerprint_is_of_sizes_and_tensors(tmp_path: Path, target: Path):
    """The same for another name, licence or tokenizer; another for one bit of a tensor, for a size, for a type."""
    source = write_checkpoint(tmp_path / "hf")

    def fingerprint(type: str = "f32") -> str:
        convert(source, target, type=type)
        stated = read_value(GGUFReader(target), "fastgpt.fingerprint.sha256")
        assert stated == fingerprint_of(target)
        return str(stated)

    plain = fingerprint()
    (source / "README.md").write_text(CARD)
    write_json(source / "added_tokens.json", {"<user>": 260})
    assert fingerprint() == plain
    assert fingerprint("f16") != plain
    write_json(source / "config.json", {**CONFIG, "layer_norm_epsilon": 1e-5})
    assert fingerprint() != plain
    write_json(source / "config.json", CONFIG)
    edit_tensors(lambda t: t["transformer.ln_f.bias"].view(np.uint32).__setitem__(0, 1))(source)
    assert fingerprint() != plain


# ---- Memory ----

# The sizes of OpenAI's 774M.
LARGE = {**CONFIG, "vocab_size": 50257, "n_positions": 1024, "n_embd": 1280, "n_layer": 36, "n_head": 20}


def write_zeros(folder: Path, config: dict[str, Any]) -> int:
    """A checkpoint of zeros, whose file is one hole; returns the bytes of its largest tensor."""
    header, end = {}, 0
    for name, size in source_shapes(config).items():
        n_bytes = 4 * math.prod(size)
        header[name] = {"dtype": "F32", "shape": size, "data_offsets": [end, end + n_bytes]}
        end += n_bytes
    write_json(folder / "config.json", config)
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return max(4 * math.prod(size) for size in source_shapes(config).values())


@pytest.mark.skipif("FASTGPT_TEST_LARGE" not in os.environ, reason="FASTGPT_TEST_LARGE=1 writes 3 GB to the disk")
@pytest.mark.parametrize("type", ["f32", "bf16"])
def test_memory_of_a_large_checkpoint(tmp_path: Path, target: Path, type: str):
    """The process needs less than 1.5 times the largest tensor and 300 MB, whatever the size of the checkpoint."""
    largest = write_zeros(tmp_path, LARGE)
    program = (
        "import sys; from pathlib import Path; from fastgpt_c.convert import convert\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), type=sys.argv[3])\n"
        "print(1024 * int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(target), type]
    peak = int(subprocess.run(command, check=True, capture_output=True, cwd=tmp_path).stdout)
    print(f"{type}: peak {peak / 1e6:.0f} MB, largest tensor {largest / 1e6:.0f} MB")
    assert peak < 1.5 * largest + 300e6
