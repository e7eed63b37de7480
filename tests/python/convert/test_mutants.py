"""Every mutant of an input file ends in a named error or a correct load: no traceback, no crash, no hang, and no more
memory than ten times the input (watched.py).

FASTGPT_TEST_MUTANTS says how many mutants of each file (default 150).  Mutants of GGUF files:
tests/c/fuzz/fuzz_model.c.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import CONFIG, tokenizer_json, write_checkpoint, write_json
from mutants import N_MUTANTS, mutate_bytes
from watched import Job, run_all

import fastgpt_c
from fastgpt_c.convert import convert, huggingface
from fastgpt_c.errors import FastGPTError, ModelFileError

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1e308, float("nan"), "", "x", "\ud800", "\0", "a" * 5000),
    *([], {}, [None], [[]], {"": None}, {"content": "x"}, {"type": "x"}, [1, 2], "BPE", "ByteLevel", "gelu"),
]


def mutate_json(value: Any, random_: random.Random) -> Any:
    """Another value at some place, or a key that vanishes, appears or changes its name."""
    if not isinstance(value, dict | list) or not value or random_.random() < 0.15:
        return random_.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = random_.choice(keys)
    if random_.random() < 0.1:
        return {k: v for k, v in value.items() if k != key} if isinstance(value, dict) else value[:key]
    if isinstance(value, dict) and random_.random() < 0.1:
        return {**value, random_.choice(["x", "", str(key) + "x", "n_head"]): random_.choice(VALUES)}
    changed = value.copy()
    changed[key] = mutate_json(value[key], random_)
    return changed


def mutate_header(data: bytes, random_: random.Random) -> bytes:
    """The header of a safetensors file as JSON, or its length, or any bytes of both; the numbers stay."""
    n = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + n], data[8 + n :]
    if random_.random() < 0.5:
        header = json.dumps(mutate_json(json.loads(header), random_)).encode("utf-8", "replace")
    else:
        header = mutate_bytes(header, random_)
    length = len(header) if random_.random() < 0.9 else random_.choice([0, 1, 2**63, len(header) + 1, 2**31])
    return length.to_bytes(8, "little") + header + rest


def mutate_text(data: bytes, random_: random.Random) -> bytes:
    if random_.random() < 0.5:
        return mutate_bytes(data, random_)
    return json.dumps(mutate_json(json.loads(data), random_), ensure_ascii=random_.random() < 0.9).encode(
        "utf-8", "surrogatepass"
    )


FILES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "config.json": mutate_text,
    "model.safetensors": mutate_header,
    "tokenizer.json": mutate_text,
    "tokenizer_config.json": mutate_text,
    "vocab.json": mutate_text,
    "merges.txt": mutate_bytes,
    "README.md": mutate_bytes,
}


OF_NUMBERS = ("config.json", "model.safetensors")  # what tells how the numbers are read


def whole_checkpoint(folder: Path, file: str) -> Path:
    config = {**CONFIG, "n_layer": 1, "n_embd": 6, "activation_function": "relu"}
    write_checkpoint(folder, config, tokenizer=file not in ("model.safetensors", "README.md"))
    if file in ("tokenizer.json", "tokenizer_config.json"):
        write_json(folder / "tokenizer.json", tokenizer_json())
    added = {"259": {"content": "<|endoftext|>", "special": True}}
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "eos_token": {"content": "<|endoftext|>"},
    }
    write_json(folder / "tokenizer_config.json", {**settings, "added_tokens_decoder": added})
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: x\ntags: [a, {b: c}]\n---\n# A model\n")
    return folder


def load_or_refuse(folder: Path, target: Path, whole: bool, numbers: bool = True) -> bool:
    """Whether the checkpoint is read, numbers or not; with whole it is converted, and must run."""
    try:
        if not whole:
            contents = huggingface.read(folder)
            assert not numbers or [name for name, _ in contents.data] == list(contents.shapes)
            return True
        convert(folder, target)
        with fastgpt_c.load(target) as model:
            ids = model.encode(" the a") if model.has_tokenizer else [1, 2]
            with model.session() as session:
                assert np.isfinite(
                    session.prefill([token % model.n_vocab for token in ids][: model.n_ctx] or [0])
                ).all()
    except FastGPTError as error:
        assert str(error), "an error without words"
        assert isinstance(error, ModelFileError) or "fastgpt-c[" in str(error), repr(error)
        return False
    return True


@pytest.mark.parametrize("file", FILES)
def test_mutants(tmp_path: Path, file: str) -> None:
    folder, target = whole_checkpoint(tmp_path / "hf", file), tmp_path / "x.gguf"
    sound = (folder / file).read_bytes()

    def warm_up() -> None:
        odd = whole_checkpoint(tmp_path / "odd", "tokenizer.json")
        write_json(odd / "tokenizer_config.json", {"add_prefix_space": True})  # which a library runs
        for path in (odd, folder):
            assert load_or_refuse(path, target, whole=True)

    def mutant(i: int) -> bytes:
        return FILES[file](sound, random.Random(f"{file} {i}"))

    def write(i: int) -> int:
        (folder / file).write_bytes(mutant(i))
        return sum(path.stat().st_size for path in folder.iterdir())

    def load(i: int) -> bool:
        return load_or_refuse(folder, target, i % 10 == 0, file in OF_NUMBERS)

    taken = run_all(Job(warm_up, write, load, lambda i: repr(mutant(i)[:3000])), N_MUTANTS)
    print(f"{file}: {N_MUTANTS} mutants, {taken}")
