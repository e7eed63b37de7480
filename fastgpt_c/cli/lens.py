"""fastgpt-c lens: what each layer would say next."""

from __future__ import annotations

import argparse
import os
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgpt_c.cli import common
from fastgpt_c.cli.parser import row, terminal_width
from fastgpt_c.errors import UsageError

if TYPE_CHECKING:
    from fastgpt_c.analysis.logit_lens import Lens
    from fastgpt_c.model import Model

EPILOG = """\
examples:
  fastgpt-c lens "Once upon a time, there was a little"
  fastgpt-c lens "The wolf said" -m gpt2 --html lens.html

"embed" is the embeddings alone, before layer 0.
"""

N_TOKENS_OF_PAGE = 128
ORDINALS = ("likeliest", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th")
TEXT_WIDTH = 9
BOLD, PLAIN = "\x1b[1;36m", "\x1b[0m"


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "lens",
        help="show what each layer would say next",
        description="Reads a prompt, and shows the likeliest next tokens if the model ended after each of its layers, "
        "with the probability and the rank that each layer gives to the model's answer.",
        epilog=EPILOG,
    )
    common.add_text_options(parser, "PROMPT", "text to read")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: every position, attention, attribution"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE",
        help="write a page that needs no network: every position, attention, how surprising each token was, "
        "which heads and feed-forward parts made the answer, and what it is without a head",
    )  # fmt: skip
    common.add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    prompt = common.text_of(args, "PROMPT")
    whole = args.json or args.html is not None
    with common.load_model(args) as model:
        common.check_output(args.html, model, args.file)
        from fastgpt_c.analysis import logit_lens

        tokens = model.encode(prompt)
        if whole and len(tokens) > N_TOKENS_OF_PAGE:
            raise UsageError(
                f"the prompt has {len(tokens)} tokens; --json and --html show {N_TOKENS_OF_PAGE} at most: shorten it"
            )
        seen = logit_lens.read(model, tokens, whole=whole)
        if whole:
            _write(args, model, seen)
        if not args.json:
            print("\n".join(_table(model, seen)))
    return 0


def _write(args: argparse.Namespace, model: Model, seen: Lens) -> None:
    from fastgpt_c.analysis import logit_lens
    from fastgpt_c.patching import switched_off

    report = {
        **logit_lens.report(model, seen),
        "attribution": _attribution(model, seen),
        "without": switched_off.report(switched_off.without_heads(model, seen.tokens)),
    }
    for token in {token for layer in report["without"]["best"] for best in layer for token in best}:
        report["texts"][str(token)] = logit_lens.visible(model, token)
    if args.html is not None:
        from fastgpt_c.io.html_page import write_page

        write_page(args.html, "lens", logit_lens.page_title(model, seen), logit_lens.page_data(model, report))
    if args.json:
        common.print_json(report)


def _attribution(model: Model, seen: Lens) -> dict[str, Any]:
    """Which parts of the model made the answer, and not the second likeliest token."""
    from fastgpt_c.analysis import attribution

    best = seen.best[-1, -1].tolist()
    against = best[1] if len(best) > 1 else None
    return attribution.report(model, attribution.attribute(model, seen.tokens, best[0], against))


# ---- The table --------------------------------------------------------------------------------------------


def _table(model: Model, seen: Lens) -> list[str]:
    from fastgpt_c.analysis.logit_lens import harmless, visible

    name, n_tokens = harmless(model.name or model.path.name), len(seen.tokens)
    n_shown = _n_shown()
    heading = "".join(f"{ordinal:15}" for ordinal in ORDINALS[:n_shown])
    answer = _fitted(visible(model, seen.answer), 40).rstrip()
    title = "if the model ended there" if n_shown < 3 else "next token, if the model ended there"
    lines = [
        row("", f"{name}: after {n_tokens} token{'s' * (n_tokens != 1)} the answer is {answer}"),
        "",
        f"{'':6}{title:{15 * n_shown}}{'the answer':>13}",
        f"{'layer':6}{heading}{'prob.':>6}{'rank':>7}",
    ]
    for level in range(len(seen.best)):
        layer = "embed" if level == 0 else f"{level - 1:>5}"
        cells = "".join(_cell(model, seen, level, i) for i in range(min(n_shown, seen.best.shape[2])))
        cells += " " * 15 * (n_shown - seen.best.shape[2])
        own = f"{_percent(seen.answer_probability[level, -1]):>6}{seen.answer_rank[level, -1]:>7}"
        lines.append(f"{layer} {cells}{own}")
    return lines


def _n_shown() -> int:
    """How many of the likeliest tokens a line has room for."""
    return min((terminal_width() - 6 - 13) // 15, len(ORDINALS))


def _cell(model: Model, seen: Lens, level: int, i: int) -> str:
    from fastgpt_c.analysis.logit_lens import visible

    token = int(seen.best[level, -1, i])
    text = _fitted(visible(model, token), TEXT_WIDTH)
    if token == seen.answer and _in_colour():
        text = BOLD + text + PLAIN
    return f"{text} {_percent(seen.probability[level, -1, i]):>4} "


def _in_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _percent(p: float) -> str:
    return "<1%" if p < 0.005 else f"{p:.0%}"


def _fitted(text: str, width: int) -> str:
    """text in so many columns of a terminal, cut with an ellipsis or padded."""
    if sum(map(_columns, text)) > width:
        while sum(map(_columns, text)) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - sum(map(_columns, text)))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
