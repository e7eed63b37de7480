"""What rounding the weights, or with --kv the KV cache, costs: perplexity, and the divergence from what f32 predicts.

    python tools/quality.py tests/data/fairy_tales_heldout.txt [-m MODEL] [--kv]

Writes the model in every type as fastgpt-c quantize does, reads the text as fastgpt-c eval does with --stride n_ctx,
and prints a table in Markdown.  Each type reads it twice: a window at once (prefill), and token by token (decode),
since the two are computed in different ways.  All are compared with the prefill of f32.  With --kv the weights are f32,
and the caches differ.

    perplexity      exp of the mean of -log q(next token); and by how much it is larger
    KL divergence   mean of sum_v p(v) log(p(v) / q(v)) in nats, p of f32, q of the type (Kullback & Leibler 1951)
    same first      how often both find the same token likeliest

Needs fastgpt-c[convert].
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import fastgpt_c
from fastgpt_c.checkpoints import resolve
from fastgpt_c.convert import TYPES, quantize
from fastgpt_c.engine.log_probs import log_normalisers
from fastgpt_c.native.arguments import KV_TYPES
from fastgpt_c.native.dtypes import row_bytes
from fastgpt_c.scoring.token_scores import windows

LogProbabilities = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int64]
PATHS = ("prefill", "decode")


@dataclass
class Score:
    """Sums over the tokens seen so far."""

    n_tokens: int = 0
    nats: float = 0.0
    divergence: float = 0.0
    n_same: int = 0

    def add(self, p: LogProbabilities, q: LogProbabilities, targets: Tokens) -> None:
        """p and q [n][n_vocab], targets [n]."""
        self.n_tokens += len(targets)
        self.nats -= float(q[np.arange(len(targets)), targets].sum())
        self.divergence += float((np.exp(p) * (p - q)).sum())
        self.n_same += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats / self.n_tokens)


def predictions(session: fastgpt_c.Session, tokens: Tokens, path: str) -> LogProbabilities:
    """[len(tokens)][n_vocab] what is likely to follow each token of a window."""
    session.truncate(0)
    if path == "prefill":
        logits = session.prefill(tokens, all_logits=True)
    else:
        logits = np.stack([session.decode(int(token)) for token in tokens])
    return logits.astype(np.float64) - log_normalisers(logits)[:, None]


def scores(sessions: dict[str, fastgpt_c.Session], tokens: Tokens) -> dict[tuple[str, str], Score]:
    """By type and path."""
    found = {(type, path): Score() for type in sessions for path in PATHS}
    n_ctx = sessions["f32"].n_ctx
    for begin, _, end in windows(len(tokens), n_ctx, stride=n_ctx):
        window = tokens[begin:end]
        p = predictions(sessions["f32"], window, "prefill")[:-1]
        for (type, path), score in found.items():
            score.add(p, predictions(sessions[type], window, path)[:-1], window[1:])
    return found


def table(sizes: dict[str, int], found: dict[tuple[str, str], Score]) -> Iterator[str]:
    yield "| type | bytes | path | perplexity | | KL divergence | same first |"
    yield "|---|---|---|---|---|---|---|"
    reference = found["f32", "prefill"].perplexity
    for (type, path), score in found.items():
        change = f"{score.perplexity / reference - 1:+.3%}"
        divergence, same = f"{score.divergence / score.n_tokens:.1e}", f"{score.n_same / score.n_tokens:.2%}"
        yield f"| {type} | {sizes[type]:,} | {path} | {score.perplexity:.3f} | {change} | {divergence} | {same} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("-m", "--model", help="as for fastgpt-c -m; the demo model if not given")
    parser.add_argument("--kv", action="store_true", help="the types of KV caches; bytes are those of a position")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files = {type: Path(folder) / f"{type}.gguf" for type in (["f32"] if args.kv else TYPES)}
        for type, file in files.items():
            quantize(resolve.resolve(args.model, progress=True), file, type=type)
        models = {type: stack.enter_context(fastgpt_c.load(file)) for type, file in files.items()}
        f32, sizes = models["f32"], {type: file.stat().st_size for type, file in files.items()}
        if args.kv:
            sizes = {type: 2 * f32.n_layer * row_bytes(type, f32.n_embd) for type in KV_TYPES if type != "auto"}
        sessions = {
            type: stack.enter_context(f32.session(kv_type=type) if args.kv else models[type].session(kv_type="f32"))
            for type in sizes
        }
        found = scores(sessions, np.array(f32.encode(args.text.read_text(encoding="utf-8"))))
        print("\n".join(table(sizes, found)))
        print(f"\n{found['f32', 'prefill'].n_tokens:,} tokens of {args.text.name}")


if __name__ == "__main__":
    main()
