"""Tokenizers that are not GPT-2's byte-level BPE: kept whole in the file, and run by the library that made them.

tokenizer.json of another pipeline                       -> `tokenizers`
vocab.json + merges.txt with add_prefix_space            -> `tokenizers`, as transformers' GPT2Tokenizer makes it
vocab.txt of a BertTokenizer (WordPiece)                 -> `tokenizers`, as transformers' BertTokenizer makes it
spiece.model and its like of GPTSw3Tokenizer, T5Tokenizer -> `sentencepiece`
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastgpt_c.convert.gguf_file import StoredTokenizer
from fastgpt_c.errors import ModelFileError, missing_extra
from fastgpt_c.io.checked_json import JSON, is_text, not_implemented, show
from fastgpt_c.tokenizers import KEY, SENTENCEPIECE_MODEL, SENTENCEPIECE_SETTINGS, TOKENIZER_JSON, huggingface
from fastgpt_c.tokenizers import sentencepiece as sentencepiece_family

SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "spm.model")
# Class -> the special tokens that it has where no file names any.
SENTENCEPIECE_CLASSES = {
    "GPTSw3Tokenizer": ("<s>", "<unk>", "<pad>", "<|endoftext|>"),
    "T5Tokenizer": ("</s>", "<unk>", "<pad>"),
    "T5TokenizerFast": ("</s>", "<unk>", "<pad>"),
    None: ("<s>", "</s>", "<unk>", "<pad>"),
}
# What to do about a tokenizer that nothing here runs.
WITHOUT_IT = "without this file the model is converted for token ids alone"
WORDPIECE_CLASSES = ("BertTokenizer", "BertTokenizerFast")


def from_tokenizer_json(
    path: Path, config: JSON, added: Iterable[JSON], special: Iterable[str], n_vocab: int
) -> StoredTokenizer:
    """config is what path holds; added are tokens of other files."""
    try:
        tokenizer = huggingface.load(json.dumps(config))
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}; {WITHOUT_IT}") from error
    return _stored(path, tokenizer, added, special, n_vocab)


def from_bpe_files(
    folder: Path,
    vocab: dict[str, int],
    merges: list[str],
    added: Iterable[JSON],
    special: Iterable[str],
    n_vocab: int,
    prefix_space: bool,
) -> StoredTokenizer:
    """vocab.json and merges.txt of a GPT2Tokenizer that puts a space before the text, or that has odd added tokens."""
    library = _library()
    pairs = [tuple(rule.split(" ")) for rule in merges]
    tokenizer = library.Tokenizer(library.models.BPE(vocab=vocab, merges=pairs))
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = library.decoders.ByteLevel()
    return _stored(folder / "vocab.json", tokenizer, added, special, n_vocab)


def from_wordpiece(
    path: Path, settings: JSON, added: Iterable[JSON], special: Iterable[str], n_vocab: int
) -> StoredTokenizer:
    """vocab.txt, a token a line."""
    library = _library()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read: {error}") from error
    vocab = {token.rstrip("\r"): i for i, token in enumerate(lines) if token or i + 1 < len(lines)}
    unknown = settings.get("unk_token", "[UNK]")
    unknown = unknown.get("content") if isinstance(unknown, dict) else unknown
    if not isinstance(unknown, str) or unknown not in vocab:
        raise ModelFileError(f"{path}: has no token {show(unknown)} for what it does not know")
    tokenizer = library.Tokenizer(library.models.WordPiece(vocab, unk_token=unknown))
    tokenizer.normalizer = library.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars") is not False,
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case") is not False,
    )
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = library.decoders.WordPiece(prefix="##")
    return _stored(path, tokenizer, added, ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]", *special], n_vocab)


def from_sentencepiece(
    path: Path, settings: JSON, added: Iterable[JSON], special: Iterable[str], n_vocab: int
) -> StoredTokenizer:
    kind = settings.get("tokenizer_class")
    if not isinstance(kind, str | None) or kind not in SENTENCEPIECE_CLASSES:
        raise not_implemented(path.parent / "tokenizer_config.json", "tokenizer_class", kind, SENTENCEPIECE_CLASSES)
    try:
        data = path.read_bytes()
        processor = sentencepiece_family.load(data)
    except (OSError, ModelFileError) as error:
        raise ModelFileError(f"{path}: {error}") from error
    if len(processor) > n_vocab:
        raise ModelFileError(f"{path}: has {len(processor)} tokens, but vocab_size is {n_vocab}")
    known = {text: processor.piece_to_id(text) for text in [*SENTENCEPIECE_CLASSES[kind], *special]}
    named = {text: token for text, token in known.items() if processor.id_to_piece(token) == text}
    values = {
        "special": named | _added_pieces(path, processor, added, n_vocab),
        "lower": settings.get("do_lower_case") is True,
        "gpt_sw3": kind == "GPTSw3Tokenizer",
    }
    texts = {KEY: "sentencepiece", SENTENCEPIECE_SETTINGS: json.dumps(values, ensure_ascii=False)}
    return StoredTokenizer({**texts, SENTENCEPIECE_MODEL: data})


def _added_pieces(path: Path, processor: Any, added: Iterable[JSON], n_vocab: int) -> dict[str, int]:
    """Tokens of other files: pieces of the model that are to be cut out first, or tokens behind its own."""
    pieces: dict[str, int] = {}
    for entry in added:
        text, token = entry.get("content"), entry["id"]
        if not is_text(text) or not 0 <= token < n_vocab:
            raise ModelFileError(f"{path.parent}: {show(text)}: {show(token)} is no token of a vocabulary of {n_vocab}")
        if token < len(processor) and processor.id_to_piece(token) != text:
            raise ModelFileError(f"{path}: token {token} is {show(processor.id_to_piece(token))}, not {show(text)}")
        pieces[text] = token
    return pieces


def _stored(path: Path, tokenizer: Any, added: Iterable[JSON], special: Iterable[str], n_vocab: int) -> StoredTokenizer:
    """added are tokens of other files.  They, and tokens that a role names, are found in a text before all else, as in
    transformers."""
    library = _library()
    special = list(special)
    present = _added_texts(tokenizer)
    for entry in sorted(added, key=lambda entry: int(entry["id"])):
        if entry.get("content") not in present and entry.get("content") != "":
            _add(path, tokenizer, entry, special)
    present = _added_texts(tokenizer)
    named = [text for text in special if text not in present and tokenizer.token_to_id(text) is not None]
    tokenizer.add_special_tokens([library.AddedToken(text, special=True, normalized=False) for text in named])
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= n_vocab:
        text = tokenizer.id_to_token(largest)
        raise ModelFileError(f"{path}: token {show(text)} has id {largest}, but vocab_size is {n_vocab}")
    return StoredTokenizer({KEY: "tokenizers", TOKENIZER_JSON: tokenizer.to_str()})


def _added_texts(tokenizer: Any) -> set[str]:
    return {entry.content for entry in tokenizer.get_added_tokens_decoder().values()}


def _add(path: Path, tokenizer: Any, entry: JSON, special: list[str]) -> None:
    """entry: {"content": ..., "id": ..., and perhaps flags}, as transformers takes it."""
    text = entry.get("content")
    if not is_text(text):
        raise ModelFileError(f"{path.parent}: the added token {show(text)} is not a text")
    flags = {name: entry.get(name) is True for name in ("single_word", "lstrip", "rstrip", "special")}
    flags["special"] |= text in special
    normalized = is_normalized(entry, special=flags["special"])
    tokenizer.add_tokens([_library().AddedToken(text, normalized=normalized, **flags)])
    if tokenizer.token_to_id(text) != entry["id"]:
        raise ModelFileError(
            f"{path}: token {show(text)} has id {tokenizer.token_to_id(text)}, but its added tokens say {entry['id']}"
        )


def is_normalized(entry: JSON, *, special: bool) -> bool:
    """Whether `tokenizers` cuts this added token out of a text after those that are not "normalized"."""
    return entry.get("normalized", not special) is True


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise missing_extra("convert,tokenizers", "Converting this tokenizer") from error
    return tokenizers
