"""fastgpt-c: reads the command line, runs the subcommand, and turns exceptions into messages and exit statuses."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

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

exit status:
  0    success
  1    failure: a file, the network, memory, a damaged model, an output that cannot be written; also where lines of
       batch or score are errors
  2    wrong usage: an option, an argument or a text that is not what it has to be
  130  interrupted by Ctrl-C
  141  whoever read standard output has gone
"""

FAILURE, WRONG_USAGE = 1, 2
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF)  # Python does not say what it was writing
PIPE_CLOSED = 141  # as a shell counts processes that SIGPIPE ended


class _Version(argparse.Action):
    """--version looks the version up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import fastgpt_c

        print(f"fastgpt-c {fastgpt_c.__version__}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Help that cannot be written is an error, which argparse drops; so are its subparsers."""

    def print_help(self, file: Any = None) -> None:
        (file or sys.stdout).write(self.format_help())


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
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
        print(f"fastgpt-c: {_words(error)}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, UsageError) else FAILURE


def _run(arguments: Sequence[str] | None) -> int:
    try:
        args = make_parser().parse_args(arguments)
        status: int = args.run(args)
        return status
    finally:
        _flush_stdout()  # here, where its errors are caught; also after --help


def _flush_stdout() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_stdout()
        raise FastGPTError(f"standard output: cannot be written: {error.strerror or error}") from error


def _words(error: BaseException) -> str:
    """Never none: Python's own MemoryError has no text."""
    if isinstance(error, MemoryError):
        return (
            f"not enough memory{f' ({error})' if str(error) else ''}: "
            "give a smaller or a quantized model, fewer tokens at once, or --kv-type f16"
        )
    if isinstance(error, OSError) and error.filename is None and error.errno in _WRITING:
        return f"an output cannot be written: {error.strerror}"
    return str(error) or type(error).__name__


def _prepare_streams() -> None:
    """A closed standard input is an empty one, what would go to a closed standard error goes nowhere, and writing to a
    closed standard output fails.  What an encoding cannot hold becomes "?" or U+FFFD."""
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _drop_stdout() -> None:
    """Whoever read stdout has gone.  Python flushes once more at exit: let that go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
