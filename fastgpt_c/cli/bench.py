"""fastgpt-c bench: how fast a model runs here, and how fast this machine would let it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from fastgpt_c.cli import common
from fastgpt_c.cli.parser import WIDEST, row, terminal_width

if TYPE_CHECKING:
    from fastgpt_c.analysis.benchmark import Plan, Row
    from fastgpt_c.model import Model
    from fastgpt_c.profiling.machine import Roofline

EPILOG = """\
Bandwidth is what the machine reads from memory, measured just before; a decode that reads its weights at that rate
cannot be faster.  A model smaller than the caches may read faster than memory: more than 100%.
"""


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="measure how fast a model runs",
        description="Times prefill, decode and batches of a model, beside the read bandwidth of this machine.",
        epilog=EPILOG,
    )
    parser.add_argument("-m", "--model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("--no-mmap", action="store_true", help="copy the model file instead of mapping it")
    parser.add_argument("--threads", type=_numbers, metavar="N,...", help="numbers of threads (all usable cores)")
    parser.add_argument("--prefill", type=_numbers, metavar="N,...", help="lengths of prompts (16,128,512)")
    parser.add_argument("--decode", type=_numbers, metavar="N,...", help="positions before a decoded token (0,128,512)")
    parser.add_argument("--batch", type=_numbers, metavar="N,...", help="sequences decoded together (2,4,8,16,32)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="the median of N rounds counts (5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object when all is done")
    parser.set_defaults(run=run)


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")] if text else []
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,2,4") from None


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from fastgpt_c.analysis import benchmark
    from fastgpt_c.profiling import machine

    with common.load_file(args.model, args, n_threads=None) as model:
        plan = _plan(args, model)
        plan.check(model.n_ctx)
        report: dict[str, Any] = {"model": model.name, "file": str(model.path), "type": model.type, "machine": []}
        rows = []
        for n_threads in args.threads or [0]:
            ceiling = machine.roofline(n_threads)
            report["machine"].append(vars(ceiling))
            _say(args, _heading(model, ceiling))
            for timed in benchmark.measure(model, n_threads, plan):
                rows.append(asdict(timed) | {"tokens_per_second": timed.tokens_per_second})
                _say(args, _line(timed, ceiling))
    if args.json:
        print(json.dumps(report | {"rows": rows}))
    return 0


def _plan(args: argparse.Namespace, model: Model) -> Plan:
    """What was asked for, or as much of the usual as the model has positions for."""
    from fastgpt_c.analysis.benchmark import STEPS_PER_ROUND, Plan

    def usual_or_given(given: list[int] | None, usual: tuple[int, ...], most: int) -> list[int]:
        return [n for n in usual if n <= most] if given is None else given

    return Plan(
        prefill=usual_or_given(args.prefill, (16, 128, 512), model.n_ctx),
        decode=usual_or_given(args.decode, (0, 128, 512), model.n_ctx - STEPS_PER_ROUND),
        batch=usual_or_given(args.batch, (2, 4, 8, 16, 32), 32),
        rounds=args.rounds,
    )


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.json:
        print(text, flush=True)


def _heading(model: Model, ceiling: Roofline) -> str:
    rates = {
        "f32": ceiling.f32_operations_per_second,
        "bf16": ceiling.bf16_operations_per_second,
        "int8": ceiling.int8_operations_per_second,
    }
    peaks = ", ".join(f"{rate / 1e9:.0f} {kind}" for kind, rate in rates.items() if rate)
    speed = f"{ceiling.read_bytes_per_second / 1e9:.1f} GB/s, {peaks} GFLOP/s"
    return (
        row("", f"{common.title(model)}, {model.type}, {ceiling.n_threads} threads; this machine: {speed}")
        + "\n"
        + _fitted(f"{'':26}{'ms':>9}", f"{'tokens/s':>9}", f"{'GB/s':>7}", f"{'of bandwidth':>13}", f"{'GFLOP/s':>9}")
    )


def _fitted(*cells: str) -> str:
    """As many of them as the terminal has room for."""
    line, width = cells[0], terminal_width(WIDEST)
    for cell in cells[1:]:
        if len(line) + 1 + len(cell) > width:
            break
        line += " " + cell
    return line


def _line(timed: Row, ceiling: Roofline) -> str:
    what = {
        "prefill": f"prefill {timed.n_tokens}",
        "decode": f"decode after {timed.n_past}",
        "batch": f"{timed.n_sequences} sequences after {timed.n_past}",
    }[timed.work]
    rate = timed.n_bytes / timed.seconds
    return _fitted(
        f"{what:26}{1e3 * timed.seconds:9.2f}",
        f"{timed.tokens_per_second:9.1f}",
        f"{rate / 1e9:7.1f}",
        f"{rate / ceiling.read_bytes_per_second:13.0%}",
        f"{timed.n_operations / timed.seconds / 1e9:9.1f}",
    )
