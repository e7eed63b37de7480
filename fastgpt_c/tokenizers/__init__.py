"""Tokenizers other than GPT-2's byte-level BPE, each run by the library that made it.

A GGUF file says which it needs under the key fastgpt.tokenizer:

    sentencepiece  the model file under fastgpt.tokenizer.sentencepiece, settings under fastgpt.tokenizer.settings
    tokenizers     the whole tokenizer.json under GGUF's own key tokenizer.huggingface.json

For programs that do not know the key, such as llama.cpp, tokenizer.ggml.model is "none": they take and give token ids.
"""

from __future__ import annotations

from fastgpt_c.errors import ModelFileError
from fastgpt_c.tokenizers.base import LibraryTokenizer, Metadata

KEY = "fastgpt.tokenizer"
TOKENIZER_JSON = "tokenizer.huggingface.json"
SENTENCEPIECE_MODEL = "fastgpt.tokenizer.sentencepiece"
SENTENCEPIECE_SETTINGS = "fastgpt.tokenizer.settings"

# Of GPT-2's own tokenizer: ids of the control and user-defined tokens that are cut out of a text after the others,
# where these are not just the user-defined ones.
NORMALIZED_TOKENS = "fastgpt.tokenizer.normalized_tokens"


def kind_of(metadata: Metadata) -> str | None:
    """What the file names under KEY, None for a file with GPT-2's tokenizer or none."""
    kind = metadata(KEY)
    return None if kind is None else kind.decode("utf-8", "replace")


def open_tokenizer(kind: str, metadata: Metadata, n_vocab: int, eos_token: int | None) -> LibraryTokenizer:
    """metadata gives the bytes under a key of the file.  Raises ModelFileError or MissingExtraError."""
    if kind == "tokenizers":
        from fastgpt_c.tokenizers.huggingface import HuggingFaceTokenizer

        return HuggingFaceTokenizer(_required(metadata, TOKENIZER_JSON), n_vocab, eos_token)
    if kind == "sentencepiece":
        from fastgpt_c.tokenizers.sentencepiece import SentencePieceTokenizer

        model, settings = _required(metadata, SENTENCEPIECE_MODEL), _required(metadata, SENTENCEPIECE_SETTINGS)
        return SentencePieceTokenizer(model, settings, n_vocab, eos_token)
    raise ModelFileError(f"{KEY} is {kind[:80]!r}; sentencepiece and tokenizers are implemented")


def _required(metadata: Metadata, key: str) -> bytes:
    value = metadata(key)
    if value is None:
        raise ModelFileError(f"key {key} is missing")
    return value


__all__ = [
    "KEY",
    "NORMALIZED_TOKENS",
    "SENTENCEPIECE_MODEL",
    "SENTENCEPIECE_SETTINGS",
    "TOKENIZER_JSON",
    "LibraryTokenizer",
]
