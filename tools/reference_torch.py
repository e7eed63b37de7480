"""Runs Hugging Face transformers and fastgpt_c on the same checkpoint and prompt: are the tokens the same?

    python tools/reference_torch.py CHECKPOINT [PROMPT] [-n 20]

CHECKPOINT is a local Hugging Face folder with a tokenizer, or the name of a GPT-2 on the hub such as gpt2.
Both continue the prompt greedily.  Exits with 0 if prompt tokens and new tokens agree, else with 1.
Needs torch, transformers and fastgpt-c[convert,hub].
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

import fastgpt_c

PROMPT = "Alan Turing theorized that computers would one day become very powerful, but even he could not imagine"


def run_torch(checkpoint: str, prompt: str, n_new: int) -> tuple[list[int], list[int]]:
    """What transformers says: tokens of the prompt, and the new ones."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokens = tokenizer(prompt, return_tensors="pt")["input_ids"]
    text = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=n_new,
        do_sample=False,
        pad_token_id=model.config.eos_token_id,
    )
    return tokens[0].tolist(), text[0, tokens.shape[1] :].tolist()


def run_fastgpt(checkpoint: str, prompt: str, n_new: int) -> tuple[list[int], list[int]]:
    """What fastgpt_c says: tokens of the prompt, and the new ones."""
    with fastgpt_c.load(checkpoint) as model:
        return model.encode(prompt), list(model.generate(prompt, max_new_tokens=n_new, temperature=0.0).tokens)


def without_end(tokens: list[int], eos_token: int | None) -> list[int]:
    """Both stop at the end-of-text token; whether it is part of the result is a matter of taste."""
    return tokens[:-1] if tokens and tokens[-1] == eos_token else tokens


def main() -> int:
    """Prints both runs and the verdict; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("prompt", nargs="?", default=PROMPT)
    parser.add_argument("-n", type=int, default=20, help="new tokens (default 20)")
    args = parser.parse_args()

    with fastgpt_c.load(args.checkpoint) as model:
        eos_token = model.eos_token
    results = []
    for name, run in (("transformers", run_torch), ("fastgpt_c", run_fastgpt)):
        begin = time.perf_counter()
        prompt_tokens, new_tokens = run(args.checkpoint, args.prompt, args.n)
        results.append((prompt_tokens, without_end(new_tokens, eos_token)))
        print(f"{name}, {time.perf_counter() - begin:.2f} s with loading")
        print("  prompt", *prompt_tokens)
        print("  new   ", *new_tokens)
    same = results[0] == results[1]
    print("The tokens are the same." if same else "The tokens DIFFER.")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
