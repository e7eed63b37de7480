"""fastgpt-c: reads the command line, runs the subcommand, and turns exceptions into messages and exit statuses."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

from fastgpt_c.cli.commands import make_parser, parser_of
from fastgpt_c.cli.interrupt import INTERRUPTED
from fastgpt_c.cli.option_rules import check_rules
from fastgpt_c.errors import FastGPTError, UsageError

FAILURE, WRONG_USAGE = 1, 2
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF)  # Python does not say what it was writing
_REASONS = {
    errno.ENOENT: "there is no such file or folder",
    errno.EISDIR: "is a folder, not a file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EACCES: "you may not read or write it: permission denied",
}
PIPE_CLOSED = 141  # as a shell counts processes that SIGPIPE ended


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
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words:
            raise UsageError("a COMMAND is missing; see fastgpt-c --help")
        if words[0] in ("-h", "--help"):
            make_parser().print_help()
            return 0
        command = "version" if words[0] == "--version" else words[0]
        parser = parser_of(command)
        args = parser.parse(words[1:])
        check_rules(command, parser, args)
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
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        what = _REASONS.get(error.errno or 0, error.strerror[:1].lower() + error.strerror[1:])
        return f"{os.fsdecode(error.filename)}: {what}"
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


__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    sys.exit(main())
