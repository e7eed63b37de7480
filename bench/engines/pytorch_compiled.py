"""PyTorch with transformers, compiled by torch.compile for a cache of fixed size."""

from __future__ import annotations

from typing import Any

import torch
from engines.pytorch import PyTorch
from harness.engine import Rows, main
from transformers import StaticCache


class Compiled(PyTorch):
    """Compiles in the round that is not counted."""

    def load(self, model: str, type: str, n_threads: int) -> None:
        super().load(model, type, n_threads)
        self.run = torch.compile(self.model)

    def reset(self, n_sequences: int, n_ctx: int) -> None:
        self.cache = StaticCache(config=self.model.config, max_cache_len=n_ctx)
        self.n_past = 0

    def feed(self, rows: Rows) -> Any:
        ids = torch.tensor(rows)
        positions = torch.arange(self.n_past, self.n_past + ids.shape[1])
        self.n_past += ids.shape[1]
        out = self.run(
            ids, past_key_values=self.cache, use_cache=True, cache_position=positions, position_ids=positions[None],
            logits_to_keep=1,
        )  # fmt: skip
        return out.logits[:, -1]


if __name__ == "__main__":
    main(Compiled())
