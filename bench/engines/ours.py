"""fastgpt-c itself, through its Python package."""

from __future__ import annotations

from typing import Any

from harness.engine import Engine, Rows, main
from harness.plan import TEMPERATURE, TOP_P

from fastgpt_c import Session, load, step
from fastgpt_c.profiling import machine


class Ours(Engine):
    def load(self, model: str, type: str, n_threads: int) -> None:
        self.model = load(model, n_threads=n_threads)
        self.sessions: list[Session] = []

    def reset(self, n_sequences: int, n_ctx: int) -> None:
        while len(self.sessions) < n_sequences:
            self.sessions.append(self.model.session())
        del self.sessions[n_sequences:]
        for session in self.sessions:
            session.truncate(0)

    def feed(self, rows: Rows) -> Any:
        return step(list(zip(self.sessions, rows, strict=True)))

    def continue_all(self, prompts: Rows, n_new: int, sampled: bool) -> Rows:
        drawn = {"temperature": TEMPERATURE, "top_p": TOP_P} if sampled else {"temperature": 0.0}
        found = self.model.generate_batch(prompts, max_new_tokens=n_new, max_batch=len(prompts), **drawn)
        return [completion.tokens for completion in found]

    def roofline(self) -> dict[str, float]:
        return vars(machine.roofline(self.model.n_threads))


if __name__ == "__main__":
    main(Ours())
