"""fastgpt-c verify: a model file against its checkpoint, run by transformers."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastgpt_c.cli import common
from fastgpt_c.errors import ModelFileError

# Two orders of sums in F32 differ by about 1e-5; a wrong step of the model differs by far more than this.
F32_TOLERANCE = 1e-3


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="compare a model file with its checkpoint in transformers",
        description="Runs a model file and the Hugging Face checkpoint that it was made of over random and real "
        "prompts, and prints the largest difference of their logits, the divergence of their distributions, and where "
        "greedy output parts.  Fails where the difference exceeds the tolerance.  Needs fastgpt-c[verify].",
    )
    parser.add_argument("model", metavar="FILE", help="GGUF file")
    parser.add_argument("--against", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    add_tolerance(parser)
    parser.set_defaults(run=run, threads=None, no_mmap=False)


def add_tolerance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tolerance",
        type=_tolerance,
        metavar="X",
        help=f"largest difference of a logit that passes ({F32_TOLERANCE:g} for F32; none where weights are rounded)",
    )


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def run(args: argparse.Namespace) -> int:
    with common.load_model(args) as model:
        from fastgpt_c.analysis.verify import compare

        report = compare(model, args.against)
        rounded = model.type != "F32"
    tolerance = args.tolerance if args.tolerance is not None or rounded else F32_TOLERANCE
    parted = "nowhere" if report.parted is None else "at prompt {}, new token {}".format(*report.parted)
    print(f"compared            {report.n_prompts} prompts, {report.n_positions} positions")
    print(f"largest difference  {report.difference:.3g}")
    print(f"KL divergence       {report.kl_mean:.3g} nats on average, {report.kl_largest:.3g} at most")
    print(f"greedy output parts {parted}")
    if tolerance is None:
        print(f"not judged: weights are rounded to {model.type}; --tolerance judges")
    elif not report.difference <= tolerance:
        raise ModelFileError(f"{model.path}: a logit differs by {report.difference:.3g}, more than {tolerance:g}")
    if report.other_tokens is not None:
        raise ModelFileError(f"{model.path}: transformers cuts {report.other_tokens!r} into other tokens")
    return 0
