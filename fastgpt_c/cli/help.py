"""fastgpt-c help and version: what --help and --version print, for those who expect commands."""

from __future__ import annotations

import argparse

from fastgpt_c.cli import common


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser("help", help="show this, or the help of a command", description="Shows help.")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="whose help; of all commands if not given")
    parser.set_defaults(run=run_help)
    parser = subparsers.add_parser("version", help="show the version", description="Shows the version.")
    parser.set_defaults(run=run_version)


def run_help(args: argparse.Namespace) -> int:
    from fastgpt_c.cli.commands import make_parser, parser_of

    parser = make_parser() if args.command is None else parser_of(args.command)
    parser.print_help()
    return 0


def run_version(_: argparse.Namespace) -> int:
    import fastgpt_c

    print(f"fastgpt-c {fastgpt_c.__version__}")
    return 0
