"""Compares a model file with the checkpoint that it was made of, run by transformers.  Needs the extra [verify]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.log_probs import log_softmax
from fastgpt_c.engine.model import LoadedModel
from fastgpt_c.errors import ModelFileError, missing_extra

N_RANDOM = 6
MAX_TOKENS = 192  # of a prompt: enough for every path of a step
N_GREEDY = 20
PROMPTS = (
    "Once upon a time there lived an old miller, who had three sons.",
    "def add(a: int, b: int) -> int:\n    return a + b\n",
    "In 1969 the first message between two computers was sent; it broke off after two letters.",
)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Report:
    """The extent of a comparison, and the differences found.

    n_positions   rows of logits [n_vocab] that were compared
    difference    the largest of any logit
    kl_mean, kl_largest   Kullback-Leibler divergence of a position's distributions, transformers' first; nats
    parted        (prompt, new token) where greedy output first differs, None where it never does
    other_tokens  a text that transformers cuts into other tokens, None when there is none
    """

    n_prompts: int
    n_positions: int
    difference: float
    kl_mean: float
    kl_largest: float
    parted: tuple[int, int] | None
    other_tokens: str | None


def compare(model: LoadedModel, folder: Path) -> Report:
    """Runs model and the checkpoint in folder over random and real prompts.

    Raises ModelFileError where transformers cannot load the folder, or its sizes are others; MissingExtraError.
    """
    reference = _load_reference(folder, model)
    other_tokens, prompts = _prompts(model, folder)
    differences, divergences, parted = [], [], None
    with model.session() as session:
        for i, tokens in enumerate(prompts):
            expected = _reference_logits(reference, tokens)
            session.truncate(0)
            ours = session.prefill(tokens, all_logits=True)
            differences.append(float(np.abs(ours - expected).max()))
            divergences += [_divergence(*rows) for rows in zip(expected, ours, strict=True)]
            at = _first_other_token(reference, model, tokens)
            parted = parted or (None if at is None else (i, at))
    return Report(
        n_prompts=len(prompts),
        n_positions=len(divergences),
        difference=max(differences),
        kl_mean=float(np.mean(divergences)),
        kl_largest=max(divergences),
        parted=parted,
        other_tokens=other_tokens,
    )


def _load_reference(folder: Path, model: LoadedModel) -> Any:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise missing_extra("verify", "Comparing with transformers") from error
    transformers.utils.logging.disable_progress_bar()
    if not (folder / "config.json").is_file():
        raise ModelFileError(f"{folder}: has no config.json, so it is not a checkpoint that transformers loads")
    try:
        reference = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # of any of the libraries below transformers
        raise ModelFileError(f"{folder}: transformers cannot load it: {error}") from error
    sizes = (reference.config.vocab_size, reference.config.n_positions, reference.config.n_layer)
    if sizes != (model.n_vocab, model.n_ctx, model.n_layer):
        raise ModelFileError(
            f"{folder}: has n_vocab, n_ctx and n_layer {sizes}, but {model.path} has "
            f"{(model.n_vocab, model.n_ctx, model.n_layer)}: another model"
        )
    return reference.eval()


def _prompts(model: LoadedModel, folder: Path) -> tuple[str | None, list[list[int]]]:
    """A text on whose tokens the two disagree, and the prompts: random tokens, and texts where there is a tokenizer."""
    rng = np.random.default_rng(0)
    longest = min(MAX_TOKENS, model.n_ctx)
    prompts = [rng.integers(0, model.n_vocab, n).tolist() for n in rng.integers(1, longest + 1, N_RANDOM)]
    if not model.has_tokenizer:
        return None, prompts
    other = next((text for text, ids in _tokens_of_transformers(folder) if ids != model.encode(text)), None)
    return other, prompts + [tokens[:longest] for text in PROMPTS if (tokens := model.encode(text))]


def _tokens_of_transformers(folder: Path) -> Iterator[tuple[str, list[int]]]:
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of any of the libraries below transformers
        raise ModelFileError(f"{folder}: transformers cannot load its tokenizer: {error}") from error
    for text in PROMPTS:
        yield text, tokenizer(text, add_special_tokens=False)["input_ids"]


def _reference_logits(reference: Any, tokens: list[int]) -> Floats:
    """[n_tokens][n_vocab]"""
    import torch

    with torch.no_grad():
        logits: Floats = reference(torch.tensor([tokens])).logits[0].numpy()
    return logits


def _divergence(expected: Floats, ours: Floats) -> float:
    """KL(expected || ours) of the softmax of two rows of logits, in nats."""
    log_p, log_q = log_softmax(expected), log_softmax(ours)
    return float((np.exp(log_p) * (log_p - log_q)).sum())


def _first_other_token(reference: Any, model: LoadedModel, tokens: list[int]) -> int | None:
    """The index of the first greedy token after the first half of tokens that differs, of N_GREEDY or as many as fit
    into n_ctx; None = all agree."""
    prompt = tokens[: (len(tokens) + 1) // 2]
    expected = _greedy_tokens(reference, prompt, min(N_GREEDY, model.n_ctx - len(prompt)))
    with model.session() as session:
        logits = session.prefill(prompt)
        for i, token in enumerate(expected):
            if int(logits.argmax()) != token:
                return i
            logits = session.decode(token)
    return None


def _greedy_tokens(reference: Any, prompt: list[int], n_new: int) -> list[int]:
    """Greedy tokens [n_new] of transformers, which continues past an end-of-text token."""
    import torch

    ids = torch.tensor([prompt])
    text = reference.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=n_new,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    tokens: list[int] = text[0, len(prompt) :].tolist()
    return tokens
