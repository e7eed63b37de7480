"""Read the tokenizer of a Hugging Face GPT-2 checkpoint.

The source is tokenizer.json (the `tokenizers` library), else vocab.json + merges.txt (OpenAI's files), else a
SentencePiece model or vocab.txt.  Byte-level BPE with GPT-2's own pattern becomes a vocabulary that the engine runs
itself; library_tokenizer.py has the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastgpt_c.convert.gguf_file import CONTROL, NORMAL, UNUSED, USER_DEFINED, StoredTokenizer, Vocabulary
from fastgpt_c.convert.library_tokenizer import (
    SENTENCEPIECE_FILES,
    WITHOUT_IT,
    WORDPIECE_CLASSES,
    from_bpe_files,
    from_sentencepiece,
    from_tokenizer_json,
    from_wordpiece,
    is_normalized,
)
from fastgpt_c.errors import ModelFileError
from fastgpt_c.io.checked_json import (
    JSON,
    Implemented,
    check_values,
    is_text,
    other_values,
    read_json,
    read_json_if_present,
    show,
)
from fastgpt_c.tokenizers.bpe_python import CHARACTER_TO_BYTE, MAX_SPECIAL_BYTES

# Files of early versions have fewer fields, hence the None.
PIPELINE: Implemented = {
    "normalizer": (None,),
    "pre_tokenizer.type": ("ByteLevel",),
    "pre_tokenizer.add_prefix_space": (False,),
    "pre_tokenizer.use_regex": (True, None),
    "post_processor.type": (None,),
    "decoder.type": ("ByteLevel",),
    "model.type": ("BPE", None),
    "model.dropout": (0, None),
    "model.continuing_subword_prefix": ("", None),
    "model.end_of_word_suffix": ("", None),
    "model.byte_fallback": (False, None),
    "model.ignore_merges": (False, None),
}
# What the tokenizer of another pipeline must not have: a random result.
ANY_PIPELINE: Implemented = {"model.dropout": (0, None)}
SETTINGS: Implemented = {
    "add_prefix_space": (True, False, None),
    "do_lower_case": (True, False, None),
    "strip_accents": (True, False, None),
    "tokenize_chinese_chars": (True, False, None),
    "add_bos_token": (False, None),
    "add_eos_token": (False, None),
}
CLASSES: Implemented = {"tokenizer_class": ("GPT2Tokenizer", "GPT2TokenizerFast", None)}
# Steps that add special tokens around a text at most, which a prompt here never gets: it is what the user wrote.
FRAMES = ("ByteLevel", "RobertaProcessing", "BertProcessing")
MAX_NESTING = 8
ADDED_TOKEN: Implemented = {"single_word": (False, None), "lstrip": (False, None), "rstrip": (False, None)}

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
    normalized: set[int] = field(default_factory=set)

    def put(self, path: Path, text: object, token: object, n_vocab: int) -> int:
        if not (is_text(text) or text == "") or not isinstance(token, int) or isinstance(token, bool):
            raise ModelFileError(f"{path}: {show(text)}: {show(token)} is not a token and its id")
        if not 0 <= token < n_vocab:
            raise ModelFileError(f"{path}: token {show(text)} has id {token}, but vocab_size is {n_vocab}")
        if (other := self.by_id.setdefault(token, text)) != text:
            raise ModelFileError(f"{path}: tokens {show(other)} and {show(text)} have one id, {token}")
        if (twin := self.ids.setdefault(text, token)) != token:
            raise ModelFileError(f"{path}: token {show(text)} has two ids, {twin} and {token}")
        return token


@dataclass(frozen=True)
class CheckpointTokenizer:
    """What a checkpoint has of a tokenizer, None if nothing, and what the user should know of it."""

    vocabulary: Vocabulary | StoredTokenizer | None
    notes: tuple[str, ...] = ()


def read_tokenizer(folder: Path, n_vocab: int) -> CheckpointTokenizer:
    """The tokenizer in folder.

    Raises ModelFileError for damaged files and for what no library runs, MissingExtraError where one is needed.
    """
    settings_path = folder / "tokenizer_config.json"
    settings = read_json_if_present(settings_path)
    check_values(settings_path, settings, SETTINGS)
    special = _special_texts(settings, read_json_if_present(folder / "special_tokens_map.json"))
    path = folder / "tokenizer.json"
    if path.exists():
        config = read_json(path)
        _set_prefix_space(config, settings)
        added = [*_added_json_entries(folder / "added_tokens.json"), *_decoder_entries(settings_path, settings)]
        odd = next(other_values(_without_idle_steps(config), PIPELINE), None) or _unknown_token(config)
        odd = odd or _odd_token([*_listed(config.get("added_tokens")), *added], special)
        if odd is not None:
            check_values(path, config, ANY_PIPELINE)
            return CheckpointTokenizer(
                from_tokenizer_json(path, config, added, special, n_vocab), (_needs_library(path, *odd),)
            )
        tokens, merges = _read_tokenizer_json(path, config, special, n_vocab)
        _read_added(settings_path, added, tokens, special, n_vocab)
    else:
        added = [*_added_json_entries(folder / "added_tokens.json"), *_decoder_entries(settings_path, settings)]
        if not _has_vocab_json(folder):
            return CheckpointTokenizer(_other_kind(folder, settings_path, settings, added, special, n_vocab))
        check_values(settings_path, settings, CLASSES)
        tokens, merges = _read_bpe(folder / "vocab.json", folder / "merges.txt", n_vocab)
        prefix_space = settings.get("add_prefix_space") is True
        odd = ("add_prefix_space", True) if prefix_space else _odd_token(added, special)
        if odd is not None:
            return CheckpointTokenizer(
                from_bpe_files(folder, tokens.ids, merges, added, special, n_vocab, prefix_space),
                (_needs_library(folder, *odd),),
            )
        _read_added(folder, added, tokens, special, n_vocab)
    tokens.special.update(tokens.ids[text] for text in special if text in tokens.ids)
    return CheckpointTokenizer(_vocabulary(tokens, merges, n_vocab))


def _needs_library(path: Path, key: str, value: object) -> str:
    return (
        f"{path}: {key} = {show(value)} is not as in GPT-2's own tokenizer, so the library `tokenizers` is to run it "
        "(pip install 'fastgpt-c[tokenizers]').  Text does not work without it, nor in the C command, in llama.cpp, or "
        "with constraints (--json-schema, --regex, --grammar)"
    )


def _without_idle_steps(config: JSON) -> JSON:
    """config without what does nothing to the text of a prompt: sequences of one step, and post-processors that put
    special tokens around it at most.  transformers 5 writes such ones for a plain GPT-2."""
    steps = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
    return {
        **config,
        **{part: _lone_step(config.get(part), list_name) for part, list_name in steps.items()},
        "post_processor": None if _leaves_text_alone(config.get("post_processor")) else config.get("post_processor"),
    }


def _lone_step(step: object, list_name: str) -> object:
    """What a "Sequence" of one step, or of none, stands for."""
    for _ in range(MAX_NESTING):
        inner = step.get(list_name) if isinstance(step, dict) and step.get("type") == "Sequence" else None
        if not isinstance(inner, list) or len(inner) > 1:
            break
        step = inner[0] if inner else None
    return step


def _leaves_text_alone(processor: object, depth: int = 0) -> bool:
    """Whether a post-processor only puts special tokens around the tokens of a text."""
    if processor is None:
        return True
    if not isinstance(processor, dict) or depth > MAX_NESTING:
        return False
    if processor.get("type") == "TemplateProcessing":
        return _has_text_once(processor.get("single"))
    if processor.get("type") == "Sequence" and isinstance(processor.get("processors"), list):
        return all(_leaves_text_alone(inner, depth + 1) for inner in processor["processors"])
    return processor.get("type") in FRAMES


def _has_text_once(template: object) -> bool:
    """Whether a template has the text once, and else special tokens."""
    pieces = template.split() if isinstance(template, str) else template
    return isinstance(pieces, list) and sum(map(_is_text_of_template, pieces)) == 1


def _is_text_of_template(piece: object) -> bool:
    """{"Sequence": ...}, or "$A" and its like."""
    return "Sequence" in piece if isinstance(piece, dict) else isinstance(piece, str) and piece.startswith("$")


def _set_prefix_space(config: JSON, settings: JSON) -> None:
    """A GPT2Tokenizer takes it from tokenizer_config.json, where an absent key means none; other classes do not."""
    pre_tokenizer = config.get("pre_tokenizer")
    if any(other_values(settings, CLASSES)) or not isinstance(pre_tokenizer, dict):
        return
    if pre_tokenizer.get("type") == "ByteLevel":
        pre_tokenizer["add_prefix_space"] = settings.get("add_prefix_space") is True


def _unknown_token(config: JSON) -> tuple[str, object] | None:
    """What stands for bytes that the vocabulary lacks, if there are any.  Without it such bytes are refused."""
    model = config.get("model")
    if not isinstance(model, dict) or model.get("unk_token") is None or not isinstance(model.get("vocab"), dict):
        return None
    return None if CHARACTER_TO_BYTE.keys() <= model["vocab"].keys() else ("model.unk_token", model["unk_token"])


def _odd_token(added: list[Any], special: list[str]) -> tuple[str, object] | None:
    """The first added token that is more than a short text that is cut out wherever it stands, and where it says so."""
    for entry in added:
        if isinstance(entry, dict) and (any(other_values(entry, ADDED_TOKEN)) or _is_long(entry.get("content"))):
            return "added_tokens", entry
    return next((("a special token", text) for text in special if _is_long(text)), None)


def _is_long(text: object) -> bool:
    """Longer than what the engine looks for."""
    return is_text(text) and len(text.encode()) > MAX_SPECIAL_BYTES


def _other_kind(
    folder: Path, settings_path: Path, settings: JSON, added: list[JSON], special: list[str], n_vocab: int
) -> StoredTokenizer | None:
    for name in SENTENCEPIECE_FILES:
        if (folder / name).exists():
            for entry in added:
                check_values(settings_path, entry, ADDED_TOKEN)
            return from_sentencepiece(folder / name, settings, added, special, n_vocab)
    if (folder / "vocab.txt").exists():
        check_values(settings_path, settings, {"tokenizer_class": (*WORDPIECE_CLASSES, None)})
        return from_wordpiece(folder / "vocab.txt", settings, added, special, n_vocab)
    try:
        check_values(settings_path, settings, CLASSES)
    except ModelFileError as error:
        raise ModelFileError(f"{error}; {WITHOUT_IT}") from error
    return None


def _vocabulary(tokens: _Tokens, merges: list[str], n_vocab: int) -> Vocabulary:
    """Ids that no token has are filled up by "[PAD<id>]"."""
    types = [_type_of(tokens, token) for token in range(n_vocab)]
    return Vocabulary(
        tokens=[tokens.by_id.get(token, f"[PAD{token}]") for token in range(n_vocab)],
        types=types,
        merges=merges,
        normalized=_unusual_order(tokens, types),
    )


def _unusual_order(tokens: _Tokens, types: list[int]) -> list[int] | None:
    """The tokens that are cut out last, unless their types say it: they are the USER_DEFINED ones, or all are cut out
    at once, first or last."""
    cut_out = [token for token, type in enumerate(types) if type in (CONTROL, USER_DEFINED)]
    last = [token for token in cut_out if token in tokens.normalized] or cut_out
    by_type = [token for token in cut_out if types[token] == USER_DEFINED] or cut_out
    return None if last == by_type else last


def _read_tokenizer_json(path: Path, config: JSON, special: list[str], n_vocab: int) -> tuple[_Tokens, list[str]]:
    tokens, model = _Tokens(), config.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict) or "merges" not in model:
        raise ModelFileError(f"{path}: its model has no vocab and merges")
    for text, token in model["vocab"].items():
        tokens.put(path, text, token, n_vocab)
    merges = _checked_merges(path, model["merges"], tokens)
    _read_added(path, _listed(config.get("added_tokens")), tokens, special, n_vocab)
    return tokens, merges


def _has_vocab_json(folder: Path) -> bool:
    vocab, merges = (folder / "vocab.json").exists(), (folder / "merges.txt").exists()
    if vocab != merges:
        raise ModelFileError(f"{folder}: has {'vocab.json' if vocab else 'merges.txt'} but not its other half")
    return vocab


def read_openai_vocabulary(folder: Path, n_vocab: int) -> Vocabulary:
    """encoder.json and vocab.bpe, which hold what Hugging Face calls vocab.json and merges.txt."""
    tokens, merges = _read_bpe(folder / "encoder.json", folder / "vocab.bpe", n_vocab)
    return _openai(tokens, merges, n_vocab)


def openai_vocabulary(path: Path, texts: list[str], merges: list[str], n_vocab: int) -> Vocabulary:
    """The same from lists that stand in path: texts by id, and the lines of vocab.bpe after its first."""
    tokens = _Tokens()
    for token, text in enumerate(texts):
        tokens.put(path, text, token, n_vocab)
    return _openai(tokens, _checked_merges(path, [line for line in merges if line], tokens), n_vocab)


def _openai(tokens: _Tokens, merges: list[str], n_vocab: int) -> Vocabulary:
    if DEFAULT_SPECIAL in tokens.ids:
        tokens.special.add(tokens.ids[DEFAULT_SPECIAL])
    return _vocabulary(tokens, merges, n_vocab)


def _read_bpe(vocab: Path, merges: Path, n_vocab: int) -> tuple[_Tokens, list[str]]:
    tokens = _Tokens()
    for text, token in read_json(vocab).items():
        tokens.put(vocab, text, token, n_vocab)
    return tokens, _read_merges(merges, tokens)


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


def _added_json_entries(path: Path) -> Iterator[JSON]:
    """added_tokens.json {"<sep>": 50257} in the form of tokenizer.json's added_tokens."""
    for text, token in read_json_if_present(path).items():
        if not isinstance(token, int) or isinstance(token, bool):
            raise ModelFileError(f"{path}: {show(text)}: {show(token)} is not a token and its id")
        yield {"content": text, "id": token}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _decoder_entries(path: Path, settings: JSON) -> Iterator[JSON]:
    """added_tokens_decoder {"50256": {"content": ...}} in the form of tokenizer.json's added_tokens."""
    decoder = settings.get("added_tokens_decoder") or {}
    for token, entry in decoder.items() if isinstance(decoder, dict) else ():
        if not token.isdecimal() or len(token) > 10 or not isinstance(entry, dict):
            raise ModelFileError(f"{path}: added_tokens_decoder has {show(token)}: {show(entry)}, not an added token")
        yield {**entry, "id": int(token)}


def _read_added(path: Path, entries: Any, tokens: _Tokens, special: list[str], n_vocab: int) -> None:
    """An empty text is no token, as in `tokenizers`.  Of several entries of a token the first file's count, and of
    these the last one says when it is cut out."""
    known = frozenset(tokens.added)
    for entry in entries:
        if not isinstance(entry, dict):
            raise ModelFileError(f"{path}: {show(entry)} is not an added token")
        check_values(path, entry, ADDED_TOKEN)
        if entry.get("content") == "":
            continue
        token = tokens.put(path, entry.get("content"), entry.get("id"), n_vocab)
        tokens.added.add(token)
        if entry.get("special"):
            tokens.special.add(token)
        if token in known:
            continue
        tokens.normalized.discard(token)
        if is_normalized(entry, special=bool(entry.get("special")) or entry["content"] in special):
            tokens.normalized.add(token)


def _special_texts(*configs: JSON) -> list[str]:
    """What a role such as eos_token names is special; it is written "x" or {"content": "x"}."""
    named: list[Any] = [DEFAULT_SPECIAL]
    for config in configs:
        named += [config.get(role) for role in SPECIAL_ROLES]
        for key in SPECIAL_LISTS:
            value = config.get(key)
            named += value.values() if isinstance(value, dict) else _listed(value)
    texts = [entry.get("content") if isinstance(entry, dict) else entry for entry in named]
    return list(dict.fromkeys(text for text in texts if is_text(text)))


def _type_of(tokens: _Tokens, token: int) -> int:
    if token not in tokens.by_id:
        return UNUSED
    if token in tokens.special:
        return CONTROL
    return USER_DEFINED if token in tokens.added else NORMAL
