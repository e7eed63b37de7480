"""Models that recite a text or talk nonsense, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import CONFIG, MERGES, random_tensors, source_shapes, vocabulary, write_checkpoint

import fastgpt_c
from fastgpt_c.convert import convert
from fastgpt_c.generation.prompt import Prompt

N_VOCAB, EOS = CONFIG["vocab_size"], CONFIG["eos_token_id"]
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def write_scripted_model(path: Path, script: str, *, n_ctx: int = 64, n_layer: int = 1, n_embd: int = 272) -> Path:
    """A GGUF file of a model that recites: after each token comes the one that follows it in script, whatever else
    went before, and after all others script's first one.  A token may stand in script only once.

    The layers add nothing, each token has an embedding of its own, and the head is the table of followers.
    """
    config = CONFIG | {"n_positions": n_ctx, "n_layer": n_layer, "n_embd": n_embd, "n_head": 4}
    tensors: dict[str, np.ndarray] = {
        name: np.zeros(shape, np.float32) for name, shape in source_shapes(config).items()
    }
    tensors["wte.weight"] += np.eye(N_VOCAB, n_embd, dtype=np.float32)
    tensors["ln_f.weight"] += 1
    followers = dict.fromkeys(range(N_VOCAB), script_tokens(script)[0])
    followers |= dict(zip(script_tokens(script), script_tokens(script)[1:], strict=False))
    tensors["lm_head.weight"] = np.zeros((N_VOCAB, n_embd), np.float32)
    for token, follower in followers.items():
        tensors["lm_head.weight"][follower, token] = 40  # any sampling parameters draw this one
    folder = write_checkpoint(path.with_suffix(""), config | {"tie_word_embeddings": False}, tensors)
    convert(folder, path)
    return path


def script_tokens(script: str) -> list[int]:
    tokens = fastgpt_c.Tokenizer(list(vocabulary()), MERGES, [1] * EOS + [3], EOS).encode(script)
    assert len(set(tokens)) == len(tokens), "a token stands in the script twice"
    return tokens


def write_random_model(path: Path, *, n_ctx: int) -> Path:
    """A GGUF file of a model with random weights, whose greedy text is varied."""
    config = CONFIG | {"n_positions": n_ctx}
    tensors = random_tensors(config)
    for name in tensors:
        if ".c_" in name or name.startswith("wpe"):
            tensors[name] *= 5  # else every token would just repeat itself
        elif "ln_" in name and name.endswith("weight"):
            tensors[name] += 1
    convert(write_checkpoint(path.with_suffix(""), config, tensors), path)
    return path


def logits_after(model: fastgpt_c.Model, tokens: Sequence[int]) -> np.ndarray:
    """[n_vocab], from scratch."""
    with model.session() as session:
        return session.prefill(tokens)


def greedy(model: fastgpt_c.Model, prompt: Prompt, n: int = 10, **options: Any) -> list[int]:
    return model.generate(prompt, max_new_tokens=n, temperature=0, **options).tokens


def ends_of(case: Mapping[str, Any]) -> tuple[int, ...]:
    """The end tokens of a golden case of transformers'."""
    return () if case["eos_token_id"] is None else (case["eos_token_id"],)
