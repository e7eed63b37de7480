"""tests/reference.py: GPT-2 in float64 NumPy, as picoGPT is one; it has no cache."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from harness.engine import Engine, Rows, main

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
import reference


class Reference(Engine):
    def load(self, model: str, type: str, n_threads: int) -> None:
        self.model = reference.load_gguf(Path(model))

    def reset(self, n_sequences: int) -> None:
        pass

    def feed(self, rows: Rows) -> Any:
        return [self.model.logits(row)[-1] for row in rows]


if __name__ == "__main__":
    main(Reference())
