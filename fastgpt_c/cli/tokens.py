"""fastgpt-c encode and decode: text <-> token ids."""

from __future__ import annotations

import argparse
import sys

from fastgpt_c.cli import common
from fastgpt_c.errors import UsageError


def add_parser(subparsers: common.Subparsers) -> None:
    encode = subparsers.add_parser(
        "encode", help="text -> token ids", description="Prints the token ids of a text, separated by spaces."
    )
    common.add_text_options(encode, "TEXT", "text to encode")
    encode.add_argument("--literal", action="store_true", help='take "<|endoftext|>" for text, not for the token')
    encode.add_argument("--json", action="store_true", help="print a JSON array")
    common.add_model_options(encode)
    encode.set_defaults(run=run_encode)

    decode = subparsers.add_parser(
        "decode",
        help="token ids -> text",
        description="Writes the bytes that token ids stand for; to a terminal, with a line break at the end.",
    )
    decode.add_argument("ids", nargs="*", metavar="ID", help="token ids; else, or for -, from standard input")
    common.add_model_options(decode)
    decode.set_defaults(run=run_decode)


def run_encode(args: argparse.Namespace) -> int:
    text = common.text_of(args, "TEXT")
    with common.load_model(args, vocab_only=True) as model:
        ids = model.encode(text, special=not args.literal)
    if args.json:
        common.print_json(ids)
    else:
        print(*ids)
    return 0


def run_decode(args: argparse.Namespace) -> int:
    if not args.ids and sys.stdin.isatty():
        raise UsageError("no token ids: give them as arguments or through a pipe")
    separators = dict.fromkeys(map(ord, "\ufeff,[]"), " ")
    words = (args.ids if args.ids != ["-"] else []) or sys.stdin.read().translate(separators).split()
    ids = list(map(_id, words))
    with common.load_model(args, vocab_only=True) as model:
        data = model.tokenizer.decode_bytes(ids)
    sys.stdout.buffer.write(data + b"\n" * sys.stdout.isatty())
    return 0


def _id(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UsageError(f"not a token id: {word[:100]!r}; ids are whole numbers") from None
