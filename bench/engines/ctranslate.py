"""CTranslate2; it has no step of its own to call, so a step is what generating more tokens costs more."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import ctranslate2
from harness.engine import Engine, Rows, main
from harness.plan import TEMPERATURE, TOP_P

LEAST_STEPS = 8  # of fewer, the difference drowns in the noise of the prompt


class CTranslate(Engine):
    def load(self, model: str, type: str, n_threads: int) -> None:
        self.generator = ctranslate2.Generator(
            model, device="cpu", compute_type=type, intra_threads=n_threads, inter_threads=1
        )
        self.words = json.loads(Path(model, "vocabulary.json").read_text(encoding="utf-8"))

    def _generate(self, prompts: Rows, n_new: int, **drawn: Any) -> Any:
        return self.generator.generate_batch(
            [[self.words[token] for token in prompt] for prompt in prompts],
            max_batch_size=0,
            max_length=n_new,
            min_length=n_new,
            beam_size=1,
            include_prompt_in_result=False,
            **(drawn or {"sampling_topk": 1}),
        )

    def _seconds(self, prompts: Rows, n_new: int) -> float:
        begin = time.perf_counter()
        self._generate(prompts, n_new)
        return time.perf_counter() - begin

    def continue_all(self, prompts: Rows, n_new: int, sampled: bool) -> Rows:
        drawn = {"sampling_topk": 0, "sampling_topp": TOP_P, "sampling_temperature": TEMPERATURE} if sampled else {}
        return [one.sequences_ids[0] for one in self._generate(prompts, n_new, **drawn)]

    def time_prefill(self, tokens: list[int]) -> float:
        return self._seconds([tokens], n_new=1)

    def time_step(self, prompt: list[int], tokens: list[int], n_sequences: int) -> float:
        n_steps = max(len(tokens) - 1, LEAST_STEPS)
        few = self._seconds([prompt] * n_sequences, n_new=1)
        many = self._seconds([prompt] * n_sequences, n_new=1 + n_steps)
        return max(many - few, 1e-9) / n_steps

    def generate_text(self, model: str, prompt: str, n_new: int) -> list[int]:
        from tokenizers import ByteLevelBPETokenizer

        folder = Path(model).parents[1] / "checkpoint"
        tokenizer = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
        return list(self._generate([tokenizer.encode(prompt).ids], n_new)[0].sequences_ids[0])


if __name__ == "__main__":
    main(CTranslate())
