"""fastgpt-c quantize: a GGUF file -> the same model in another number type."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastgpt_c.cli import common
from fastgpt_c.cli.parser import WIDEST, terminal_width
from fastgpt_c.convert import TYPES

if TYPE_CHECKING:
    from fastgpt_c.convert.quantizer import TensorReport

EPILOG = """\
types, and their bits a weight:
  f16, bf16  16
  q8_0       8.5: blocks of 32 numbers of 8 bits with one scale
  i8         8: rows of 8 bits with one scale, in tiles; fastest for prompts and batches where the CPU has no AMX, and
             for fastgpt-c alone: other programs refuse the file
  q4_0       4.5: blocks of 32 numbers of 4 bits with one scale; the token embedding and the output layer are q8_0

Only the matrices that are multiplied are rounded; vectors and position embeddings stay f32.  A matrix whose rows are
not whole blocks (of i8: multiples of 64) becomes f16.  What is in blocks or i8 already is never rounded again: start
from f32, f16 or bf16.  f32 holds every type exactly.
The errors in the report are root mean squares; the percentage is that of the tensor's own root mean square.

example:
  fastgpt-c quantize gpt2 gpt2-q8_0.gguf --type q8_0 && fastgpt-c generate -m gpt2-q8_0.gguf "The answer is"
"""


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "quantize",
        help="make a smaller GGUF file of a model",
        description="Writes a model with its matrices rounded to a smaller type, as a GGUF file that llama.cpp loads, "
        "too (but for i8), and reports the error of each tensor.  Needs fastgpt-c[convert].",
        epilog=EPILOG,
    )
    parser.add_argument("input", metavar="IN", help=common.MODEL_HELP.partition(";")[0])
    parser.add_argument("output", type=Path, metavar="OUT", help="GGUF file to write")
    parser.add_argument("--type", choices=TYPES, required=True, help="type of the matrices")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from fastgpt_c.checkpoints import resolve
    from fastgpt_c.convert import quantize

    progress = sys.stderr.isatty()
    source = resolve.resolve(args.input, progress=progress)
    n_bytes = source.stat().st_size
    reports = quantize(source, args.output, type=args.type, progress=progress)
    is_file = args.output.is_file()
    print("\n".join(_lines(reports)), file=sys.stdout if is_file else sys.stderr)  # stdout may be the output
    if is_file:
        print(f"{args.output}: {args.output.stat().st_size:,} bytes, {source}: {n_bytes:,} bytes", file=sys.stderr)
    return 0


def _lines(reports: list[TensorReport]) -> list[str]:
    """The table, with as much of it as the terminal has room for."""
    lines: list[str] = []
    for columns in ((0, 1, 2, 3, 4), (0, 1, 2, 4), (0, 1, 2, 5)):
        lines = _table([[_cells(report)[column] for column in columns] for report in reports])
        if max(map(len, lines), default=0) <= terminal_width(WIDEST):
            break
    return lines


def _cells(report: TensorReport) -> tuple[str, ...]:
    rounded = report.rms_error > 0
    return (
        report.name,
        "".join(f"[{n}]" for n in report.shape),
        report.source_type if report.source_type == report.type else f"{report.source_type} -> {report.type}",
        f"{report.n_bytes:,} bytes",
        f"error {report.rms_error:.2e} ({report.relative_error:.3%})" if rounded else "exact",
        f"{report.relative_error:.3%}" if rounded else "exact",
    )


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
