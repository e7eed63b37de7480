"""How much sooner speculative decoding is done: greedy texts, plain and with guesses, in turns.

    python bench/speculative.py                              the demo model
    python bench/speculative.py -m big.gguf --draft small.gguf

A prompt that repeats itself, one that does not, and one that asks for what was said before.  The median of several
rounds; a ratio above 1 is faster than plain decoding.  "right" are the guesses that were right.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import fastgpt_c

STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play in the park. One day, she saw a big dog. "
    "The dog was very friendly, and it wagged its tail. "
)
PROMPTS = {
    "a story": STORY,
    "the same three times": STORY * 3,
    "a list": "one cat, two dogs, three birds, " * 3 + "one cat,",
}
N_ROUNDS = 5


def ways(draft: fastgpt_c.Model | None) -> dict[str, dict[str, Any]]:
    """Options of each way, by name."""
    known: dict[str, dict[str, Any]] = {"plain": {}} | {f"prompt lookup {n}": {"prompt_lookup": n} for n in (3, 7)}
    return known | ({"draft": {"draft": draft}} if draft else {})


def compare(model: fastgpt_c.Model, draft: fastgpt_c.Model | None, prompt: str, n_new: int) -> None:
    """Prints a line for each way."""
    runs: dict[str, list[fastgpt_c.Completion]] = {name: [] for name in ways(draft)}
    for _ in range(N_ROUNDS):
        for name, options in ways(draft).items():
            runs[name].append(
                model.generate(
                    prompt, temperature=0, max_new_tokens=n_new, logit_bias={model.eos_token or 0: -1e9}, **options
                )
            )
    plain = statistics.median(run.decode_seconds for run in runs["plain"])
    for name, done in runs.items():
        seconds, last = statistics.median(run.decode_seconds for run in done), done[-1]
        same = "the same text" if last.tokens == runs["plain"][0].tokens else "ANOTHER TEXT"
        print(
            f"  {name:18}{seconds / n_new * 1e3:8.2f} ms a token  {plain / seconds:5.2f}  "
            f"right {last.n_right:4} of {last.n_guessed:4}  {same}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", help="the demo model if not given")
    parser.add_argument("--draft", help="a smaller model that guesses")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-n", type=int, default=150, help="tokens a text (150)")
    args = parser.parse_args()
    with fastgpt_c.load(args.model, n_threads=args.threads) as model:
        draft = fastgpt_c.load(args.draft, n_threads=args.threads) if args.draft else None
        for name, prompt in PROMPTS.items():
            print(f"{name}: {len(model.encode(prompt))} tokens and {args.n} new ones")
            compare(model, draft, prompt, args.n)


if __name__ == "__main__":
    main()
