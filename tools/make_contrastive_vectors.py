"""Makes tests/vectors/contrastive.json: what contrastive search of Hugging Face transformers says.

    pip install torch 'transformers<4.50'
    python tools/make_contrastive_vectors.py

Apart from make_vectors.py, since transformers 5 has no contrastive search.  Each case has fields of generate
(adjustments are penalties, bans and bias) and the new tokens, with the end-of-text token if there is one.  A case
stays where float32 and float64 find the same tokens.  Running it again gives the same bytes.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from make_vectors import CHECKPOINTS, VECTORS
from transformers import GPT2LMHeadModel

ALPHAS = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
TOP_KS = (2, 3, 4, 8, 40)
ADJUSTMENTS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"repetition_penalty": 0.6},
    {"repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 6},
    {"min_new_tokens": 4, "no_repeat_ngram_size": 1, "repetition_penalty": 0.8},
)
N_CASES = 40  # of each checkpoint
N_NEW = 30


def continuation(model: GPT2LMHeadModel, prompt: list[int], case: dict[str, Any]) -> list[int] | None:
    """The new tokens; None where a probability of 0 was among the top_k, be it of a banned token: which of them comes
    first is left open there, and not the same here."""
    options = case | case["adjustments"]
    bias = options.pop("logit_bias", None)
    del options["adjustments"]
    found = model.generate(
        torch.tensor([prompt]), do_sample=False, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        **options,
        sequence_bias=bias and {(int(token),): value for token, value in bias.items()},
    )  # fmt: skip
    n_possible = (torch.stack(found.scores).softmax(dim=-1) > 0).sum(dim=-1)
    return found.sequences[0, len(prompt) :].tolist() if n_possible.min() >= case["top_k"] else None


def cases_of(model: GPT2LMHeadModel, prompt: list[int]) -> list[dict[str, Any]]:
    """Mixtures, with an end-of-text token that comes soon, late or never, and half of them with a bias."""
    rng, n_new = np.random.default_rng(0), min(N_NEW, model.config.n_positions - len(prompt))
    free = {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": n_new, "eos_token_id": None, "adjustments": {}}
    said = continuation(model, prompt, free)
    assert said is not None
    biases: tuple[dict[str, Any], ...] = ({}, {"logit_bias": {str(said[0]): -2.5, str(said[-1]): 1.5}})
    cases = []
    for _ in range(N_CASES):
        choice = {
            "penalty_alpha": ALPHAS[rng.integers(len(ALPHAS))],
            "top_k": TOP_KS[rng.integers(len(TOP_KS))],
            "eos_token_id": (None, said[1], said[n_new // 2])[rng.integers(3)],
            "adjustments": ADJUSTMENTS[rng.integers(len(ADJUSTMENTS))] | biases[rng.integers(2)],
        }
        cases.append(free | choice)
    return cases


def checkpoint(name: str) -> GPT2LMHeadModel:
    """One of tests/vectors.  The attention is the plain one: the other one of old versions scales in one way only."""
    return GPT2LMHeadModel.from_pretrained(VECTORS / name, attn_implementation="eager").eval()


def main() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    kept = []
    for name in CHECKPOINTS:
        model, exact = checkpoint(name), checkpoint(name).double()
        golden = np.load(VECTORS / name / "golden.npz")
        logits = model(torch.from_numpy(golden["tokens"])[None].long()).logits[0]
        np.testing.assert_allclose(logits, golden["logits"], atol=1e-4, err_msg="the versions disagree")
        prompt = golden["tokens"][:3].tolist()
        for case in cases_of(model, prompt):
            tokens = continuation(model, prompt, case)
            if tokens is not None and tokens == continuation(exact, prompt, case):
                kept.append({"checkpoint": name, "prompt": prompt, **case, "tokens": tokens})
    (VECTORS / "contrastive.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"contrastive: {len(kept)} cases")


if __name__ == "__main__":
    main()
