"""Turn a checkpoint of another program, or a GGUF file, into one GGUF file.  Needs the extra [convert]."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastgpt_c.errors import MissingExtraError, ModelFileError, UsageError, missing_extra

if TYPE_CHECKING:
    from fastgpt_c.convert.gguf_file import Contents
    from fastgpt_c.convert.quantizer import TensorReport

# Counts changes of what convert() writes: caches of converted files are keyed by it.
CONVERTER_VERSION = 5

TYPES = ("f32", "f16", "bf16", "q8_0", "i8", "q4_0")

# Every file of a Hugging Face checkpoint that the converter looks at, as patterns.
CHECKPOINT_FILES = (
    *("config.json", "generation_config.json", "README.md"),
    *("model.safetensors", "model.safetensors.index.json", "model-*.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.jinja"),
    *("vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "spm.model"),
)
# What OpenAI published for each size.
TENSORFLOW_FILES = (
    *("checkpoint", "encoder.json", "hparams.json", "vocab.bpe"),
    *("model.ckpt.data-00000-of-00001", "model.ckpt.index", "model.ckpt.meta"),
)
# Weights in PyTorch's own format, read where there is nothing else.
TORCH_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")


def convert(
    source: Path, target: Path, *, type: str = "f32", lora: Path | None = None, progress: bool = False
) -> list[str]:
    """Write a GPT-2 checkpoint to the GGUF file target -> what the user should know of it, a sentence each.

    source is a folder, Hugging Face's or OpenAI's, or a file that fastGPT wrote (model.gguf, model.dat).
    lora is the folder of a LoRA adapter that PEFT saved, to be merged into a Hugging Face checkpoint (lora.py).

    type is that of the matrices, one of TYPES; vectors and position embeddings are always f32, and a matrix whose
    rows are not whole blocks of q8_0 or q4_0 (32 numbers), or of i8 (64), is stored as f16.  A file with i8 runs here
    only: its architecture is fastgpt-gpt2.
    target appears only when it is complete and the engine has opened it and encoded a line; an existing GGUF file is
    replaced, but not source itself.
    Memory: about three copies of the largest tensor.  progress shows a bar on stderr.
    Raises ModelFileError, UsageError (type, target is source) or MissingExtraError.
    """
    _check_type(type)
    try:
        from fastgpt_c.convert import gguf_file
        from fastgpt_c.convert.self_check import check_runs

        gguf_file.check_target(target, source)
        contents = _read(source, lora)
    except ImportError as error:
        raise _missing(error) from error
    gguf_file.write(target, contents, type=type, progress=progress, check=lambda written: check_runs(written, source))
    return contents.notes


def _read(source: Path, lora: Path | None) -> Contents:
    from fastgpt_c.convert import fastgpt, huggingface, tensorflow

    is_fastgpt = fastgpt.is_model(source)
    if not is_fastgpt:
        _check_folder(source)
        if not tensorflow.is_checkpoint(source):
            return huggingface.read(source, lora)
    if lora is not None:
        raise UsageError(f"{source}: is no checkpoint of transformers, so no adapter can be merged into it")
    return fastgpt.read(source) if is_fastgpt else tensorflow.read(source)


def quantize(source: Path, target: Path, *, type: str, progress: bool = False) -> list[TensorReport]:
    """Write the GGUF file source again, to target, with its matrices in type, one of TYPES.

    Everything else is as in convert; keys are copied.  A tensor in blocks (q8_0 ...) or in i8 is never rounded again:
    it keeps its type or becomes f32, which is exact; any other type is refused.
    Returns what became of each tensor, in the order of the file.
    Raises ModelFileError, UsageError (type, target is source) or MissingExtraError.
    """
    _check_type(type)
    try:
        from fastgpt_c.convert import quantizer
    except ImportError as error:
        raise missing_extra("convert", "Quantizing a model") from error
    return quantizer.quantize(source, target, type=type, progress=progress)


def stored_type(source: Path) -> str:
    """The narrowest of f32, f16 and bf16 that keeps every weight of the checkpoint in the folder source exactly."""
    _check_folder(source)
    try:
        from fastgpt_c.convert import huggingface, tensorflow
    except ImportError as error:
        raise _missing(error) from error
    return "f32" if tensorflow.is_checkpoint(source) else huggingface.stored_type(source)


def _missing(error: ImportError) -> ImportError:
    return error if isinstance(error, MissingExtraError) else missing_extra("convert", "Converting a checkpoint")


def _check_type(type: str) -> None:
    if type not in TYPES:
        raise UsageError(f"type {type!r} is not one of {', '.join(TYPES)}")


def _check_folder(source: Path) -> None:
    if not source.exists():
        raise ModelFileError(f"{source}: no such folder")
    if not source.is_dir():
        raise ModelFileError(f"{source}: is a file, and none of fastGPT; give the folder of the checkpoint")
