"""Writes what TransformerLens 4 says about checkpoints of tests/vectors: patching.npz in the folder of each.

    pip install torch==2.13.0 transformer_lens
    python tools/make_transformer_lens_vectors.py

Every get_act_patch_* array, path patching of single edges, the decomposition of a logit difference and composition
scores, on two random texts of one length.  tests/python/patching and tests/python/analysis compare with them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

VECTORS = Path(__file__).parent.parent / "tests" / "vectors"
CHECKPOINTS = ("three_heads", "three_layers", "n_inner")
N_TOKENS = 6
ANSWER, AGAINST = 5, 11
NAMES = (
    "resid_pre", "resid_mid", "attn_out", "mlp_out", "attn_head_out_by_pos", "attn_head_q_by_pos", "attn_head_k_by_pos",
    "attn_head_v_by_pos", "attn_head_pattern_by_pos", "attn_head_pattern_dest_src_pos", "attn_head_out_all_pos",
    "attn_head_q_all_pos", "attn_head_k_all_pos", "attn_head_v_all_pos", "attn_head_pattern_all_pos",
)  # fmt: skip


def load(folder: Path) -> Any:
    """The checkpoint without any change to its weights; the tokenizer that TransformerLens wants knows no words."""
    words = models.WordLevel({f"t{i}": i for i in range(20)}, unk_token="t0")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="t0", add_bos_token=True)
    hf_model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    return TransformerBridge.boot_transformers(str(folder), hf_model=hf_model, tokenizer=tokenizer, device="cpu")


def difference(logits: torch.Tensor) -> torch.Tensor:
    return logits[0, -1, ANSWER] - logits[0, -1, AGAINST]


def patched(model: Any, clean: torch.Tensor, corrupted: torch.Tensor) -> dict[str, np.ndarray]:
    """Each sweep of TransformerLens by its name, and path_q, path_k, path_v [layer][head][layer][head]."""
    _, clean_cache = model.run_with_cache(clean)
    _, corrupted_cache = model.run_with_cache(corrupted)
    found = {}
    for name in NAMES:
        sweep = getattr(patching, f"get_act_patch_{name}")
        found[f"patch_{name}"] = sweep(model, corrupted, clean_cache, difference).detach().numpy()
    for component in ("q", "k", "v"):
        paths = patching.get_act_patch_direct_path_all_sources(
            model, corrupted, clean_cache, corrupted_cache, difference, component, verbose=False
        )
        found[f"path_{component}"] = paths.detach().numpy()
    return found


def decomposed(model: Any, clean: torch.Tensor) -> dict[str, np.ndarray]:
    """What TransformerLens says each part of the last position adds to the difference."""
    _, cache = model.run_with_cache(clean)
    attrs = functools.partial(
        cache.logit_attrs, tokens=ANSWER, incorrect_tokens=AGAINST, pos_slice=-1, batch_slice=0, has_batch_dim=False
    )
    residual, labels = cache.decompose_resid(pos_slice=-1, return_labels=True)
    heads = cache.stack_head_results(pos_slice=-1)
    neurons = cache.stack_neuron_results(layer=-1, pos_slice=-1)
    return {
        "parts": attrs(residual[:, 0]).detach().numpy(),
        "labels": np.array(labels),
        "heads": attrs(heads[:, 0]).detach().numpy(),
        "neurons": attrs(neurons[:, 0]).detach().numpy(),
    }


def main() -> None:
    torch.set_num_threads(1)  # matrices of a few rows
    for name in CHECKPOINTS:
        model, rng = load(VECTORS / name), np.random.default_rng(7)
        clean, corrupted = (torch.tensor(rng.integers(0, model.cfg.d_vocab, (1, N_TOKENS))) for _ in range(2))
        found = {"clean": clean[0].numpy(), "corrupted": corrupted[0].numpy(), "pair": np.array([ANSWER, AGAINST])}
        folded = load(VECTORS / name)
        folded.enable_compatibility_mode(fold_value_biases=False)  # the biases of a head's values stay its own
        found |= patched(model, clean, corrupted) | decomposed(folded, clean)
        for mode in "QKV":
            found[f"composition_{mode.lower()}"] = folded.all_composition_scores(mode).scores.detach().numpy()
        np.savez_compressed(VECTORS / name / "patching.npz", **found)
        print(name, {key: array.shape for key, array in found.items()})


if __name__ == "__main__":
    main()
