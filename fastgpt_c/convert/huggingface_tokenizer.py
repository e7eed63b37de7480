"""Read the tokenizer of a Hugging Face GPT-2 checkpoint: byte-level BPE with GPT-2's pattern, or nothing.

The source is tokenizer.json (the `tokenizers` library), else vocab.json + merges.txt (OpenAI's files).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from fastgpt_c.convert.checked_json import (
    JSON,
    Implemented,
    check_values,
    not_implemented,
    read_json,
    read_json_if_present,
    show,
)
from fastgpt_c.convert.gguf_file import CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary
from fastgpt_c.errors import ModelFileError

# Files of early versions have fewer fields, hence the None.
PIPELINE: Implemented = {
    "normalizer": (None,),
    "pre_tokenizer.type": ("ByteLevel",),
    "pre_tokenizer.add_prefix_space": (False,),
    "pre_tokenizer.use_regex": (True, None),
    "post_processor.type": ("ByteLevel", None),
    "decoder.type": ("ByteLevel",),
    "model.type": ("BPE", None),
    "model.dropout": (0, None),
    "model.continuing_subword_prefix": ("", None),
    "model.end_of_word_suffix": ("", None),
    "model.byte_fallback": (False, None),
    "model.ignore_merges": (False, None),
}
SETTINGS: Implemented = {
    "add_prefix_space": (False, None),
    "add_bos_token": (False, None),
    "add_eos_token": (False, None),
}
CLASSES: Implemented = {"tokenizer_class": ("GPT2Tokenizer", "GPT2TokenizerFast", None)}
ADDED_TOKEN: Implemented = {"single_word": (False, None), "lstrip": (False, None), "rstrip": (False, None)}

OTHER_KINDS = ("vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")

SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")
# What transformers' GPT2Tokenizer takes for each role that no file names.
DEFAULT_SPECIAL = "<|endoftext|>"


@dataclass
class _Tokens:
    """Tokens by id, gathered from several files."""

    by_id: dict[int, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    added: set[int] = field(default_factory=set)
    special: set[int] = field(default_factory=set)

    def put(self, path: Path, text: object, token: object, n_vocab: int) -> int:
        if not _is_text(text) or not isinstance(token, int) or isinstance(token, bool):
            raise ModelFileError(f"{path}: {show(text)}: {show(token)} is not a token and its id")
        if not 0 <= token < n_vocab:
            raise ModelFileError(f"{path}: token {show(text)} has id {token}, but vocab_size is {n_vocab}")
        if (other := self.by_id.setdefault(token, text)) != text:
            raise ModelFileError(f"{path}: tokens {show(other)} and {show(text)} have one id, {token}")
        if (twin := self.ids.setdefault(text, token)) != token:
            raise ModelFileError(f"{path}: token {show(text)} has two ids, {twin} and {token}")
        return token


def read_vocabulary(folder: Path, n_vocab: int) -> Vocabulary | None:
    """The tokenizer in folder, with ids that no token has filled up by "[PAD<id>]"; None if there is no tokenizer.

    Raises ModelFileError for damaged files and for any other kind of tokenizer.
    """
    settings_path = folder / "tokenizer_config.json"
    settings = read_json_if_present(settings_path)
    check_values(settings_path, settings, SETTINGS)
    tokens = _Tokens()
    if (folder / "tokenizer.json").exists():
        merges = _read_tokenizer_json(folder / "tokenizer.json", tokens, n_vocab)
    else:
        check_values(settings_path, settings, CLASSES)
        if not _has_vocab_json(folder):
            return None
        merges = _read_vocab_json(folder, tokens, n_vocab)
    _read_added(settings_path, _decoder_entries(settings_path, settings), tokens, n_vocab)
    _mark_special(tokens, settings, read_json_if_present(folder / "special_tokens_map.json"))
    return Vocabulary(
        tokens=[tokens.by_id.get(token, f"[PAD{token}]") for token in range(n_vocab)],
        types=[_type_of(tokens, token) for token in range(n_vocab)],
        merges=merges,
    )


def _read_tokenizer_json(path: Path, tokens: _Tokens, n_vocab: int) -> list[str]:
    config = read_json(path)
    check_values(path, config, PIPELINE)
    model = config.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict) or "merges" not in model:
        raise ModelFileError(f"{path}: its model has no vocab and merges")
    for text, token in model["vocab"].items():
        tokens.put(path, text, token, n_vocab)
    merges = _checked_merges(path, model["merges"], tokens)
    _read_added(path, config.get("added_tokens") or [], tokens, n_vocab)
    return merges


def _has_vocab_json(folder: Path) -> bool:
    vocab, merges = (folder / "vocab.json").exists(), (folder / "merges.txt").exists()
    if vocab != merges:
        raise ModelFileError(f"{folder}: has {'vocab.json' if vocab else 'merges.txt'} but not its other half")
    for name in OTHER_KINDS:
        if not vocab and (folder / name).exists():
            raise not_implemented(folder, "tokenizer", name, ("tokenizer.json", "vocab.json + merges.txt"))
    return vocab


def _read_vocab_json(folder: Path, tokens: _Tokens, n_vocab: int) -> list[str]:
    vocab = folder / "vocab.json"
    for text, token in read_json(vocab).items():
        tokens.put(vocab, text, token, n_vocab)
    merges = _read_merges(folder / "merges.txt", tokens)
    added = folder / "added_tokens.json"
    entries = [{"content": text, "id": token} for text, token in read_json_if_present(added).items()]
    _read_added(added, entries, tokens, n_vocab)
    return merges


def _read_merges(path: Path, tokens: _Tokens) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read: {error}") from error
    return _checked_merges(path, [line for line in lines if line and not line.startswith("#version")], tokens)


def _checked_merges(path: Path, merges: Any, tokens: _Tokens) -> list[str]:
    """Rules as "a b", from such strings or from pairs; a, b and ab must be tokens."""
    rules = []
    for rule in merges if isinstance(merges, list) else [merges]:
        pair = rule.split(" ") if isinstance(rule, str) else rule
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ModelFileError(f"{path}: {show(rule)} is not a merge rule")
        for text in (*pair, "".join(pair)):
            if text not in tokens.ids:
                raise ModelFileError(f"{path}: the merge rule {show(' '.join(pair))} needs {show(text)}, no token")
        rules.append(" ".join(pair))
    return rules


def _decoder_entries(path: Path, settings: JSON) -> Iterator[JSON]:
    """added_tokens_decoder {"50256": {"content": ...}} in the form of tokenizer.json's added_tokens."""
    decoder = settings.get("added_tokens_decoder") or {}
    for token, entry in decoder.items() if isinstance(decoder, dict) else ():
        if not token.isdecimal() or len(token) > 10 or not isinstance(entry, dict):
            raise ModelFileError(f"{path}: added_tokens_decoder has {show(token)}: {show(entry)}, not an added token")
        yield {**entry, "id": int(token)}


def _read_added(path: Path, entries: Any, tokens: _Tokens, n_vocab: int) -> None:
    for entry in entries:
        if not isinstance(entry, dict):
            raise ModelFileError(f"{path}: {show(entry)} is not an added token")
        check_values(path, entry, ADDED_TOKEN)
        token = tokens.put(path, entry.get("content"), entry.get("id"), n_vocab)
        tokens.added.add(token)
        if entry.get("special"):
            tokens.special.add(token)


def _mark_special(tokens: _Tokens, *configs: JSON) -> None:
    """Tokens that a role such as eos_token names are special; they are written "x" or {"content": "x"}."""
    named: list[Any] = [DEFAULT_SPECIAL]
    for config in configs:
        named += [config.get(role) for role in SPECIAL_ROLES]
        for key in SPECIAL_LISTS:
            value = config.get(key) or []
            named += value.values() if isinstance(value, dict) else value
    texts = [entry.get("content") if isinstance(entry, dict) else entry for entry in named]
    tokens.special.update(tokens.ids[text] for text in texts if isinstance(text, str) and text in tokens.ids)


def _is_text(value: object) -> TypeGuard[str]:
    """A string with something in it, and without half a surrogate pair, which UTF-8 cannot express."""
    return isinstance(value, str) and value != "" and not any("\ud800" <= char <= "\udfff" for char in value)


def _type_of(tokens: _Tokens, token: int) -> int:
    if token not in tokens.by_id:
        return UNUSED
    if token in tokens.special:
        return CONTROL
    return USER_DEFINED if token in tokens.added else NORMAL
