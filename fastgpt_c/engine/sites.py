"""The places inside a model at which the values of a step are shown and changed, by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from fastgpt_c.errors import UsageError
from fastgpt_c.native.arguments import shown

Kind = Literal["embd", "heads", "ff", "keys"]


@dataclass(frozen=True)
class Site:
    """A place of a model.

    name              as Session.inspect and Edit take it
    number            its fastgpt_site
    kind              what it has for a token: "embd" [n_embd], "heads" [n_head][n_embd / n_head], "ff" [n_ff], or
                      "keys", a number for each head and position
    has_layers        whether each layer has one
    transformer_lens  TransformerLens' name of the hook point; {layer} stands for the layer
    transformers      the module of transformers' GPT2LMHeadModel of which it is the output; "" where it is a part of
                      one, or of none
    """

    name: str
    number: int
    kind: Kind
    has_layers: bool
    transformer_lens: str
    transformers: str = ""


# name, kind, TransformerLens, transformers: in the order of a step, which is that of the numbers.
_TABLE: tuple[tuple[str, Kind, str, str], ...] = (
    ("embed", "embd", "hook_embed", "transformer.wte"),
    ("pos_embed", "embd", "hook_pos_embed", "transformer.wpe"),
    ("resid_pre", "embd", "blocks.{layer}.hook_resid_pre", ""),
    ("ln_1", "embd", "blocks.{layer}.ln1.hook_out", "transformer.h.{layer}.ln_1"),
    ("q", "heads", "blocks.{layer}.attn.hook_q", ""),
    ("k", "heads", "blocks.{layer}.attn.hook_k", ""),
    ("v", "heads", "blocks.{layer}.attn.hook_v", ""),
    ("scores", "keys", "blocks.{layer}.attn.hook_attn_scores", ""),
    ("pattern", "keys", "blocks.{layer}.attn.hook_pattern", ""),
    ("z", "heads", "blocks.{layer}.attn.hook_z", ""),
    ("attn_out", "embd", "blocks.{layer}.hook_attn_out", "transformer.h.{layer}.attn"),
    ("resid_mid", "embd", "blocks.{layer}.hook_resid_mid", ""),
    ("ln_2", "embd", "blocks.{layer}.ln2.hook_out", "transformer.h.{layer}.ln_2"),
    ("ff_pre", "ff", "blocks.{layer}.mlp.hook_pre", "transformer.h.{layer}.mlp.c_fc"),
    ("ff_post", "ff", "blocks.{layer}.mlp.hook_post", "transformer.h.{layer}.mlp.act"),
    ("ff_out", "embd", "blocks.{layer}.hook_mlp_out", "transformer.h.{layer}.mlp"),
    ("resid_post", "embd", "blocks.{layer}.hook_resid_post", "transformer.h.{layer}"),
    ("ln_f", "embd", "ln_final.hook_out", "transformer.ln_f"),
)

SITES: dict[str, Site] = {
    name: Site(name, number, kind, "{layer}" in lens, lens, module)
    for number, (name, kind, lens, module) in enumerate(_TABLE)
}


def site_of(name: object) -> Site:
    """The site of a name; raises UsageError with the nearest name for any other."""
    site = SITES.get(name) if isinstance(name, str) else None
    if site:
        return site
    nearest = difflib.get_close_matches(name, SITES, 1) if isinstance(name, str) else []
    hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(SITES)}"
    raise UsageError(f"{shown(name)} is no site: {hint}")
