"""What came of a prompt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Completion:
    """What was generated.

    text            the continuation, without the prompt and without what ended it
    tokens          token ids, without the end-of-text token
    finish_reason   "length", "stop" (a stop string, or a constraint that nothing can follow) or "eos" (the end-of-text
                    token)
    n_prompt        tokens of the prompt that were read
    seed            what reproduces it
    prefill_seconds until the logits after the prompt; decode_seconds from there to the end
    n_reused        tokens of the prompt that a KV cache held already, so that they were not read again
    n_guessed, n_right
                    guesses of speculative decoding, and how many of them were the text's next tokens
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
