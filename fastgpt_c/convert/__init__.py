"""Turn a checkpoint of another program into one GGUF file.  Needs the extra [convert]."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastgpt_c.errors import ModelFileError, UsageError, missing_extra

if TYPE_CHECKING:
    from types import ModuleType

# Counts changes of what convert() writes: caches of converted files are keyed by it.
CONVERTER_VERSION = 1

TYPES = ("f32", "f16", "bf16")

# Every file of a Hugging Face checkpoint that the converter looks at, as patterns.  The last row only tells
# which tokenizers are not implemented.
CHECKPOINT_FILES = (
    *("config.json", "model.safetensors", "model.safetensors.index.json", "model-*.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt"),
    *("vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)


def convert(source: Path, target: Path, *, type: str = "f32", progress: bool = False) -> None:
    """Write the Hugging Face GPT-2 checkpoint in the folder source to the GGUF file target.

    type is that of the matrices: "f32", "f16" or "bf16"; vectors and position embeddings are always f32.
    target appears only when it is complete; an existing GGUF file is replaced.  Memory: about two copies of
    the largest tensor.  progress shows a bar on stderr.
    Raises ModelFileError, UsageError (type) or MissingExtraError.
    """
    if type not in TYPES:
        raise UsageError(f"type {type!r} is not one of {', '.join(TYPES)}")
    huggingface, gguf_file = _readers_and_writers()
    _check_folder(source)
    gguf_file.write(target, huggingface.read(source), type=type, progress=progress)


def stored_type(source: Path) -> str:
    """The narrowest of TYPES that keeps every weight of the checkpoint in the folder source exactly."""
    huggingface, _ = _readers_and_writers()
    _check_folder(source)
    return str(huggingface.stored_type(source))


def _readers_and_writers() -> tuple[ModuleType, ModuleType]:
    try:
        from fastgpt_c.convert import gguf_file, huggingface
    except ImportError as error:
        raise missing_extra("convert", "Converting a checkpoint") from error
    return huggingface, gguf_file


def _check_folder(source: Path) -> None:
    if not source.exists():
        raise ModelFileError(f"{source}: no such folder")
    if not source.is_dir():
        raise ModelFileError(f"{source}: is a file; give the folder of the checkpoint, the one with config.json")
