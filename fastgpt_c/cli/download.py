"""fastgpt-c download: fetch and convert a checkpoint now, so that -m finds it later without a network."""

from __future__ import annotations

import argparse
import sys

from fastgpt_c.cli import common


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "download",
        help="fetch a checkpoint from Hugging Face, or from OpenAI",
        description="Downloads a GPT-2 checkpoint from Hugging Face, resuming where an earlier try stopped, "
        "converts it, and prints the GGUF file's path.  HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE "
        "apply.  Needs fastgpt-c[hub,convert].",
    )
    parser.add_argument("name", metavar="NAME", help="124M, 355M, 774M, 1558M, or an id such as gpt2 or org/name")
    parser.add_argument(
        "--source",
        choices=("hub", "openai"),
        default="hub",
        help="where from (hub); openai: OpenAI's own files of one of the four sizes, for which fastgpt-c[tf] is needed",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from fastgpt_c.checkpoints import resolve

    find = resolve.resolve_openai if args.source == "openai" else resolve.resolve
    print(find(args.name, progress=sys.stderr.isatty()))
    return 0
