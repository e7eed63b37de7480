"""fastgpt-c eval: how well a model predicts a text."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from fastgpt_c.cli import common
from fastgpt_c.cli.interrupt import ending_at_once
from fastgpt_c.cli.parser import row
from fastgpt_c.cli.status_line import StatusLine
from fastgpt_c.errors import UsageError

if TYPE_CHECKING:
    from fastgpt_c.model import Model
    from fastgpt_c.scoring.perplexity import Evaluation

EPILOG = """\
A text longer than the model's n_ctx is read in windows of n_ctx tokens, each S tokens after the one before, and a
window scores what those before it did not reach: the recipe of transformers' guide "Perplexity of fixed-length models".
A smaller stride gives each token more to go by, and takes longer.  With GPT-2's tokenizer any bytes are a text; none is
left out.

Perplexity counts each predicted token once.  The guide's own sum, shown beside it, counts a window of k new tokens as
k - 1, which is right only where windows do not overlap.
"""

MOST_BYTES = 2**31 - 1  # what the tokenizer takes at once

FIGURES = (
    "n_tokens", "n_scored", "n_bytes", "nats_per_token", "perplexity", "guide_perplexity", "bits_per_byte", "seconds",
    "tokens_per_second",
)  # fmt: skip


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="perplexity of a text",
        description="Prints the perplexity of a text, and bits per byte.",
        epilog=EPILOG,
    )
    parser.add_argument("file", metavar="FILE", help="the text; - is standard input")
    parser.add_argument("--stride", type=int, metavar="S", help="tokens between windows (512, or n_ctx where less)")
    parser.add_argument("--bos", action="store_true", help="predict the first token, too, after the end-of-text token")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    common.add_kv_type_option(parser, default="f32")
    common.add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    data = _read(args.file)
    with common.load_model(args) as model:
        result = _evaluate(args, model, _tokens(model, data))
        report = _report(model, result)
    if args.json:
        common.print_json(report)
    else:
        print(_table(result))
    return 0


def _read(name: str) -> bytes:
    with common.binary_input(name) as stream:
        data = stream.read(MOST_BYTES + 1)
    if not data:
        raise UsageError("the text is empty: there is nothing to predict")
    if len(data) > MOST_BYTES:
        raise UsageError(f"the text has more than {MOST_BYTES:,} bytes; evaluate it in parts")
    return data


def _tokens(model: Model, data: bytes) -> list[int]:
    from fastgpt_c.tokenizers.bpe import Tokenizer

    if isinstance(model.tokenizer, Tokenizer):
        return model.tokenizer.encode(data)
    try:
        return model.tokenizer.encode(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"the text is not UTF-8, as this model's tokenizer needs it: {error}") from None


def _evaluate(args: argparse.Namespace, model: Model, tokens: list[int]) -> Evaluation:
    with ending_at_once():
        from fastgpt_c.scoring.perplexity import evaluate

    with StatusLine("tokens") as progress:
        for result in evaluate(model, tokens, stride=args.stride, bos=args.bos, kv_type=args.kv_type):
            if result.n_scored:
                note = f", perplexity {result.perplexity:.2f} so far"
                progress.show(result.n_read / result.n_tokens, result.n_read, note)
    return result


def _report(model: Model, result: Evaluation) -> dict[str, Any]:
    report: dict[str, Any] = {"model": model.name or str(model.path)}
    for name in FIGURES:
        value = getattr(result, name)
        report[name] = value if math.isfinite(value) else None  # JSON has no other numbers
    return report


def _table(result: Evaluation) -> str:
    predicted = f"of which {result.n_scored:,} were predicted: {result.n_bytes:,} bytes"
    rows = [
        ("tokens", f"{result.n_tokens:,}, {predicted}"),
        ("perplexity", f"{result.perplexity:.4f}; as the guide adds windows up {result.guide_perplexity:.4f}"),
        ("nats/token", f"{result.nats_per_token:.4f}"),
        ("bits/byte", f"{result.bits_per_byte:.4f}"),
        ("speed", f"{result.tokens_per_second:,.0f} tokens/s, {result.seconds:.1f} s"),
    ]
    return "\n".join(row(f"{name:12}", text) for name, text in rows)
