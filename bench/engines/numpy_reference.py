"""tests/support/reference.py: GPT-2 in float64 NumPy, as picoGPT is one; it has no cache."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from harness.engine import Engine, Rows, main

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))
import reference


class Reference(Engine):
    def load(self, model: str, type: str, n_threads: int) -> None:
        self.model = reference.load_gguf(Path(model))

    def reset(self, n_sequences: int, n_ctx: int) -> None:
        pass

    def feed(self, rows: Rows) -> Any:
        return [self.model.logits(row)[-1] for row in rows]

    def generate_text(self, model: str, prompt: str, n_new: int) -> list[int]:
        from fastgpt_c import load

        tokens = load(model).encode(prompt)
        return self.time_generate(tokens, n_new, kv_cache=False)[1]


if __name__ == "__main__":
    main(Reference())
