"""fastgpt-c: reads the command line, runs the subcommand, and turns exceptions into messages and exit statuses."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from fastgpt_c.cli import (
    batch,
    bench,
    chat,
    config,
    convert,
    download,
    evaluate,
    generate,
    info,
    lens,
    profile,
    quantize,
    score,
    tokens,
    verify,
)
from fastgpt_c.cli.interrupt import INTERRUPTED
from fastgpt_c.errors import FastGPTError, UsageError

EPILOG = """\
examples:
  fastgpt-c generate "Once upon a time"           continue a story with the bundled demo model
  fastgpt-c generate -m gpt2 "The answer is"      OpenAI's smallest GPT-2, downloaded and converted once
  fastgpt-c chat -m ./my-finetuned-gpt2           talk to a checkpoint of your own
  fastgpt-c COMMAND --help                        what a command can do

exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted by Ctrl-C
"""

FAILURE, WRONG_USAGE = 1, 2
PIPE_CLOSED = 141  # as a shell counts processes that SIGPIPE ended


class _Version(argparse.Action):
    """--version looks the version up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import fastgpt_c

        print(f"fastgpt-c {fastgpt_c.__version__}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastgpt-c",
        description="Runs GPT-2-family language models on an ordinary CPU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        generate,
        batch,
        chat,
        info,
        tokens,
        lens,
        convert,
        quantize,
        verify,
        download,
        config,
        bench,
        profile,
        evaluate,
        score,
    ):
        command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    _prepare_streams()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return PIPE_CLOSED
    except (FastGPTError, MemoryError, OSError) as error:
        print(f"fastgpt-c: {error}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, UsageError) else FAILURE


def _run(arguments: Sequence[str] | None) -> int:
    try:
        args = make_parser().parse_args(arguments)
        status: int = args.run(args)
        return status
    finally:
        sys.stdout.flush()  # here, where its errors are caught; also after --help


def _prepare_streams() -> None:
    """A stream that the caller closed is an empty one; what an encoding cannot hold becomes "?" or U+FFFD."""
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _drop_stdout() -> None:
    """Whoever read stdout has gone.  Python flushes once more at exit: let that go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
