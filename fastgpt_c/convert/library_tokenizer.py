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

from fastgpt_c.convert.checked_json import JSON, not_implemented, show
from fastgpt_c.convert.gguf_file import StoredTokenizer
from fastgpt_c.errors import ModelFileError, missing_extra
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
WORDPIECE_CLASSES = ("BertTokenizer", "BertTokenizerFast")


def from_tokenizer_json(
    path: Path, config: JSON, settings: JSON, added: Iterable[JSON], special: Iterable[str], n_vocab: int
) -> StoredTokenizer:
    """config is what path holds; added are tokens that tokenizer_config.json adds."""
    pre_tokenizer = config.get("pre_tokenizer")
    if settings.get("add_prefix_space") and isinstance(pre_tokenizer, dict) and "add_prefix_space" in pre_tokenizer:
        pre_tokenizer["add_prefix_space"] = True  # tokenizer_config.json has the last word
    try:
        tokenizer = huggingface.load(json.dumps(config))
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    for entry in sorted(added, key=lambda entry: int(entry["id"])):
        _add(path, tokenizer, entry)
    return _stored(path, tokenizer, special, n_vocab)


def _add(path: Path, tokenizer: Any, entry: JSON) -> None:
    """entry is of added_tokens_decoder: {"content": ..., "id": ..., flags}."""
    text = entry.get("content")
    if not isinstance(text, str) or not text.isprintable():
        raise ModelFileError(f"{path.parent}: the added token {show(text)} is not a text")
    if tokenizer.token_to_id(text) is None:
        flags = {name: entry.get(name) is True for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        tokenizer.add_tokens([_library().AddedToken(text, **flags)])
    if tokenizer.token_to_id(text) != entry["id"]:
        raise ModelFileError(
            f"{path}: token {show(text)} has id {tokenizer.token_to_id(text)}, but tokenizer_config.json says "
            f"{entry['id']}"
        )


def from_bpe_files(
    folder: Path, vocab: dict[str, int], merges: list[str], special: Iterable[str], n_vocab: int
) -> StoredTokenizer:
    """vocab.json and merges.txt of a GPT2Tokenizer that puts a space before the text."""
    library = _library()
    pairs = [tuple(rule.split(" ")) for rule in merges]
    tokenizer = library.Tokenizer(library.models.BPE(vocab=vocab, merges=pairs))
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    return _stored(folder / "vocab.json", tokenizer, special, n_vocab)


def from_wordpiece(path: Path, settings: JSON, special: Iterable[str], n_vocab: int) -> StoredTokenizer:
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
    return _stored(path, tokenizer, ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]", *special], n_vocab)


def from_sentencepiece(path: Path, settings: JSON, special: Iterable[str], n_vocab: int) -> StoredTokenizer:
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
    values = {
        "special": {text: token for text, token in known.items() if processor.id_to_piece(token) == text},
        "lower": settings.get("do_lower_case") is True,
        "gpt_sw3": kind == "GPTSw3Tokenizer",
    }
    texts = {KEY: "sentencepiece", SENTENCEPIECE_SETTINGS: json.dumps(values, ensure_ascii=False)}
    return StoredTokenizer({**texts, SENTENCEPIECE_MODEL: data})


def _stored(path: Path, tokenizer: Any, special: Iterable[str], n_vocab: int) -> StoredTokenizer:
    """Tokens that a role names are found in a text before all else, as in transformers."""
    library = _library()
    added = {entry.content for entry in tokenizer.get_added_tokens_decoder().values()}
    named = [text for text in special if text not in added and tokenizer.token_to_id(text) is not None]
    tokenizer.add_special_tokens([library.AddedToken(text, special=True, normalized=False) for text in named])
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= n_vocab:
        text = tokenizer.id_to_token(largest)
        raise ModelFileError(f"{path}: token {show(text)} has id {largest}, but vocab_size is {n_vocab}")
    return StoredTokenizer({KEY: "tokenizers", TOKENIZER_JSON: tokenizer.to_str()})


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise missing_extra("convert,tokenizers", "Converting this tokenizer") from error
    return tokenizers
