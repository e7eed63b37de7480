"""Comments and docstrings of this project are plain text in a fixed layout; this makes reStructuredText of them.

    A paragraph begins at the margin, and ends at a blank line or a list.

    name   names and what they mean, as for parameters: two spaces or more stand between them;
           a longer text goes on below itself
    other, names
           a text may begin below its names

A list may be indented.  Anything else that is indented keeps its layout, as a literal block."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable

_URL = r"https?://[^\s)>,;]+[^\s)>,;.]"
_NAMES = r"[*\w]+(?:, [*\w]+)*"


def to_rst(text: str, link: str = r"(?!)", role: str = "any") -> list[str]:
    """Lines of reStructuredText; what matches the pattern `link` becomes a reference of that role."""
    return [line for block in _blocks(textwrap.dedent(text).splitlines()) for line in block.lines(link, role)]


class _Block:
    """A paragraph, a literal block or a list."""

    def __init__(
        self, lines: list[str], items: list[tuple[str, str, list[_Block]]] | None = None, literal: bool = False
    ):
        self.plain, self.items, self.literal = lines, items, literal

    def lines(self, link: str, role: str) -> list[str]:
        if self.literal:
            return [".. code-block:: text", "", *("   " + line for line in self.plain), ""]
        out = [_escape(line, link, role) for line in self.plain]
        for names, text, nested in self.items or []:
            out += ["``" + names + "``", "    " + _escape(text, link, role), ""]
            out += ["    " + line for block in nested for line in block.lines(link, role)]
        return [*out, ""]


def _escape(line: str, link: str, role: str) -> str:
    def replace(found: re.Match[str]) -> str:
        if found["link"]:
            return f":{role}:`{found['link']}`\\ "
        return found["url"] or "\\" + found[0]

    marked = re.sub(rf"(?P<url>{_URL})|\b(?P<link>{link})\b|[\\*`|_]", replace, line)
    return re.sub(r"\\ (?=\s|$)", "", marked)


def _blocks(lines: list[str]) -> list[_Block]:
    out: list[_Block] = []
    i = 0
    while i < len(lines):
        first = i
        if not lines[i].strip():
            i += 1
        elif lines[i].startswith(" "):
            i = _end(lines, i, lambda line: line.startswith(" "))
            inner = textwrap.dedent("\n".join(lines[first:i])).rstrip().splitlines()
            out += _blocks(inner) if _begins_item(inner, 0) else [_Block(inner, literal=True)]
        elif _begins_item(lines, i):
            items, i = _items(lines, i)
            out.append(_Block([], items))
        else:
            i += 1
            while (
                i < len(lines)
                and lines[i].strip()
                and not lines[i].startswith(" ")
                and not _begins_item(lines, i, False)
            ):
                i += 1
            out.append(_Block([line.strip() for line in lines[first:i]]))
    return out


def _end(lines: list[str], i: int, belongs: Callable[[str], bool]) -> int:
    """Behind the lines from i on that belong together; blank ones do, where such a line follows."""
    end = i
    while i < len(lines) and (belongs(lines[i]) or not lines[i].strip()):
        i += 1
        if lines[i - 1].strip():
            end = i
    return end


def _begins_item(lines: list[str], i: int, alone: bool = True) -> bool:
    """Names and a text beside them; or, where they may stand alone, below."""
    if re.match(_NAMES + r" {2,}\S", lines[i]):
        return True
    below = i + 1 < len(lines) and lines[i + 1].startswith("    ")
    return alone and below and re.fullmatch(_NAMES, lines[i]) is not None


def _items(lines: list[str], i: int) -> tuple[list[tuple[str, str, list[_Block]]], int]:
    items = []
    column = 0
    while i < len(lines) and lines[i].strip() and (_begins_item(lines, i) or _fits(lines[i], column)):
        beside = re.match(_NAMES + r" {2,}(?=\S)", lines[i])
        fits = beside or _fits(lines[i], column)
        column = beside.end() if beside else column or _indent(lines[i + 1])
        names, text = (lines[i][:column].rstrip(), lines[i][column:]) if fits else (lines[i], "")
        end = _end(lines, i + 1, lambda line: line.startswith(" "))
        own = i + 1
        while own < end and lines[own].strip() and _indent(lines[own]) >= column:
            text += " " + lines[own].strip()
            own += 1
        nested = textwrap.dedent("\n".join(lines[own:end])).splitlines()
        items.append((names, text.strip(), _blocks(nested)))
        i = end
    return items, i


def _fits(line: str, column: int) -> bool:
    """Whether names and text meet at the column where they met before."""
    return bool(column and line[column:] and re.fullmatch(_NAMES + " +", line[:column]))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
