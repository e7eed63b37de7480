"""Lines of JSON objects, from people and programs that make mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from fastgpt_c.errors import UsageError
from fastgpt_c.io.lines import numbered_lines

Record = dict[str, Any]

MOST_BYTES = 2**24  # of a line: what it takes in memory is many times that


def records(stream: BinaryIO) -> Iterator[tuple[int, Record | UsageError]]:
    """The number of each line that is not blank, from 1, and its object, or what is wrong with it."""
    for number, line in numbered_lines(stream, MOST_BYTES):
        if len(line) > MOST_BYTES:
            yield number, UsageError(f"the line has more than {MOST_BYTES:,} bytes")
        elif line.strip():
            yield number, _object(line)


def _object(line: bytes) -> Record | UsageError:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeError as error:
        return UsageError(f"the line is not UTF-8: {error}")
    except (ValueError, RecursionError) as error:
        return UsageError(f"the line is not JSON: {error}")
    return value if isinstance(value, dict) else UsageError(f"the line is {type(value).__name__}, not a JSON object")
