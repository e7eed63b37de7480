"""From what a user types after -m to a local GGUF file: bundled model, files, checkpoints, the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib.resources
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from fastgpt_c import convert
from fastgpt_c.checkpoints import openai_download
from fastgpt_c.errors import ModelFileError, missing_extra
from fastgpt_c.io.cache_dir import cache_dir
from fastgpt_c.io.checked_json import check_values, read_json

# OpenAI's four sizes, by the number of their parameters.
SIZES = {
    "124M": "openai-community/gpt2",
    "117M": "openai-community/gpt2",  # as OpenAI counted at first, and named the same weights
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}

# NAME or ORG/NAME, as the hub spells them.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
FILE_SUFFIXES = (".gguf", ".safetensors", ".bin", ".json", ".pt", ".ckpt")


def resolve(name_or_path: str | Path | None, *, progress: bool = False) -> Path:
    """The GGUF file that name_or_path means.

    None           the demo model inside the package
    a file         itself
    a folder       the Hugging Face checkpoint in it, converted once into cache_dir() and re-used while unchanged
    124M, ORG/NAME a checkpoint of the Hugging Face hub, downloaded and converted once

    What exists on disk comes first.  Of the rest, a Path, and a string with a path's looks (see looks_like_path),
    is never looked up on the hub.  Raises ModelFileError, or MissingExtraError when [hub] or [convert] is needed.
    """
    if name_or_path is None:
        return demo_model()
    try:
        path = Path(name_or_path).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, RuntimeError) as error:  # not readable, too long, or ~NAME of nobody
        raise ModelFileError(f"{name_or_path}: {error}") from error
    if is_folder:
        return _converted(path, progress=progress)
    if is_file:
        return path
    if isinstance(name_or_path, Path) or looks_like_path(name_or_path):
        raise ModelFileError(f"{path}: no such file or folder")
    return _converted(download(name_or_path, progress=progress), progress=progress)


def resolve_openai(size: str, *, progress: bool = False) -> Path:
    """The GGUF file of one of SIZES as OpenAI published it, downloaded and converted once."""
    return _converted(openai_download.download(size, cache_dir() / "openai", progress=progress), progress=progress)


def looks_like_path(name: str) -> bool:
    """Whether name cannot be, or is not meant as, a name on the hub.

    So look: more than one slash, or one at an end; a first letter such as "." or "~"; the suffix of a model
    file; and A/B where there is a folder A here.
    """
    if not HUB_ID.fullmatch(name) or name.lower().endswith(FILE_SUFFIXES):
        return True
    return "/" in name and Path(name).parent.is_dir()


def demo_model() -> Path:
    """The file of the demo model inside the package."""
    model = Path(str(importlib.resources.files("fastgpt_c") / "models" / "demo.gguf"))
    if not model.is_file():
        raise ModelFileError(f"{model}: the demo model is missing from this installation; install fastgpt-c again")
    return model


# ---- Checkpoints: converted once -------------------------------------------------------------------------


def _converted(folder: Path, *, progress: bool) -> Path:
    """The checkpoint in folder as a GGUF file in the cache, in the checkpoint's own type: nothing is rounded,
    and nothing takes more room than it did."""
    owner, state = _owner(folder), _state(folder)
    cache = cache_dir() / "converted"
    target = cache / f"{owner}-{state}.gguf"
    if target.exists():
        return target
    stored_type = convert.stored_type(folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(
            f"{cache}: cannot be made: {error.strerror}; FASTGPT_CACHE names another folder"
        ) from error
    notes = convert.convert(folder, target, type=stored_type, progress=progress)
    if progress:
        print("".join(f"note: {note}\n" for note in notes), end="", file=sys.stderr)
    for stale in cache.glob(f"{owner}-*.gguf"):
        if stale != target:
            stale.unlink(missing_ok=True)
    return target


def _owner(folder: Path) -> str:
    """Names the checkpoint, whatever is in it.  All commits of a repository in huggingface_hub's cache are one."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots":
        folder = folder.parent.parent
    return _digest(os.fsencode(folder))


def _state(folder: Path) -> str:
    """Changes when a file that the converter reads does (name, size or time), or the converter itself."""
    patterns = (*convert.CHECKPOINT_FILES, *convert.TORCH_FILES, *convert.TENSORFLOW_FILES)
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    try:
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)]
    except OSError as error:
        raise ModelFileError(f"{folder}: cannot be read: {error}") from error
    return _digest(json.dumps([convert.CONVERTER_VERSION, stats]).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


# ---- The Hugging Face hub --------------------------------------------------------------------------------


def download(name: str, *, progress: bool = False) -> Path:
    """The folder of a GPT-2 checkpoint of the Hugging Face hub, fetched as far as it is not there yet.

    name is ORG/NAME, or one of SIZES.  Files go where huggingface_hub keeps them; HF_HOME, HF_ENDPOINT,
    HF_TOKEN and HF_HUB_OFFLINE work as everywhere.  progress shows huggingface_hub's bars on stderr.
    Raises ModelFileError, or MissingExtraError when huggingface_hub is not installed.
    """
    repository = SIZES.get(name, name)
    config = _fetch(repository, ["config.json"], progress=False) / "config.json"
    if not config.exists():
        raise ModelFileError(f"{repository}: has no config.json, so it is not a checkpoint of transformers")
    check_values(config, read_json(config), {"model_type": ("gpt2", None)})  # before gigabytes of something else
    folder = _fetch(repository, list(convert.CHECKPOINT_FILES), progress=progress)
    if any(folder.glob("model*.safetensors")):
        return folder
    if importlib.util.find_spec("torch") is None:
        raise ModelFileError(
            f"{repository}: has no model.safetensors (older repositories have pytorch_model.bin only, a format that "
            "can run code; only PyTorch itself reads it safely:  pip install torch)"
        )
    folder = _fetch(repository, list(convert.TORCH_FILES), progress=progress)
    if not any(folder.glob("pytorch_model*.bin")):
        raise ModelFileError(f"{repository}: has neither model.safetensors nor pytorch_model.bin")
    return folder


def _fetch(repository: str, patterns: list[str], *, progress: bool) -> Path:
    """The folder of the repository, with at least the files that match patterns."""
    try:
        from huggingface_hub import constants, errors, snapshot_download
    except ImportError as error:
        raise missing_extra("hub,convert", f"Downloading {repository}") from error
    try:
        with _progress_bars(progress):
            return Path(snapshot_download(repository, allow_patterns=patterns))
    except errors.HFValidationError as error:
        raise ModelFileError(f"{repository}: not a name on the hub: {error}") from error
    except errors.GatedRepoError as error:
        page = f"{constants.ENDPOINT}/{repository}"
        raise ModelFileError(f"{repository}: ask for access at {page}, then run: hf auth login") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelFileError(
            f"{repository}: no such file or folder here, and no such repository at {constants.ENDPOINT} "
            "(if it is a private one, run: hf auth login)"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise ModelFileError(f"{repository}: {_why_not_reached(constants)}") from error
    except Exception as error:  # the errors of whatever HTTP library this huggingface_hub uses
        raise ModelFileError(
            f"{repository}: the download stopped: {error}\nRun the same command again: files that are complete stay"
        ) from error


def _why_not_reached(constants: ModuleType) -> str:
    if constants.HF_HUB_OFFLINE:
        return "is not in the local cache, and HF_HUB_OFFLINE is set; unset it to download"
    return (
        f"is not in the local cache, and {constants.ENDPOINT} does not answer; check the connection "
        "(HF_ENDPOINT names another server), or give -m a file or folder"
    )


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    """huggingface_hub's switch for progress bars is one for the process: put it back afterwards."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()
