"""Read a GPT-2 checkpoint in the folder layout of Hugging Face transformers.

config.json, the weights (weights.py), the tokenizer and the model card.  What the engine does not implement is
refused by name.  Everything here may come from a stranger: it is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fastgpt_c.convert.config import Config, read_config
from fastgpt_c.convert.generation_config import read_generation_config
from fastgpt_c.convert.gguf_file import (
    Array,
    Contents,
    Shape,
    StoredTokenizer,
    Vocabulary,
    add_keys,
    architecture_of,
    tensor_shapes,
)
from fastgpt_c.convert.huggingface_tokenizer import read_tokenizer
from fastgpt_c.convert.lora import CONFIG as ADAPTER_CONFIG
from fastgpt_c.convert.lora import Adapter
from fastgpt_c.convert.model_card import name_of, read_card
from fastgpt_c.convert.weights import Weights, weights_of
from fastgpt_c.engine.defaults import MODEL_DEFAULTS_KEY
from fastgpt_c.errors import ModelFileError
from fastgpt_c.io.checked_json import read_json_if_present, some_of

SOURCE_NAMES = {
    "token_embd": "wte",
    "position_embd": "wpe",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
    "output_norm": "ln_f",
    "output": "lm_head",
}

HEAD = "lm_head.weight"
EMBEDDING = "wte.weight"

# What wrappers put before the name of every tensor, and who does so.
WRAPPER_PREFIXES = {
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel or DistributedDataParallel",
    "base_model.model.": "PEFT",
}


def read(folder: Path, lora: Path | None = None) -> Contents:
    """The checkpoint in folder, with the adapter in lora merged into it; everything is checked but the tensors' values,
    which are read as data is drawn."""
    config = read_config(folder / "config.json")
    generation = read_generation_config(folder, config.hparams.n_vocab)
    if generation.eos_tokens is not None:  # it wins in transformers, too
        config = replace(config, hparams=replace(config.hparams, eos_tokens=generation.eos_tokens))
    weights = weights_of(folder)
    shapes = checked_shapes(config, weights)
    adapter = _checked_adapter(lora, shapes)
    tokenizer = read_tokenizer(folder, config.hparams.n_vocab)
    notes = list(tokenizer.notes)
    if lora is None and (folder / ADAPTER_CONFIG).exists():
        notes.append(f"{folder}: has {ADAPTER_CONFIG}, an adapter that is not merged; --lora FOLDER merges one")
    texts = {"tokenizer.chat_template": _chat_template(folder), MODEL_DEFAULTS_KEY: generation.defaults}
    contents = contents_of(config, weights, shapes, tokenizer.vocabulary, texts, adapter)
    return replace(contents, notes=notes)


def contents_of(
    config: Config,
    weights: Weights,
    shapes: dict[str, Shape],
    vocabulary: Vocabulary | StoredTokenizer | None,
    more_texts: Mapping[str, str | None] | None = None,
    adapter: Adapter | None = None,
) -> Contents:
    """weights under transformers' names; shapes is what checked_shapes made of them; more_texts by key, None = none."""
    name, texts = name_of(weights.folder), {f"general.{key}": text for key, text in read_card(weights.folder).items()}
    for key, text in (more_texts or {}).items():
        if text is not None:
            texts[key] = text.encode("utf-8", "replace").decode()
    return Contents(
        name=name,
        architecture=architecture_of(config.hparams),
        add_keys=partial(add_keys, name=name, texts=texts, hparams=config.hparams, vocabulary=vocabulary),
        shapes=shapes,
        data=_tensors(config, weights, shapes, adapter),
    )


def _chat_template(folder: Path) -> str | None:
    """In a file of its own, as transformers writes it today, or in tokenizer_config.json; of several the default."""
    path = folder / "chat_template.jinja"
    try:
        if path.exists():
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read: {error}") from error
    template = read_json_if_present(folder / "tokenizer_config.json").get("chat_template")
    named = template if isinstance(template, list) else [{"name": "default", "template": template}]
    texts = (entry.get("template") for entry in named if isinstance(entry, dict) and entry.get("name") == "default")
    return next((text for text in texts if isinstance(text, str)), None)


def stored_type(folder: Path) -> str:
    """The type of all matrices of the checkpoint; "f32" if they differ, or if conversion scales some of them."""
    config, weights = read_config(folder / "config.json"), weights_of(folder)
    types = {weights.type(name) for name in weights if len(weights.shape(name)) == 2}
    return types.pop() if len(types) == 1 and not _is_scaled(config) else "f32"


def _is_scaled(config: Config) -> bool:
    return not config.scale_by_width or config.scale_by_layer


# ---- What config.json implies, and what the weights are ----------------------------------------------------


def checked_shapes(config: Config, weights: Weights) -> dict[str, Shape]:
    """The tensors of the GGUF file, each of which the checkpoint has in the shape that config.json implies."""
    if config.tied and HEAD in weights and EMBEDDING not in weights:
        weights.rename(HEAD, EMBEDDING)  # safetensors' save_model() keeps one of two names of the same memory
    shapes = _present(tensor_shapes(config.hparams, tied=config.tied and HEAD not in weights), weights)
    for name, shape in shapes.items():
        _check_tensor(source_name(name), shape[::-1] if is_transposed(name, shape) else shape, weights)
    known = {source_name(name) for name in shapes}
    if unexpected := [name for name in weights if name not in known]:
        raise ModelFileError(
            f"{weights.path(unexpected[0])}: has {some_of(unexpected)}, which is no part of the model in config.json"
        )
    if HEAD in weights and weights.equal(HEAD, EMBEDDING):
        del shapes["output.weight"]  # a copy
    elif HEAD in weights and config.tied:
        raise ModelFileError(
            f"{weights.path(HEAD)}: {HEAD} differs from {EMBEDDING}, though config.json ties them; "
            "set tie_word_embeddings to false there to use both"
        )
    return shapes


def _present(implied: Iterator[tuple[str, Shape]], weights: Weights) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    missing: list[str] = []
    for name, shape in implied:
        if source_name(name) in weights:
            shapes[name] = shape
        else:
            missing.append(source_name(name))
        if len(missing) > 100:  # n_layer is only the file's word: do not count to it
            break
    if missing:
        _check_wrapper(weights)
        raise ModelFileError(f"{weights.folder}: the weights lack {some_of(missing)}, which config.json implies")
    return shapes


def _check_wrapper(weights: Weights) -> None:
    """Names that a wrapper around the model has changed are told as such."""
    names = list(weights)
    for prefix, wrapper in WRAPPER_PREFIXES.items():
        if names and all(name.startswith(prefix) for name in names):
            state_dict = f'{{k.removeprefix("{prefix}"): v for k, v in model.state_dict().items()}}'
            raise ModelFileError(
                f"{weights.path(names[0])}: all names begin with {prefix!r}, as {wrapper} has it; save the model "
                f"inside:  model.save_pretrained(FOLDER, state_dict={state_dict})"
            )


def _checked_adapter(folder: Path | None, shapes: dict[str, Shape]) -> Adapter | None:
    if folder is None:
        return None
    adapter = Adapter(folder)
    adapter.check({_layer(name): shape for name, shape in shapes.items() if is_transposed(name, shape)})
    return adapter


def _layer(name: str) -> str:
    """blk.3.attn_qkv.weight -> h.3.attn.c_attn"""
    return source_name(name).rpartition(".")[0]


def _check_tensor(name: str, expected: Shape, weights: Weights) -> None:
    if weights.shape(name) != expected:
        raise ModelFileError(
            f"{weights.path(name)}: {name} has shape {list(weights.shape(name))}, "
            f"but config.json implies {list(expected)}"
        )
    weights.type(name)


def _tensors(
    config: Config, weights: Weights, shapes: dict[str, Shape], adapter: Adapter | None
) -> Iterator[tuple[str, Array]]:
    for name, shape in shapes.items():
        array = weights.read(source_name(name))
        if is_transposed(name, shape):
            array = np.ascontiguousarray(array.T)
            array = adapter.merged(_layer(name), array) if adapter else array
        yield name, _with_scaled_queries(config, name, array) if ".attn_qkv." in name else array


def _with_scaled_queries(config: Config, name: str, array: Array) -> Array:
    """array [3 n_embd ...]; its first third makes the queries."""
    scale = config.query_scale(int(name.split(".")[1]))
    if scale == 1:
        return array
    scaled = array.astype(np.float32)
    scaled[: config.hparams.n_embd] *= np.float32(scale)
    return scaled


def is_transposed(name: str, shape: Shape) -> bool:
    """Linear layers of a block are of class Conv1D, which stores [n_in][n_out]."""
    return name.startswith("blk.") and len(shape) == 2


def source_name(name: str) -> str:
    """blk.3.attn_qkv.weight -> h.3.attn.c_attn.weight"""
    *block, part, kind = name.split(".")
    return ".".join([*(["h", block[1]] if block else []), SOURCE_NAMES[part], kind])
