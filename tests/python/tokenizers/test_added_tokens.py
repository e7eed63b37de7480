"""Laws of added tokens: whatever a tokenizer.json adds, with whatever flags, ids are those of `tokenizers`.

FASTGPT_TEST_ADDED_SETS says how many random sets of added tokens are compared.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from checkpoints import CONFIG, tokenizer_json, write_checkpoint, write_json
from texts import PATTERNS

import fastgpt_c
from fastgpt_c.cli.__main__ import main
from fastgpt_c.convert import convert
from fastgpt_c.convert.gguf_file import CONTROL, NORMAL, USER_DEFINED, StoredTokenizer, Vocabulary
from fastgpt_c.convert.huggingface_tokenizer import read_tokenizer
from fastgpt_c.errors import ModelFileError
from fastgpt_c.tokenizers import TOKENIZER_JSON
from fastgpt_c.tokenizers.bpe import Tokenizer
from fastgpt_c.tokenizers.huggingface import HuggingFaceTokenizer

N_SETS = int(os.environ.get("FASTGPT_TEST_ADDED_SETS", "300"))
N_TEXTS = 8
N_VOCAB = 280
LETTERS = "<|a \u00e9the>"


def added_token(token: int, text: str, **flags: bool) -> dict[str, Any]:
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": token, "content": text, **dict.fromkeys(names, False), **flags}


def random_set(rng: random.Random, vocab: dict[str, int]) -> list[dict[str, Any]]:
    """Short texts of few letters, so that they overlap; one that the vocabulary has keeps its id."""
    texts = {"".join(rng.choices(LETTERS, k=rng.randint(1, 4))) for _ in range(rng.randint(1, 8))}
    texts |= {"<|endoftext|>"} if rng.random() < 0.5 else set()
    texts |= {"=" * 300} if rng.random() < 0.05 else set()
    in_order = rng.sample(sorted(texts), len(texts))
    new = iter(range(len(vocab), N_VOCAB))
    stripping = 0.3 if rng.random() < 0.2 else 0
    return [
        added_token(
            vocab[text] if text in vocab else next(new),
            text,
            **{name: rng.random() < stripping for name in ("single_word", "lstrip", "rstrip")},
            **{name: rng.random() < 0.5 for name in ("normalized", "special")},
        )
        for text in in_order
    ]


def write_tokenizer(folder: Path, added: list[dict[str, Any]], settings: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    write_json(folder / "tokenizer.json", {**tokenizer_json(), "added_tokens": added})
    write_json(folder / "tokenizer_config.json", settings or {})
    return folder


def as_read(vocabulary: Vocabulary | StoredTokenizer | None) -> list[Any]:
    """Each tokenizer that would run it."""
    if isinstance(vocabulary, StoredTokenizer):
        text = vocabulary.values[TOKENIZER_JSON]
        assert isinstance(text, str)
        return [HuggingFaceTokenizer(text.encode(), N_VOCAB, None)]
    assert vocabulary is not None
    types = vocabulary.types
    if vocabulary.normalized is not None:
        types = [CONTROL if type in (CONTROL, USER_DEFINED) else type for type in types]
        for token in vocabulary.normalized:
            types[token] = USER_DEFINED
    return [Tokenizer(vocabulary.tokens, vocabulary.merges, types, pattern=pattern) for pattern in PATTERNS.values()]


def random_texts(rng: random.Random, added: list[dict[str, Any]]) -> list[str]:
    parts = [*LETTERS, *(entry["content"] for entry in added)]
    return ["".join(rng.choices(parts, k=rng.randint(1, 12))) for _ in range(N_TEXTS)]


def expected_ids(library: Any, text: str) -> list[int] | None:
    """None where the library panics, as tokenizers 0.23 does for a token in the spaces that another one strips."""
    try:
        ids: list[int] = library.encode(text, add_special_tokens=False).ids
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return None
    return ids


def test_random_sets_equal_hugging_face(tmp_path: Path) -> None:
    """Any set of added tokens, by each path that can run it: most by the library in C and in Python, those that ask for
    more (single_word, lstrip, rstrip, 300 bytes) by `tokenizers` itself."""
    rng = random.Random(11)
    vocab: dict[str, int] = tokenizer_json()["model"]["vocab"]
    n_native = 0
    for _ in range(N_SETS):
        added = random_set(rng, vocab)
        folder = write_tokenizer(tmp_path / "hf", added)
        expected = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        ours = as_read(read_tokenizer(folder, N_VOCAB).vocabulary)
        n_native += len(ours) > 1
        for text in random_texts(rng, added):
            ids = expected_ids(expected, text)
            if ids is None:
                with pytest.raises(ModelFileError, match="cannot encode this text"):
                    ours[0].encode(text)
            else:
                assert [tokenizer.encode(text) for tokenizer in ours] == [ids] * len(ours), (added, text)
    assert N_SETS // 2 < n_native < N_SETS


@pytest.mark.parametrize("seed", range(6))
def test_order_survives_the_file(seed: int, tmp_path: Path) -> None:
    """The order in which tokens are cut out is in the GGUF file, and in a copy of it with other weights."""
    rng = random.Random(seed)
    config = tokenizer_json()
    vocab = config["model"]["vocab"]
    added = [entry | {"lstrip": False, "rstrip": False, "single_word": False} for entry in random_set(rng, vocab)]
    folder = write_checkpoint(tmp_path / "hf", {**CONFIG, "vocab_size": N_VOCAB}, tokenizer=False)
    write_tokenizer(folder, [entry for entry in added if len(entry["content"]) < 100])
    expected = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    convert(folder, tmp_path / "model.gguf")
    assert main(["quantize", str(tmp_path / "model.gguf"), str(tmp_path / "small.gguf"), "--type", "bf16"]) == 0
    for name in ("model.gguf", "small.gguf"):
        with fastgpt_c.load(tmp_path / name, n_threads=1) as model:
            for text in random_texts(rng, added):
                assert model.encode(text) == expected.encode(text, add_special_tokens=False).ids, (added, text)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_control_tokens_are_cut_out_first(pattern: str) -> None:
    """A user-defined token that would take a part of a control token leaves it whole, and loses its own text."""
    texts = ["<", " ", "e", "n", "d", ">", " <", "<end>", "d>"]
    tokenizer = Tokenizer(["\u0120" if text == " " else text for text in texts], [], [NORMAL] * 6 + [4, 3, 4],
                          pattern=pattern)  # fmt: skip
    assert tokenizer.encode(" <end> <d>") == [1, 7, 6, 8]
    assert tokenizer.encode(" <end>", special=False) == [1, 0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({}, "ab"),
        ({"added_tokens_decoder": {"261": added_token(261, "bc")}}, "ab"),
        ({"added_tokens_decoder": {"262": added_token(262, "xa")}}, "xa"),
        ({"added_tokens_decoder": {"262": {"content": "xa"}}}, "ab"),
        ({"added_tokens_decoder": {"262": {"content": "xa"}}, "eos_token": "xa"}, "xa"),
    ],
)
def test_flags_are_those_of_the_file_that_adds_the_token(settings: Any, first: str, tmp_path: Path) -> None:
    """tokenizer.json's count for its own tokens, others bring theirs; one without says by special whether it is
    normalized; and `tokenizers`, which runs it where a flag asks for that, agrees."""
    added = [added_token(260, "ab"), added_token(261, "bc", normalized=True)]
    plain = as_read(read_tokenizer(write_tokenizer(tmp_path / "a", added, settings), N_VOCAB).vocabulary)
    added.append(added_token(0, "!", lstrip=True))
    by_library = as_read(read_tokenizer(write_tokenizer(tmp_path / "b", added, settings), N_VOCAB).vocabulary)
    assert len(plain) == 2 and len(by_library) == 1
    for tokenizer in (*plain, *by_library):
        assert (262 if first == "xa" else 260) in tokenizer.encode("xabc")


def test_an_empty_text_is_no_token(tmp_path: Path) -> None:
    """Added or in the vocabulary: `tokenizers` never gives it, and so do we not."""
    config = tokenizer_json()
    config["model"]["vocab"][""] = 260
    folder = write_tokenizer(tmp_path / "hf", [])
    added = [added_token(261, "ab", normalized=True), added_token(262, "")]
    write_json(folder / "tokenizer.json", {**config, "added_tokens": added})
    expected = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode("xaby")
    for tokenizer in as_read(read_tokenizer(folder, N_VOCAB).vocabulary):
        assert tokenizer.encode("xaby") == expected.ids


@pytest.mark.parametrize("fuse", [False, True])
def test_unk_token_stands_for_missing_bytes(fuse: bool, tmp_path: Path) -> None:
    """A vocabulary that lacks a byte and names an unk_token is run by `tokenizers`, and convert says so; one that has
    every byte is not, since no text needs the unk_token."""
    config = tokenizer_json()
    config["model"] |= {"unk_token": "<unk>", "fuse_unk": fuse}
    config["model"]["vocab"]["<unk>"] = config["model"]["vocab"].pop("x")
    folder = write_tokenizer(tmp_path / "hf", [])
    write_json(folder / "tokenizer.json", config)
    read = read_tokenizer(folder, N_VOCAB)
    assert "model.unk_token" in read.notes[0]
    expected = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode("axxb")
    assert [tokenizer.encode("axxb") for tokenizer in as_read(read.vocabulary)] == [expected.ids]
    config["model"]["vocab"]["x"] = 260
    write_json(folder / "tokenizer.json", config)
    assert isinstance(read_tokenizer(folder, N_VOCAB).vocabulary, Vocabulary)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_no_merges_give_bytes(pattern: str) -> None:
    """A vocabulary of bytes alone encodes each of them, and special tokens as ever."""
    tokenizer = Tokenizer(["a", "b", "<end>"], [], [1, 1, 3], pattern=pattern)
    assert tokenizer.encode("ab<end>ba") == [0, 1, 2, 1, 0]
