"""How well a model predicts a text: nats a token, perplexity, bits a byte.

    python tools/perplexity.py tests/data/fairy_tales_heldout.txt [-m MODEL]

The text is cut into windows of n_ctx tokens, each read on its own; the first token of a window is not predicted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

import fastgpt_c

Tokens = npt.NDArray[np.int64]


def windows(model: fastgpt_c.Model, text: Path) -> Iterator[Tokens]:
    """The tokens of the file text in pieces of n_ctx, of at least two."""
    tokens = np.array(model.encode(text.read_text(encoding="utf-8")))
    for start in range(0, len(tokens) - 1, model.n_ctx):
        yield tokens[start : start + model.n_ctx]


def log_probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """[n][n_vocab], normalised."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows


def chosen(rows: npt.NDArray[np.float64], tokens: Tokens) -> npt.NDArray[np.float64]:
    """[n] from each of rows [n][n_vocab] what stands at its token."""
    at_tokens: npt.NDArray[np.float64] = rows[np.arange(len(tokens)), tokens]
    return at_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("-m", "--model", help="as for fastgpt-c -m; the demo model if not given")
    args = parser.parse_args()
    nats: list[float] = []
    n_bytes = 0
    with fastgpt_c.load(args.model) as model, model.session() as session:
        for window in windows(model, args.text):
            session.truncate(0)
            logits = session.prefill(window, all_logits=True)
            nats.extend(-chosen(log_probabilities(logits[:-1]), window[1:]))
            n_bytes += len(model.tokenizer.decode_bytes(window[1:].tolist()))
    mean = float(np.mean(nats))
    bits = sum(nats) / math.log(2) / n_bytes
    print(f"{len(nats)} tokens, {mean:.4f} nats a token, perplexity {math.exp(mean):.2f}, {bits:.4f} bits a byte")


if __name__ == "__main__":
    main()
