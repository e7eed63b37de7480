"""Laws of the tokenizers that libraries run: ids are those of transformers, and text comes back whole.

One tiny tokenizer for each family of checkpoints, trained here on tests/data.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from checkpoints import CONFIG, tokenizer_json, write_checkpoint, write_json
from gguf import GGUFReader
from paths import DATA
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

import fastgpt_c
from fastgpt_c.cli.__main__ import main
from fastgpt_c.convert import convert
from fastgpt_c.errors import ModelFileError, UsageError

STORIES = DATA / "fairy_tales_heldout.txt"
N_VOCAB = 700
TEXTS = [
    "",
    "Once upon a time there lived an old miller.",
    "  two  spaces, a tab\t, a line\nand\u00a0more \u200b\u3000\u2003x\x07",
    "WHO is he? Don't ... e\u0301 \u00e9 \ufb01 \u00c5se!",
    "\u4f60\u597d\uff0c\u4e16\u754c 3.14 \U0001f469 \u0645\u0631\u062d\u0628\u0627",
    "king<|endoftext|>queen</s> <s>wolf[SEP]end",
    "<|endoftext|>",
]


def sentencepiece_model(folder: Path, kind: str, **options: Any) -> None:
    sentencepiece.SentencePieceTrainer.train(
        input=str(STORIES), model_prefix=str(folder / "spiece"), vocab_size=600, model_type=kind, byte_fallback=True,
        user_defined_symbols="<|endoftext|>", minloglevel=2, num_threads=1, **options,
    )  # fmt: skip


def gpt_sw3(folder: Path) -> None:
    sentencepiece_model(folder, "bpe", add_dummy_prefix=True, remove_extra_whitespaces=False)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GPTSw3Tokenizer"})


def rinna(folder: Path) -> None:
    sentencepiece_model(folder, "unigram")
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "do_lower_case": False}
    write_json(folder / "tokenizer_config.json", {**settings, "eos_token": "</s>", "unk_token": "<unk>"})


def chinese(folder: Path) -> None:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"\u4f60\u597d\u4e16\u754c,.!?'",
        *"abcdefghijklmnopqrstuvwxyz",
    ]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["king", "said", "the", "##een", "qu"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})


def prefix_space(folder: Path) -> None:
    """GPT-2's own files, and a space before the text."""
    value = tokenizer_json()
    write_json(folder / "vocab.json", value["model"]["vocab"])
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in value["model"]["merges"])
    )
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True})


def trained(folder: Path, model: Any, trainer: Any, pre_tokenizer: Any, decoder: Any, normalizer: Any = None) -> None:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train([str(STORIES)], trainer)
    tokenizer.enable_truncation(5)
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"eos_token": "</s>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **roles})


SPECIAL = ["</s>", "<unk>", "<|endoftext|>"]
kogpt2 = partial(
    trained, model=models.BPE(unk_token="<unk>"), normalizer=normalizers.NFKC(),
    pre_tokenizer=pre_tokenizers.Metaspace(), decoder=decoders.Metaspace(),
    trainer=trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False),
)  # fmt: skip
midi = partial(
    trained, model=models.WordLevel(unk_token="<unk>"), pre_tokenizer=pre_tokenizers.WhitespaceSplit(), decoder=None,
    trainer=trainers.WordLevelTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False),
)  # fmt: skip
nfc_bytes = partial(
    trained, model=models.BPE(), pre_tokenizer=pre_tokenizers.ByteLevel(use_regex=False), decoder=decoders.ByteLevel(),
    trainer=trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False,
                                initial_alphabet=pre_tokenizers.ByteLevel.alphabet()), normalizer=normalizers.NFC(),
)  # fmt: skip

FAMILIES: dict[str, Callable[[Path], None]] = {
    "GPT-SW3": gpt_sw3,
    "rinna": rinna,
    "Chinese GPT-2": chinese,
    "add_prefix_space": prefix_space,
    "kogpt2": kogpt2,
    "MIDI": midi,
    "other bytes": nfc_bytes,
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, fastgpt_c.Model]:
    """Each family: its name, a checkpoint, and its model."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, {**CONFIG, "vocab_size": N_VOCAB}, tokenizer=False)
    FAMILIES[request.param](folder)
    convert(folder, folder / "model.gguf")
    return request.param, folder, fastgpt_c.load(folder / "model.gguf")


def test_ids_are_those_of_transformers(family: tuple[str, Path, fastgpt_c.Model]) -> None:
    transformers = pytest.importorskip("transformers")
    name, folder, model = family
    if name == "rinna":
        pytest.skip(
            "transformers 5 runs a T5Tokenizer by another library, with other pieces for what is not plain text"
        )
    expected = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert model.encode(text) == expected(text, add_special_tokens=False)["input_ids"], text


def test_ids_are_those_of_the_library(tmp_path: Path) -> None:
    """SentencePiece's own, between special tokens; lower-case first where the settings say so."""
    folder = write_checkpoint(tmp_path / "hf", {**CONFIG, "vocab_size": N_VOCAB}, tokenizer=False)
    rinna(folder)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    for lower in (False, True):
        settings = {"tokenizer_class": "T5Tokenizer", "do_lower_case": lower, "sep_token": "<|endoftext|>"}
        write_json(folder / "tokenizer_config.json", settings)
        convert(folder, tmp_path / "model.gguf")
        with fastgpt_c.load(tmp_path / "model.gguf") as model:
            for text in TEXTS[:5]:
                assert model.encode(text) == processor.encode(text.lower() if lower else text)
            king = model.encode("king")
            assert model.encode("king<|endoftext|>king") == [*king, processor.piece_to_id("<|endoftext|>"), *king]


def test_text_comes_back(family: tuple[str, Path, fastgpt_c.Model]) -> None:
    """What the pieces of a stream spell, joined, is what all tokens spell; plain words are as they were."""
    _, _, model = family
    rng = np.random.default_rng(0)
    rows = [model.encode(text) for text in TEXTS] + [rng.integers(0, N_VOCAB, 30).tolist() for _ in range(200)]
    for tokens in rows:
        stream = model.tokenizer.stream()
        for _ in range(2):  # a stream can be used again
            assert "".join([*map(stream.push, tokens), stream.finish()]) == model.decode(tokens)
        assert model.tokenizer.decode_bytes(tokens).decode() == model.decode(tokens)
    assert model.decode(model.encode("said the")).strip() == "said the"
    for token in (-1, N_VOCAB):
        with pytest.raises(UsageError, match="outside the vocabulary"):
            model.decode([token])
    with pytest.raises(UsageError, match="surrogate"):
        model.encode("\ud800")


def test_literal_text_has_no_special_tokens(family: tuple[str, Path, fastgpt_c.Model]) -> None:
    """Or is refused, where the vocabulary has no other way to write it."""
    _, _, model = family
    special = {token: text for text in ("</s>", "<unk>", "<|endoftext|>", "[SEP]") for token in model.encode(text)
               if model.decode([token]) == text}  # fmt: skip
    assert special
    for text in TEXTS:
        try:
            ids = model.encode(text, special=False)
        except UsageError as error:
            assert any(repr(token) in str(error) for token in special.values() if token in text)
        else:
            assert not any(special.get(token, "\0") in text for token in ids)


def test_generation_and_the_command(
    family: tuple[str, Path, fastgpt_c.Model], capsys: pytest.CaptureFixture[str]
) -> None:
    """Text in, text out, and info names the library; llama.cpp is told that there is no vocabulary."""
    _, folder, model = family
    assert model.has_tokenizer
    completion = model.generate("king", max_new_tokens=2, temperature=0)
    assert completion.text == model.decode(completion.tokens)
    assert main(["info", str(folder / "model.gguf"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"] in ("sentencepiece", "tokenizers")
    assert GGUFReader(folder / "model.gguf").fields["tokenizer.ggml.model"].contents() == "none"


# ---- Refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["tokenizers", "sentencepiece"])
def test_without_the_library_the_error_has_the_command(package: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", {**CONFIG, "vocab_size": N_VOCAB}, tokenizer=False)
    {"tokenizers": chinese, "sentencepiece": rinna}[package](folder)
    convert(folder, tmp_path / "model.gguf")
    program = (
        "import sys; import fastgpt_c\n"
        f"sys.modules[{package!r}] = None\n"
        "with fastgpt_c.load(sys.argv[1]) as model:\n"
        "    print(len(model.generate([1], max_new_tokens=2).tokens) if not model.has_tokenizer else model.encode('a'))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "model.gguf")], capture_output=True, text=True,
                          cwd=tmp_path)  # fmt: skip
    assert f"pip install 'fastgpt-c[{package}]'" in done.stderr


DAMAGE = {
    "fastgpt.tokenizer": "is 'x",
    "tokenizer.huggingface.json": "the tokenizer is damaged",
    "fastgpt.tokenizer.sentencepiece": "the SentencePiece model is damaged",
    "fastgpt.tokenizer.settings": "the settings of the tokenizer are damaged",
}


@pytest.mark.parametrize("key", DAMAGE)
def test_damaged_tokenizers_are_refused(key: str, tmp_path: Path) -> None:
    """The first bytes of the value become others; a key that is renamed is missing."""
    folder = write_checkpoint(tmp_path / "hf", {**CONFIG, "vocab_size": N_VOCAB}, tokenizer=False)
    (chinese if "json" in key else rinna)(folder)
    file = tmp_path / "model.gguf"
    convert(folder, file)
    data = file.read_bytes()
    at = data.index(key.encode()) + len(key) + (12 if "sentencepiece" not in key else 16)
    file.write_bytes(data[:at] + b"x\xff\xff" + data[at + 3 :])
    with fastgpt_c.load(file) as model, pytest.raises(ModelFileError, match=DAMAGE[key]):
        model.tokenizer  # noqa: B018
    file.write_bytes(data.replace(key.encode(), key.encode()[:-1] + b"_"))
    with fastgpt_c.load(file) as model, pytest.raises(ModelFileError, match=r"is missing|has no tokenizer"):
        model.tokenizer  # noqa: B018


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("normalizer", {"type": "Lowercase"}),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("pre_tokenizer.add_prefix_space", True),
        ("pre_tokenizer.use_regex", False),
        ("decoder", {"type": "WordPiece", "prefix": "##", "cleanup": True}),
        ("model.end_of_word_suffix", "</w>"),
        ("model.byte_fallback", True),
        ("model.ignore_merges", True),
    ],
)
def test_another_pipeline_is_left_to_the_library(key: str, value: Any, tmp_path: Path) -> None:
    """One step that is not GPT-2's, and the engine's own tokenizer is not used."""
    folder, config = write_checkpoint(tmp_path / "hf"), tokenizer_json()
    *outer, last = key.split(".")
    (config[outer[0]] if outer else config)[last] = value
    write_json(folder / "tokenizer.json", config)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    convert(folder, tmp_path / "model.gguf")
    expected = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    with fastgpt_c.load(tmp_path / "model.gguf") as model:
        assert GGUFReader(tmp_path / "model.gguf").fields["fastgpt.tokenizer"].contents() == "tokenizers"
        for text in ("The the he", "  a\nthe", "<|endoftext|>"):
            assert model.encode(text) == expected.encode(text, add_special_tokens=False).ids


def test_added_tokens_with_flags(tmp_path: Path) -> None:
    """A token that eats the spaces around it, and one that tokenizer_config.json alone has, its id right or wrong."""
    folder, config = write_checkpoint(tmp_path / "hf"), tokenizer_json()
    config["added_tokens"][0] |= {"lstrip": True, "rstrip": True}
    write_json(folder / "tokenizer.json", config)
    for token, refused in ((260, False), (262, True)):
        write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": {str(token): {"content": "<user>"}}})
        if refused:
            with pytest.raises(ModelFileError, match=r"<user>.* has id 260, but its added tokens say 262"):
                convert(folder, tmp_path / "model.gguf")
            continue
        convert(folder, tmp_path / "model.gguf")
        with fastgpt_c.load(tmp_path / "model.gguf") as model:
            assert model.encode("a <|endoftext|> <user>a") == [*model.encode("a"), 259, 260, *model.encode("a")]


ADDED = {
    **{"Chinese GPT-2": chinese, "add_prefix_space": prefix_space, "GPT-SW3": gpt_sw3},
    "flags": lambda folder: (prefix_space(folder), write_json(folder / "tokenizer_config.json", {})),
}


@pytest.mark.parametrize("place", ["added_tokens.json", "tokenizer_config.json"])
@pytest.mark.parametrize("name", ADDED)
def test_tokens_that_a_checkpoint_adds(name: str, place: str, tmp_path: Path) -> None:
    """Beside vocab.txt, vocab.json and spiece.model: they are cut out first, and have the ids of transformers."""
    transformers = pytest.importorskip("transformers")
    folder = write_checkpoint(tmp_path / "hf", {**CONFIG, "vocab_size": N_VOCAB}, tokenizer=False)
    ADDED[name](folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.setdefault("tokenizer_class", "GPT2Tokenizer")
    first = {"Chinese GPT-2": len((folder / "vocab.txt").read_text().split()) if name == "Chinese GPT-2" else 0,
             "GPT-SW3": 600}.get(name, 260)  # fmt: skip
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized", "special"), False)
    flags["lstrip"] = name == "flags"
    if place == "added_tokens.json":
        write_json(folder / place, {"<user>": first, "<2>": first + 1})
    else:
        settings["added_tokens_decoder"] = {
            str(first): {"content": "<user>", **flags},
            str(first + 1): {"content": "<2>", **flags},
        }
    write_json(folder / "tokenizer_config.json", settings)
    convert(folder, tmp_path / "model.gguf")
    expected = transformers.AutoTokenizer.from_pretrained(folder)
    with fastgpt_c.load(tmp_path / "model.gguf") as model:
        for text in ("the <user> king<2><user>the", "<user>", "the<2"):
            ids = model.encode(text)
            assert ids == expected(text, add_special_tokens=False)["input_ids"]
            assert (first in ids) == ("<user>" in text)
            assert model.decode(ids).count("<user>") == text.count("<user>")


def test_added_tokens_that_no_vocabulary_has_room_for(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", {**CONFIG, "vocab_size": N_VOCAB}, tokenizer=False)
    gpt_sw3(folder)
    for token, culprit in ((N_VOCAB, '"<user>": 700 is no token'), (-1, "is no token"), (5, "token 5 is .*, not")):
        write_json(folder / "added_tokens.json", {"<user>": token})
        with pytest.raises(ModelFileError, match=culprit):
            convert(folder, tmp_path / "model.gguf")


@pytest.mark.parametrize("value", [None, False, True])
def test_the_class_says_who_knows_of_a_space_before_the_text(value: bool | None, tmp_path: Path) -> None:
    """GPT2Tokenizer: tokenizer_config.json, whatever tokenizer.json says; another class: tokenizer.json."""
    for ours, stored in ((True, False), (False, True)):
        folder, config = write_checkpoint(tmp_path / "hf"), tokenizer_json()
        config["pre_tokenizer"]["add_prefix_space"] = stored
        write_json(folder / "tokenizer.json", config)
        name = "GPT2Tokenizer" if ours else "PreTrainedTokenizerFast"
        settings = {"tokenizer_class": name} | ({} if value is None else {"add_prefix_space": value})
        write_json(folder / "tokenizer_config.json", settings)
        convert(folder, tmp_path / "model.gguf")
        with fastgpt_c.load(tmp_path / "model.gguf") as model:
            expected = " the" if (value if ours else stored) else "the"
            assert model.decode(model.encode("the")) == expected


@pytest.mark.parametrize(
    ("file", "text", "culprit"),
    [
        ("spiece.model", "x", "the SentencePiece model is damaged"),
        ("spiece.model", "", "the SentencePiece model is damaged: it is empty"),
        ("tokenizer.json", '{"model": {"type": "Unigram"}}', "the tokenizer is damaged.*; without this file"),
        ("tokenizer.json", '{"model": {"type": "BPE", "dropout": 0.1}}', "model.dropout = 0.1 is not implemented"),
        ("vocab.txt", "a\nb", 'has no token "\\[UNK\\]"'),
        ("vocab.txt", "[UNK]\n" + "\n".join(map(str, range(800))), "vocab_size is 700"),
    ],
)
def test_damaged_sources_are_refused(file: str, text: str, culprit: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", {**CONFIG, "vocab_size": N_VOCAB}, tokenizer=False)
    (folder / file).write_text(text)
    with pytest.raises(ModelFileError, match=culprit):
        convert(folder, tmp_path / "model.gguf")


@pytest.mark.parametrize("name", ["AlbertTokenizer", "XLNetTokenizer", 5])
def test_other_classes_are_refused_by_name(name: Any, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", {**CONFIG, "vocab_size": N_VOCAB}, tokenizer=False)
    rinna(folder)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": name})
    with pytest.raises(ModelFileError, match=f"tokenizer_class = .*{name}.* is not implemented"):
        convert(folder, tmp_path / "model.gguf")
