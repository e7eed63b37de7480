"""The commands by name, and their parsers.  A module is imported when its command is asked for, or the help of all."""

from __future__ import annotations

import argparse
import importlib

from fastgpt_c.cli.interrupt import ending_at_once
from fastgpt_c.cli.parser import Parser, nearest
from fastgpt_c.errors import UsageError

MODULES = {
    "generate": "generate",
    "batch": "batch",
    "chat": "chat",
    "info": "info",
    "encode": "tokens",
    "decode": "tokens",
    "lens": "lens",
    "patch": "patch",
    "serve": "serve",
    "convert": "convert",
    "quantize": "quantize",
    "verify": "verify",
    "download": "download",
    "config": "config",
    "bench": "bench",
    "profile": "profile",
    "eval": "evaluate",
    "score": "score",
    "help": "help",
    "version": "help",
}

EPILOG = """\
examples:
  fastgpt-c generate "Once upon a time"
      continue a story with the bundled demo model
  fastgpt-c generate -m gpt2 "The answer is"
      OpenAI's smallest GPT-2, downloaded and converted once
  fastgpt-c chat -m ./my-finetuned-gpt2
      talk to a checkpoint of your own
  fastgpt-c COMMAND --help
      what a command can do

exit status:
  0    success
  1    failure: a file, the network, memory, a damaged model, an output that cannot be written; also where lines of
       batch or score are errors
  2    wrong usage: an option, an argument or a text that is not what it has to be
  130  interrupted by Ctrl-C
  141  whoever read standard output has gone
"""


def make_parser() -> Parser:
    """The parser of fastgpt-c, with all commands."""
    return _make(*dict.fromkeys(MODULES.values()))[0]


def parser_of(command: str) -> Parser:
    """A command's own.  Raises UsageError where there is no such command."""
    if command.startswith("-"):
        raise UsageError(
            f"a COMMAND comes before {command}, such as: fastgpt-c generate {command}; see fastgpt-c --help"
        )
    if command not in MODULES:
        raise UsageError(
            f"there is no command {command!r}{nearest(command, MODULES) or ';'} see fastgpt-c --help for all of them"
        )
    parser: Parser = _make(MODULES[command])[1].choices[command]
    return parser


def _make(*modules: str) -> tuple[Parser, argparse._SubParsersAction[Parser]]:
    parser = Parser(
        prog="fastgpt-c", description="Runs GPT-2-family language models on an ordinary CPU.", epilog=EPILOG
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in modules:
        with ending_at_once():
            command = importlib.import_module(f"fastgpt_c.cli.{module}")
        command.add_parser(subparsers)
    return parser, subparsers
