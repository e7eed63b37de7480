"""Writes what TransformerLens 4 has at every site of checkpoints of tests/vectors: sites.npz in the folder of each.

    pip install torch==2.13.0 transformer_lens
    python tools/make_site_vectors.py

Keys are TransformerLens' names of hook points; tokens are those of the run.  tests/python/engine compares with them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

VECTORS = Path(__file__).parent.parent / "tests" / "vectors"
CHECKPOINTS = ("three_heads", "three_layers", "n_inner")
N_TOKENS = 7

# What fastgpt_c.SITES names, without the layers.
POINTS = re.compile(
    r"hook_(embed|pos_embed)|ln_final\.hook_out|blocks\.\d+\.(hook_(resid_pre|attn_out|resid_mid|mlp_out|resid_post)"
    r"|ln[12]\.hook_out|attn\.hook_(q|k|v|attn_scores|pattern|z)|mlp\.hook_(pre|post))"
)


def values_at_points(folder: Path, tokens: torch.Tensor) -> dict[str, Any]:
    """Each point of a run of tokens [1][n], without the dimension of the batch."""
    words = models.WordLevel({f"t{i}": i for i in range(20)}, unk_token="t0")  # TransformerLens insists on a tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="t0", add_bos_token=True)
    hf_model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    model = TransformerBridge.boot_transformers(str(folder), hf_model=hf_model, tokenizer=tokenizer, device="cpu")
    _, cache = model.run_with_cache(tokens)
    return {name: value[0].detach().numpy() for name, value in cache.items() if POINTS.fullmatch(name)}


def main() -> None:
    """Writes all of them."""
    torch.set_num_threads(1)
    for name in CHECKPOINTS:
        tokens = torch.randint(20, (1, N_TOKENS), generator=torch.Generator().manual_seed(len(name)))
        points = values_at_points(VECTORS / name, tokens)
        np.savez_compressed(VECTORS / name / "sites.npz", tokens=tokens[0].numpy(), **points)
        print(f"{name}: {len(points)} points")


if __name__ == "__main__":
    main()
