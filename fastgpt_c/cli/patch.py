"""fastgpt-c patch: which values of one text's run, put into another's, bring back its answer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgpt_c.cli import common
from fastgpt_c.cli.parser import row, terminal_width, whole_number
from fastgpt_c.errors import UsageError

if TYPE_CHECKING:
    from fastgpt_c.model import Model

EPILOG = """\
examples:
  fastgpt-c patch "Lily had a red ball. Tim had a hat. Tim said to Lily: I like your" \\
      "Lily had a red kite. Tim had a hat. Tim said to Lily: I like your" --answer " ball" --against " kite"
  fastgpt-c patch -m gpt2 --html patch.html --answer " Mary" --against " John" \\
      "When Mary and John went to the store, John gave a drink to" \\
      "When Mary and John went to the store, Mary gave a drink to"

100 is the clean text's answer brought back, 0 the corrupted text's.  Layers, positions and heads count from 0.
"""

N_TOKENS = 128
COLUMN = 5


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "patch",
        help="find which parts of a model carry an answer",
        description="Activation patching: reads the corrupted text once for each layer and position, and each head, "
        "with the values of the clean text there, and shows how much of the clean answer comes back.  Both texts need "
        "equally many tokens.",
        epilog=EPILOG,
    )
    parser.add_argument("clean", metavar="CLEAN", help="text after which the model gives the answer")
    parser.add_argument("corrupted", metavar="CORRUPTED", help="the same with a word or two changed")
    parser.add_argument(
        "--answer", required=True, metavar="TOKEN", help='such as " Mary": one token, mostly with a space'
    )
    parser.add_argument("--against", required=True, metavar="TOKEN", help='the token to compare with, such as " John"')
    parser.add_argument(
        "--max-tokens-in-flight", type=whole_number, default=512, metavar="N",
        help="tokens of all runs of one step; more takes more memory (default 512)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of heat maps that needs no network")
    common.add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    texts = [common.argument_text(text, f"the {name} text") for name, text in
             (("clean", args.clean), ("corrupted", args.corrupted))]  # fmt: skip
    with common.load_model(args) as model:
        common.check_output(args.html, model)
        clean, corrupted = (model.encode(text) for text in texts)
        if len(clean) > N_TOKENS:
            raise UsageError(f"the clean text has {len(clean)} tokens; patch takes {N_TOKENS} at most: shorten it")
        from fastgpt_c.patching import report

        found = report.report(
            report.experiment(
                model, clean, corrupted, args.answer, args.against, max_tokens_in_flight=args.max_tokens_in_flight
            )
        )
        data = {**_about(model, clean, corrupted, found), **found}
        if args.html is not None:
            from fastgpt_c.io.html_page import write_page

            title = f"{data['model']}: what brings back {data['answer_text']}"
            write_page(args.html, "patch", title, data)
        if args.json:
            common.print_json(data)
        else:
            print("\n".join(_table(data)))
    return 0


def _about(model: Model, clean: list[int], corrupted: list[int], found: dict[str, Any]) -> dict[str, Any]:
    from fastgpt_c.analysis.logit_lens import harmless, inputs, visible

    return {
        "model": harmless(model.name or model.path.name),
        "type": model.type,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "clean_tokens": inputs(model, clean),
        "corrupted_tokens": inputs(model, corrupted),
        "answer_text": visible(model, found["answer"]),
        "against_text": visible(model, found["against"]),
    }


# ---- The table --------------------------------------------------------------------------------------------


def _table(data: dict[str, Any]) -> list[str]:
    """The residual stream by layer and position, a line a position, and the strongest heads."""
    answer, against = data["answer_text"], data["against_text"]
    both = f"{data['clean']:.2f} after the clean text, {data['corrupted']:.2f} after the corrupted one"
    lines = [
        row("", f"{data['model']}: the logit of {answer} above that of {against} is {both}"),
        "",
        "what comes back, in percent, when one place is taken from the clean text",
        "",
    ]
    n_shown = min(data["n_layer"], (terminal_width() - 32) // COLUMN)
    layers = range(data["n_layer"] - n_shown, data["n_layer"])
    lines.append(f"{'resid_pre: position':26}{'layer':>6}" + "".join(f"{layer:{COLUMN}}" for layer in layers))
    for i, (clean, corrupted) in enumerate(zip(data["clean_tokens"], data["corrupted_tokens"], strict=True)):
        name = clean if clean == corrupted else f"{clean} for {corrupted}"
        cells = "".join(f"{_percent(data['resid_pre'][layer][i]):{COLUMN}}" for layer in layers)
        lines.append(f"{i:4} {name[:26]:27}" + cells)
    heads = [(value, f"{layer}.{head}") for layer, line in enumerate(data["z"]) for head, value in enumerate(line)]
    strongest = sorted(heads, key=lambda head: -abs(head[0]))[:6]
    lines += ["", row("heads: ", ", ".join(f"{name} {_percent(value):+}" for value, name in strongest))]
    return lines


def _percent(part: float) -> int:
    return round(100 * part)
