"""How a model's authors would have its text generated: what convert found in generation_config.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fastgpt_c.engine.defaults import MODEL_DEFAULTS_KEY
from fastgpt_c.errors import ModelFileError, UsageError
from fastgpt_c.generation.options import Options
from fastgpt_c.io.checked_json import some_of

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

# What transformers' generate takes for a key that the file does not name, where it draws.
DRAWING_DEFAULTS: dict[str, Any] = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}
OTHERS = {"repetition_penalty", "max_new_tokens"}


def model_defaults(model: LoadedModel) -> dict[str, Any]:
    """Fields of Options with which text is generated as transformers' generate does by itself: greedily unless the file
    says do_sample.  Empty where the checkpoint said nothing.  Raises ModelFileError for what convert did not write."""
    text = model.metadata(MODEL_DEFAULTS_KEY)
    if text is None:
        return {}
    try:
        named = json.loads(text)
        draws = named.pop("do_sample", False)
        drawing = {name: named.pop(name, default) for name, default in DRAWING_DEFAULTS.items()}
        if unknown := set(named) - OTHERS:
            raise ValueError(f"unknown are {some_of(unknown)}")
        fields = named | (drawing if draws else {"temperature": 0.0})
        Options(**fields)
    except (ValueError, AttributeError, TypeError, RecursionError, UsageError) as error:
        raise ModelFileError(f"{model.path}: {MODEL_DEFAULTS_KEY} cannot be used: {error}") from error
    return dict(fields)
