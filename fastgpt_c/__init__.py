"""GPT-2-family language models on a CPU.

    import fastgpt_c
    with fastgpt_c.load() as model:                    # the bundled demo model; or a file, folder, hub id
        print(model.generate("Once upon a time", max_new_tokens=50).text)

Everything public is importable from here and is imported when first used.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing's own would cost more time than all else here
if TYPE_CHECKING:
    from typing import Any

    from fastgpt_c.batching.requests import Batch, Request
    from fastgpt_c.engine.control_vector import ControlVector, steer
    from fastgpt_c.engine.edits import Edit
    from fastgpt_c.engine.hooks import HookPoint
    from fastgpt_c.engine.inspection import inspect
    from fastgpt_c.engine.log_probs import TokenLogProb
    from fastgpt_c.engine.reader import Reader
    from fastgpt_c.engine.sampler import Sampler, Sampling
    from fastgpt_c.engine.session import Session
    from fastgpt_c.engine.sites import SITES, Site
    from fastgpt_c.engine.step import Span, step
    from fastgpt_c.errors import (
        BatchError,
        Cancelled,
        ContextFullError,
        FastGPTError,
        MissingExtraError,
        ModelFileError,
        UsageError,
    )
    from fastgpt_c.generation.beam_search import Beam, Beams
    from fastgpt_c.generation.completion import Completion
    from fastgpt_c.generation.options import LogitsProcessor, Options
    from fastgpt_c.generation.text_generation import TextGeneration
    from fastgpt_c.model import Model, load
    from fastgpt_c.profiling.profile import Profile
    from fastgpt_c.scoring.token_scores import TokenScores
    from fastgpt_c.tokenizers.bpe import Tokenizer

    __version__: str

__all__ = [
    "SITES",
    "Batch",
    "BatchError",
    "Beam",
    "Beams",
    "Cancelled",
    "Completion",
    "ContextFullError",
    "ControlVector",
    "Edit",
    "FastGPTError",
    "HookPoint",
    "LogitsProcessor",
    "MissingExtraError",
    "Model",
    "ModelFileError",
    "Options",
    "Profile",
    "Reader",
    "Request",
    "Sampler",
    "Sampling",
    "Session",
    "Site",
    "Span",
    "TextGeneration",
    "TokenLogProb",
    "TokenScores",
    "Tokenizer",
    "UsageError",
    "__version__",
    "inspect",
    "load",
    "steer",
    "step",
]

_HOMES = {
    "batching.requests": ("Batch", "Request"),
    "engine.control_vector": ("ControlVector", "steer"),
    "engine.edits": ("Edit",),
    "engine.hooks": ("HookPoint",),
    "engine.inspection": ("inspect",),
    "engine.log_probs": ("TokenLogProb",),
    "engine.reader": ("Reader",),
    "engine.sampler": ("Sampler", "Sampling"),
    "engine.session": ("Session",),
    "engine.sites": ("SITES", "Site"),
    "engine.step": ("Span", "step"),
    "errors": (
        "BatchError",
        "Cancelled",
        "ContextFullError",
        "FastGPTError",
        "MissingExtraError",
        "ModelFileError",
        "UsageError",
    ),
    "generation.beam_search": ("Beam", "Beams"),
    "generation.completion": ("Completion",),
    "generation.options": ("LogitsProcessor", "Options"),
    "generation.text_generation": ("TextGeneration",),
    "model": ("Model", "load"),
    "profiling.profile": ("Profile",),
    "scoring.token_scores": ("TokenScores",),
    "tokenizers.bpe": ("Tokenizer",),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fastgpt-c")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"fastgpt_c.{home}"), name)
    raise AttributeError(f"module 'fastgpt_c' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
