"""Makes tests/vectors/perplexity.json: transformers' answers by its guide "Perplexity of fixed-length models".

    python tools/make_perplexity_vectors.py

For each checkpoint of tests/vectors a random text of N_TOKENS tokens, and what transformers makes of it by some
strides; for the demo model its own tokens of tests/data/fairy_tales_heldout.txt.  Beside it "mean", where each
predicted token counts once.  Needs torch, transformers, gguf and fastgpt-c.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import fastgpt_c

TESTS = Path(__file__).resolve().parent.parent / "tests"
N_TOKENS = 150
DEMO_STRIDES = (512, 200)


def window_losses(model: GPT2LMHeadModel, tokens: list[int], stride: int) -> Iterator[tuple[float, int, int]]:
    """For each window: transformers' loss, how many labels it is the mean of, and how many the guide takes it for."""
    n_ctx, reached = model.config.n_positions, 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + n_ctx, len(tokens))
        window = torch.tensor([tokens[begin:end]])
        labels = window.clone()
        labels[:, : max(reached - begin, 0)] = -100
        n_labels = int((labels[:, 1:] != -100).sum())
        if n_labels:
            with torch.no_grad():
                yield model(window, labels=labels).loss.item(), n_labels, end - reached - 1
        reached = end
        if end == len(tokens):
            return


def perplexities(model: GPT2LMHeadModel, tokens: list[int], stride: int) -> dict[str, float | None]:
    """As the guide weighs the windows, and with each label once.  None where the guide divides by zero."""
    losses, n_labels, n_guide = np.array(list(window_losses(model, tokens, stride))).T
    return {
        "guide": float(np.exp(losses @ n_guide / n_guide.sum())) if n_guide.sum() else None,
        "mean": float(np.exp(losses @ n_labels / n_labels.sum())),
    }


def demo() -> tuple[GPT2LMHeadModel, list[int]]:
    """The demo model as transformers reads it, and the tokens of its held-out text."""
    with fastgpt_c.load() as ours:
        tokens = ours.encode((TESTS / "data" / "fairy_tales_heldout.txt").read_text(encoding="utf-8"))
        config = GPT2Config(
            n_layer=ours.n_layer, n_head=ours.n_head, n_embd=ours.n_embd, n_positions=ours.n_ctx,
            vocab_size=ours.n_vocab, bos_token_id=ours.eos_token, eos_token_id=ours.eos_token,
        )  # fmt: skip
        file = ours.path
    model = GPT2LMHeadModel.from_pretrained(file.parent, gguf_file=file.name, config=config, dtype=torch.float32)
    return model.eval(), tokens


def case(model: GPT2LMHeadModel, tokens: list[int], strides: tuple[int, ...]) -> dict[str, Any]:
    return {str(stride): perplexities(model, tokens, stride) for stride in strides}


def main() -> None:
    """Writes everything."""
    torch.set_num_threads(2)
    cases: dict[str, Any] = {}
    for config in sorted((TESTS / "vectors").glob("*/config.json")):
        model = GPT2LMHeadModel.from_pretrained(config.parent).eval()
        n_ctx, n_vocab = model.config.n_positions, model.config.vocab_size
        tokens = np.random.default_rng(n_ctx).integers(0, n_vocab, N_TOKENS).tolist()
        strides = tuple(sorted({1, 2, n_ctx // 2, n_ctx - 1, n_ctx}))
        cases[config.parent.name] = {"tokens": tokens, "perplexities": case(model, tokens, strides)}
    cases["demo"] = {"perplexities": case(*demo(), DEMO_STRIDES)}
    text = json.dumps(cases, indent=1)
    (TESTS / "vectors" / "perplexity.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
