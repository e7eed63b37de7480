"""The parser of every command: errors in one line that name what is nearest, names that other programs use, and help as
wide as the terminal."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from fastgpt_c.cli.foreign_names import OPTIONS, VALUES
from fastgpt_c.errors import UsageError

NARROWEST, WIDEST = 60, 200  # columns

_OPTION = re.compile(r"--?[A-Za-z][\w-]*")
_ROW = re.compile(r" *\S.*?  +(?=\S)")  # what stands before the text of a row, such as an option

# argparse's words -> ours.
_REWORDED = (
    (r"argument (?=[^ ]*: )", ""),
    (r"argument (?=[^ ]*/)", ""),
    (r"expected one argument$", "a value is missing"),
    (r"expected (\d+) arguments$", r"\1 values are missing"),
    (r"the following arguments are required: ", "missing: "),
)


def terminal_width(without: int = 80) -> int:
    """Columns for help and tables, from 60 to 200; `without` where there is no terminal and COLUMNS is not set."""
    return min(max(shutil.get_terminal_size((without, 24)).columns, NARROWEST), WIDEST)


def nearest(word: str, names: Iterable[str]) -> str:
    """The clause that names what was probably meant, or nothing."""
    from difflib import get_close_matches  # not before an error

    found = get_close_matches(word, list(names), 1, cutoff=0.7)
    return f"; did you mean {found[0]}?" if found else ""


def row(label: str, text: str) -> str:
    """label and text, in as many lines of the terminal's width as it takes; a word is never cut."""
    import textwrap

    room = max(terminal_width(WIDEST) - len(label), 1)
    lines = textwrap.wrap(
        text, room, break_long_words=False, break_on_hyphens=False, drop_whitespace=True, replace_whitespace=False
    )
    return label + ("\n" + " " * len(label)).join(lines)


def fold(text: str, width: int) -> str:
    """text in lines of at most width columns where words allow it.  Lines at the margin are paragraphs; an indented one
    is a row, and goes on in those below that are indented deeper."""
    return "\n\n".join("\n".join(_fold_block(block, width)) for block in text.strip("\n").split("\n\n"))


def _fold_block(block: str, width: int) -> Iterator[str]:
    """The lines of a block, which has no blank ones."""
    import textwrap

    for row in _rows(block):
        begin = _ROW.match(row) if row.startswith(" ") else None
        indent = len(row) - len(row.lstrip())
        hanging = len(begin[0]) if begin and len(begin[0]) < width // 2 else indent + 4 * bool(indent)
        yield textwrap.fill(row, width, subsequent_indent=" " * hanging, break_long_words=False, break_on_hyphens=False)


def _rows(block: str) -> list[str]:
    rows: list[str] = []
    first = 0  # columns before the first line of the row
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        goes_on = rows and (indent > first if first else not indent and not rows[-1].endswith(":"))
        if goes_on:
            rows[-1] += " " + line.strip()
        else:
            rows.append(line)
            first = indent
    return rows


class Formatter(argparse.HelpFormatter):
    """Keeps the paragraphs and rows of descriptions and epilogs."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=terminal_width() - 2)

    def format_help(self) -> str:
        """In a narrow terminal, the lines of the usage begin at the left."""
        usage, gap, rest = super().format_help().partition("\n\n")
        if max(map(len, usage.splitlines()), default=0) > terminal_width():
            usage = re.sub(r"\n +", "\n  ", usage)
        return usage + gap + rest

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line if line else "" for line in fold(text, width - len(indent)).splitlines())


def whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """What reads one of names, in small letters or capitals, or as another program calls it."""

    def read(text: str) -> str:
        small = text.lower()
        found = small if small in names else VALUES.get(small, small)
        if found not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}{nearest(small, names)}")
        return found

    return read


class Parser(argparse.ArgumentParser):
    """Of a command, or of fastgpt-c itself."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": Formatter} | settings)
        self.register("type", int, whole_number)
        self.register("type", float, number)

    def print_help(self, file: Any = None) -> None:
        """Help that cannot be written is an error, which argparse drops."""
        (file or sys.stdout).write(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Raises UsageError, in one line that says where to read on."""
        for theirs, ours in _REWORDED:
            message = re.sub(theirs, ours, message)
        raise UsageError(f"{message}{'' if message.endswith('?') else ';'} see {self.prog} --help")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments behind the name of the command.  given in it is the set of options that were there."""
        defaults = self._take_defaults()
        args, rest = self.parse_known_args(list(self._understood(words)))
        if rest:
            self._refuse(args, rest)
        args.given = frozenset(defaults.keys() & vars(args).keys() - self._defaults.keys())
        for name, value in defaults.items():
            if not hasattr(args, name):
                setattr(args, name, value)
        return args

    def _take_defaults(self) -> dict[str, Any]:
        """Those of options, by name: taken from argparse, which would not tell them from what was given."""
        defaults = {}
        for action in self._actions:
            if action.choices is not None and action.type is None:
                action.type = one_of(list(action.choices))
            if action.option_strings and action.default is not argparse.SUPPRESS:
                defaults[action.dest], action.default = action.default, argparse.SUPPRESS
        return defaults

    def option_of(self, name: str) -> str:
        """The longest name of the option, or the one of the argument, whose value is called that."""
        action = next(action for action in self._actions if action.dest == name)
        return max(action.option_strings, key=len) if action.option_strings else str(action.metavar)

    def _understood(self, words: Sequence[str]) -> Iterator[str]:
        """The words with options as they are called here."""
        for i, word in enumerate(words):
            if word == "--":
                yield from words[i:]
                return
            name, equals, value = word.partition("=")
            is_option = _OPTION.fullmatch(name) and name not in self._option_string_actions
            yield self._name_here(name) + equals + value if is_option else word

    def _name_here(self, theirs: str) -> str:
        """What an option is called here that has another name.  Underscores are as good as dashes."""
        name = theirs.replace("_", "-")
        answer = OPTIONS.get(name, "")
        if name in self._option_string_actions or not answer:
            return name
        if not answer.startswith("-"):
            self.error(f"{theirs}: {answer}")
        found = [option for option in answer.split() if option in self._option_string_actions]
        return found[0] if found else name

    def _refuse(self, args: argparse.Namespace, rest: list[str]) -> NoReturn:
        """rest is what no option and no argument takes."""
        names = [word.partition("=")[0] for word in rest if len(word) > 1 and word.startswith("-")]
        if names:
            hint = nearest(names[0].replace("_", "-"), self._option_string_actions)
            self.error(f"there is no option {names[0]} here{hint}")
        text = getattr(args, "text", None)
        if text is None:
            self.error(f"one argument too many: {rest[0]!r}")
        self.error(f'a text of several words is one argument: quote it, as in {self.prog} "{" ".join([text, *rest])}"')
