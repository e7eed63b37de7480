"""Random variants of tokenizer.json: what convert accepts gives the ids of `tokenizers`, what it does not is refused by
name and leaves no file.

FASTGPT_TEST_TOKENIZERS says how many variants (default 60).
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from checkpoints import BYTE_LEVEL, CONFIG, source_shapes, tokenizer_json, write_checkpoint, write_json

import fastgpt_c
from fastgpt_c.convert import convert
from fastgpt_c.errors import ModelFileError
from fastgpt_c.tokenizers.bpe_python import BYTE_TO_CHARACTER

N_VARIANTS = int(os.environ.get("FASTGPT_TEST_TOKENIZERS", "60"))
N_TEXTS = 12
CONFIG_HERE = {**CONFIG, "vocab_size": 320, "n_embd": 4, "n_head": 1, "n_layer": 1}
END = "<|endoftext|>"

LETTERS = "abhet .,'!<>"
PIECES = [*LETTERS, "  ", "\n", "the", "he", "12", "é", "ß", "A", "😀", "e\u0301", "<x>", END, "=" * 9, " <"]
ADDED = ["<x>", "the", "é", " <", "==", "a b", "😀", "=" * 256, "=" * 300]


def mostly(rng: random.Random, *values: Any) -> Any:
    """The first of them, which is GPT-2's own, in three of four cases."""
    return values[0] if rng.random() < 0.75 else rng.choice(values)


def with_merges(rng: random.Random, value: dict[str, Any]) -> None:
    """Random pairs of what is there already; or none at all."""
    vocab, merges = {token: i for i, token in enumerate(BYTE_TO_CHARACTER)}, []
    for _ in range(rng.choice([0, 5, 40])):
        left, right = (rng.choice([*"abhet", "Ġ", *list(vocab)[256:]]) for _ in range(2))
        if left + right not in vocab:
            vocab[left + right] = len(vocab)
            merges.append([left, right])
    for character in mostly(rng, "", "q", "hé", BYTE_TO_CHARACTER[0xF0]):  # and what is made of them
        merges = [rule for rule in merges if character not in "".join(rule)]
        vocab = {token: i for token, i in vocab.items() if character not in token}
    vocab = {token: i for i, token in enumerate([*vocab, END])}
    value["model"] |= {"vocab": vocab, "merges": merges, "unk_token": mostly(rng, None, END)}
    value["model"] |= {"fuse_unk": mostly(rng, False, True), "ignore_merges": mostly(rng, False, True)}


def added_tokens(rng: random.Random, vocab: dict[str, int]) -> list[dict[str, Any]]:
    """New ones have the ids behind the vocabulary, as `tokenizers` gives them."""
    texts, flags = rng.sample(ADDED, rng.choice([0, 0, 1, 3])), ("single_word", "lstrip", "rstrip")
    tokens = [{"content": END, "id": vocab[END], "special": True, **dict.fromkeys(flags, False)}]
    for text in texts:
        odd = {flag: mostly(rng, False, False, True) for flag in flags}
        token = vocab.get(text, max(vocab[END], *(entry["id"] for entry in tokens)) + 1)
        tokens.append({"content": text, "id": token, "special": rng.random() < 0.5, **odd})
    return [{**token, "normalized": False} for token in tokens]


def post_processors(end: int) -> list[Any]:
    """None; the text alone; special tokens around it, in three spellings; the text twice."""
    text, mark = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}
    known = {END: {"id": END, "ids": [end], "tokens": [END]}}
    template = {"type": "TemplateProcessing", "pair": [text], "special_tokens": known}
    singles: list[Any] = [[text], [mark, text, mark], [text, text]]
    roberta = {"type": "RobertaProcessing", "sep": [END, end], "cls": [END, end], "trim_offsets": True}
    bert = {"type": "BertProcessing", "sep": [END, end], "cls": [END, end]}
    return [None, *({**template, "single": single} for single in singles), {**roberta, "add_prefix_space": False}, bert]


def random_tokenizer(rng: random.Random) -> dict[str, Any]:
    value = tokenizer_json()
    with_merges(rng, value)
    byte_level = {**BYTE_LEVEL, "add_prefix_space": mostly(rng, False, True), "use_regex": mostly(rng, True, False)}
    value["pre_tokenizer"] = mostly(rng, byte_level, {"type": "Sequence", "pretokenizers": [byte_level]})
    idle = {"type": "Sequence", "normalizers": []}
    value["normalizer"] = mostly(rng, None, {"type": "NFC"}, {"type": "Lowercase"}, idle)
    value["post_processor"] = mostly(rng, value["post_processor"], *post_processors(value["model"]["vocab"][END]))
    value["added_tokens"] = added_tokens(rng, value["model"]["vocab"])
    return value


def expected_ids(library: Any, text: str) -> list[int]:
    return list(library.encode(text, add_special_tokens=False).ids)


def spelled(value: dict[str, Any], text: str) -> bool:
    """Whether the vocabulary has every byte of text: `tokenizers` drops others without a word, the engine refuses."""
    return value["model"]["unk_token"] is not None or all(
        BYTE_TO_CHARACTER[byte] in value["model"]["vocab"] for byte in text.encode()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    tensors = {name: np.zeros(shape, np.float32) for name, shape in source_shapes(CONFIG_HERE).items()}
    made = write_checkpoint(tmp_path_factory.mktemp("variants") / "hf", CONFIG_HERE, tensors, tokenizer=False)
    write_json(made / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    return made


def outcome(folder: Path, target: Path, rng: random.Random) -> str:
    """Converts one variant and compares -> what became of it."""
    tokenizers = pytest.importorskip("tokenizers")
    value = random_tokenizer(rng)
    write_json(folder / "tokenizer.json", value)
    target.write_bytes(b"GGUF before")
    try:
        notes = convert(folder, target)
    except ModelFileError as error:
        assert any(name in str(error) for name in ("tokenizer.json", "of 300 bytes")), error
        assert target.read_bytes() == b"GGUF before"
        return "refused"
    library = tokenizers.Tokenizer.from_str(json.dumps(value))
    with fastgpt_c.load(target) as model:
        for _ in range(N_TEXTS):
            text = "".join(rng.choices(PIECES, k=rng.randrange(9)))
            if notes or spelled(value, text):
                assert model.encode(text) == expected_ids(library, text), (text, value)
    return "library" if notes else "engine"


def test_what_convert_accepts_gives_the_ids_of_tokenizers(folder: Path, tmp_path: Path) -> None:
    outcomes = Counter(outcome(folder, tmp_path / "x.gguf", random.Random(seed)) for seed in range(N_VARIANTS))
    assert N_VARIANTS < 60 or min(outcomes[name] for name in ("engine", "library")) >= 3, outcomes


# ---- One by one --------------------------------------------------------------------------------------------


def test_a_vocabulary_without_merges_runs(folder: Path, tmp_path: Path) -> None:
    value = tokenizer_json()
    value["model"]["merges"] = []
    write_json(folder / "tokenizer.json", value)
    assert convert(folder, tmp_path / "x.gguf") == []
    with fastgpt_c.load(tmp_path / "x.gguf") as model:
        assert model.decode(model.encode("hé the")) == "hé the"
        assert len(model.encode("hé the")) == 7


def test_special_tokens_around_a_text_need_no_library(folder: Path, tmp_path: Path) -> None:
    """A prompt has none of them, so the engine gives the ids of `tokenizers`; only what changes the text needs it."""
    tokenizers = pytest.importorskip("tokenizers")
    value, n_notes = tokenizer_json(), []
    for value["post_processor"] in post_processors(259):
        write_json(folder / "tokenizer.json", value)
        n_notes.append(len(convert(folder, tmp_path / "x.gguf")))
        with fastgpt_c.load(tmp_path / "x.gguf") as model:
            assert model.encode("he the") == expected_ids(tokenizers.Tokenizer.from_str(json.dumps(value)), "he the")
    assert n_notes == [0, 0, 0, 1, 0, 0]


def test_what_cannot_be_run_is_refused_and_the_target_stays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the converter knows of no limit that the engine has; the error says what came of what."""
    monkeypatch.setattr("fastgpt_c.convert.huggingface_tokenizer.MAX_SPECIAL_BYTES", 1000)
    value, target = tokenizer_json(), tmp_path / "x.gguf"
    value["added_tokens"].append({**value["added_tokens"][0], "id": 260, "content": "=" * 300})
    write_json(folder / "tokenizer.json", value)
    target.write_bytes(b"GGUF before")
    with pytest.raises(ModelFileError, match=r"token 260 .* of 300 bytes") as error:
        convert(folder, target)
    assert str(error.value).startswith(f"{folder}: the file made of it could not be run")
    assert target.read_bytes() == b"GGUF before"
    assert list(tmp_path.iterdir()) == [target]
