"""config.json of a Hugging Face GPT-2: what the engine can express of it; the rest is refused by its key's name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fastgpt_c.convert.gguf_file import Hyperparameters
from fastgpt_c.errors import ModelFileError
from fastgpt_c.io.checked_json import JSON, Implemented, check_values, not_implemented, read_json, show

FLAG = (True, False, None)

# Values that are implemented; None = absent, which means transformers' default.  reorder_and_upcast_attn orders the
# same sums differently, for half precision: either value gives the same logits in F32.
CONFIG_VALUES: Implemented = {
    "model_type": ("gpt2", None),
    "scale_attn_weights": FLAG,
    "scale_attn_by_inverse_layer_idx": FLAG,
    "reorder_and_upcast_attn": FLAG,
    "tie_word_embeddings": FLAG,
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}
MAX_EOS_TOKENS = 64  # as many as the engine reads
ARCHITECTURES = ("GPT2LMHeadModel", "GPT2Model")

# Several names of transformers are one function.
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

# transformers takes either name of these.
ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


@dataclass(frozen=True)
class Config:
    """hparams, whether the output matrix is the token embedding, and how attention scales its scores."""

    hparams: Hyperparameters
    tied: bool
    scale_by_width: bool
    scale_by_layer: bool

    def query_scale(self, layer: int) -> float:
        """What to multiply the queries of a layer by, so that dividing by sqrt(head width) gives the model's scores."""
        scale = 1.0 if self.scale_by_width else math.sqrt(self.hparams.n_embd // self.hparams.n_head)
        return scale / (layer + 1) if self.scale_by_layer else scale


def read_config(path: Path) -> Config:
    """Raises ModelFileError, which names the key that is wrong or not implemented."""
    if not path.exists():
        adapter = (path.parent / "adapter_config.json").exists()
        why = "it is an adapter: give the folder of its model, and this one with --lora" if adapter else ""
        raise ModelFileError(f"{path.parent}: has no config.json, so {why or 'it is not a Hugging Face checkpoint'}")
    config = _with_usual_names(read_json(path), path)
    check_values(path, config, CONFIG_VALUES)
    architectures = config.get("architectures") or []
    for architecture in architectures if isinstance(architectures, list) else [architectures]:
        if architecture not in ARCHITECTURES:
            raise not_implemented(path, "architectures", architecture, ARCHITECTURES)
    return Config(
        hparams=_hyperparameters(config, path),
        tied=config.get("tie_word_embeddings") is not False,
        scale_by_width=config.get("scale_attn_weights") is not False,
        scale_by_layer=config.get("scale_attn_by_inverse_layer_idx") is True,
    )


def read_hparams(path: Path, end_of_text: int | None) -> Config:
    """hparams.json of OpenAI's checkpoints."""
    return openai_config(read_json(path), path, end_of_text)


def openai_config(values: JSON, path: Path, end_of_text: int | None) -> Config:
    """The config of OpenAI's models, of which only five sizes differ; path is where values stand."""
    sizes = {name: _positive(values, name, 0, path) for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")}
    config: JSON = {"vocab_size": sizes.pop("n_vocab"), "n_positions": sizes.pop("n_ctx"), **sizes}
    config |= {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    return Config(hparams=_hyperparameters(config, path), tied=True, scale_by_width=True, scale_by_layer=False)


def _with_usual_names(config: JSON, path: Path) -> JSON:
    for alias, name in ALIASES.items():
        if alias in config and config.setdefault(name, config[alias]) != config[alias]:
            raise ModelFileError(f"{path}: {alias} = {show(config[alias])}, but {name} = {show(config[name])}")
    return config


def _hyperparameters(config: JSON, path: Path) -> Hyperparameters:
    n_vocab = _positive(config, "vocab_size", 50257, path)
    n_embd = _positive(config, "n_embd", 768, path)
    n_head = _positive(config, "n_head", 12, path)
    if n_embd % n_head:
        raise ModelFileError(f"{path}: n_embd = {n_embd} is not a multiple of n_head = {n_head}")
    epsilon = config.get("layer_norm_epsilon", 1e-5)
    if not isinstance(epsilon, float | int) or not 0 < epsilon < 1:
        raise ModelFileError(f"{path}: layer_norm_epsilon = {show(epsilon)} is not between 0 and 1")
    return Hyperparameters(
        n_vocab=n_vocab,
        n_ctx=_positive(config, "n_positions", 1024, path),
        n_embd=n_embd,
        n_head=n_head,
        n_layer=_positive(config, "n_layer", 12, path),
        n_ff=4 * n_embd if config.get("n_inner") is None else _positive(config, "n_inner", 0, path),
        layer_norm_epsilon=float(epsilon),
        activation=_activation(config, path),
        bos_token=next(iter(token_ids(config, "bos_token_id", n_vocab, path)), None),
        eos_tokens=token_ids(config, "eos_token_id", n_vocab, path),
    )


def _activation(config: JSON, path: Path) -> str:
    key = "activation_function"
    name = config.get(key, "gelu_new")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise not_implemented(path, key, name, ACTIVATIONS)
    return ACTIVATIONS[name]


def _positive(config: JSON, key: str, default: int, path: Path) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise ModelFileError(f"{path}: {key} = {show(value)} is not a positive 32-bit integer")
    return value


def token_ids(config: JSON, key: str, n_vocab: int, path: Path) -> tuple[int, ...]:
    """One token or a list of them, each once.  A token outside the vocabulary can never occur: transformers' default in
    a small model, for example."""
    value = config.get(key, 50256)
    tokens = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in tokens):
        raise not_implemented(path, key, value, ("one integer", "a list of integers"))
    possible = tuple(dict.fromkeys(token for token in tokens if 0 <= token < n_vocab))
    if len(possible) > MAX_EOS_TOKENS:
        raise ModelFileError(
            f"{path}: {key} has {len(possible)} tokens; more than {MAX_EOS_TOKENS} are not implemented"
        )
    return possible
