"""The result of a generation."""

from __future__ import annotations

from dataclasses import dataclass

from fastgpt_c.engine.log_probs import TokenLogProb
from fastgpt_c.native.arguments import shown


@dataclass(frozen=True, repr=False)
class Completion:
    """What was generated.

    text            the continuation, without the prompt and without what ended it
    tokens          token ids, without the end-of-text token
    finish_reason   "length", "stop" (a stop string, or a constraint that nothing can follow) or "eos" (the end-of-text
                    token)
    n_prompt        tokens of the prompt that were read
    seed            reproduces the draws
    prefill_seconds time from the start to the logits after the prompt
    decode_seconds  time from there to the end
    n_reused        tokens of the prompt that were in a KV cache already, and were not read again
    n_guessed       guesses of speculative decoding
    n_right         guesses that were right
    logprobs        TokenLogProb(token, logprob, rank, top) for each of tokens, where Options.logprobs asks for them;
                    else None
    """

    text: str
    tokens: list[int]
    finish_reason: str
    n_prompt: int
    seed: int
    prefill_seconds: float
    decode_seconds: float
    n_reused: int = 0
    n_guessed: int = 0
    n_right: int = 0
    logprobs: tuple[TokenLogProb, ...] | None = None

    def __repr__(self) -> str:
        return (
            f"Completion({shown(self.text)}, {len(self.tokens)} tokens, finish_reason={self.finish_reason!r}, "
            f"n_prompt={self.n_prompt}, seed={self.seed})"
        )
