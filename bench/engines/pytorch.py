"""PyTorch with transformers, eager; types f32 and bf16."""

from __future__ import annotations

from typing import Any

import torch
from harness.engine import Engine, Rows, main
from harness.plan import TEMPERATURE, TOP_P
from transformers import DynamicCache, GPT2LMHeadModel

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class PyTorch(Engine):
    def load(self, model: str, type: str, n_threads: int) -> None:
        torch.set_num_threads(n_threads)
        torch.set_grad_enabled(False)
        self.model = GPT2LMHeadModel.from_pretrained(model, dtype=DTYPES[type]).eval()

    def reset(self, n_sequences: int, n_ctx: int) -> None:
        self.cache = DynamicCache()

    def feed(self, rows: Rows) -> Any:
        out = self.model(torch.tensor(rows), past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1]

    def continue_all(self, prompts: Rows, n_new: int, sampled: bool) -> Rows:
        if not sampled:
            return super().continue_all(prompts, n_new, sampled)
        ids = torch.tensor(prompts)
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), min_new_tokens=n_new, max_new_tokens=n_new, do_sample=True,
            temperature=TEMPERATURE, top_p=TOP_P, top_k=0, pad_token_id=self.model.config.eos_token_id,
        )  # fmt: skip
        return out[:, ids.shape[1] :].tolist()

    def generate_text(self, model: str, prompt: str, n_new: int) -> list[int]:
        from transformers import GPT2Tokenizer

        tokens = GPT2Tokenizer.from_pretrained(model)(prompt, return_tensors="pt")
        end = self.model.config.eos_token_id
        out = self.model.generate(**tokens, max_new_tokens=n_new, do_sample=False, pad_token_id=end)
        return out[0, tokens["input_ids"].shape[1] :].tolist()


if __name__ == "__main__":
    main(PyTorch())
