"""fastgpt-c convert: a Hugging Face checkpoint -> a GGUF file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastgpt_c.cli import common, verify
from fastgpt_c.convert import TYPES


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="make a GGUF file of a checkpoint",
        description="Converts a Hugging Face GPT-2 checkpoint (config.json, model.safetensors or pytorch_model.bin, a "
        "tokenizer), one of OpenAI's (TensorFlow's files) or a model.gguf or model.dat of fastGPT to a GGUF file that "
        "llama.cpp loads, too.  Needs fastgpt-c[convert], or fastgpt-c[tf].",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the checkpoint, or file of fastGPT")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="GGUF file to write")
    parser.add_argument(
        "--type", choices=TYPES, default="f32", help="how to store the matrices (f32); vectors stay f32"
    )
    parser.add_argument(
        "--lora", type=Path, metavar="DIR", help="merge this LoRA adapter, a folder that PEFT saved, into the weights"
    )
    parser.add_argument(
        "--verify", action="store_true", help="then compare the file with the checkpoint, as fastgpt-c verify does"
    )
    verify.add_tolerance(parser)
    parser.set_defaults(run=run, threads=None, no_mmap=False)


def run(args: argparse.Namespace) -> int:
    from fastgpt_c.convert import convert

    notes = convert(args.folder, args.output, type=args.type, lora=args.lora, progress=sys.stderr.isatty())
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if args.output.is_file():
        print(f"{args.output}: {args.output.stat().st_size:,} bytes", file=sys.stderr)
    if not args.verify:
        return 0
    args.model, args.against = args.output, args.folder
    return verify.run(args)
