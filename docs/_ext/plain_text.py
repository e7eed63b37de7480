"""Comments and docstrings of this project are plain text in a fixed layout; this makes reStructuredText of them.

    Paragraphs begin at the margin.

        name   an indented list of names and what they mean, as for parameters;
               a longer text goes on below itself
        other  text

Anything else that is indented keeps its layout, as a literal block."""

from __future__ import annotations

import re
import textwrap

_URL = r"https?://[^\s)>,;]+[^\s)>,;.]"
_ITEM = re.compile(r"([*\w.\[\]<>-]+(?:, [*\w.-]+)*)(?:  +(?=\S)|$)")


def to_rst(text: str, link: str = r"(?!)", role: str = "any") -> list[str]:
    """Lines of reStructuredText; what matches the pattern `link` becomes a reference of that role."""
    lines = [_escape(line, link, role) for line in textwrap.dedent(text).strip("\n").splitlines()]
    return _blocks([line.rstrip() for line in lines])


def _escape(line: str, link: str, role: str) -> str:
    def replace(found: re.Match[str]) -> str:
        if found["url"]:
            return found["url"]
        return f":{role}:`{found['link']}`\\ " if found["link"] else "\0" + found[0]

    marked = re.sub(rf"(?P<url>{_URL})|\b(?P<link>{link})\b|[\\*`|_]", replace, line)
    return re.sub(r"\\ (?=\s|$)", "", marked)


def _finish(line: str) -> str:
    return line.replace("\0", "\\")


def _blocks(lines: list[str]) -> list[str]:
    """Paragraphs and, between them, what is indented."""
    out: list[str] = []
    while lines:
        indented = lines[0].startswith(" ")
        end = next((i for i, line in enumerate(lines) if line and line.startswith(" ") != indented), len(lines))
        block, lines = lines[:end], lines[end:]
        if not indented:
            out += [*map(_finish, block), ""]
            continue
        block = textwrap.dedent("\n".join(block)).strip("\n").splitlines()
        out += _definitions(block) or _literal(block)
    return out


def _literal(block: list[str]) -> list[str]:
    plain = (re.sub(r":[\w:]+:`([^`]+)`(\\ )?", r"\1", line.replace("\0", "")) for line in block)
    return ["::", "", *("    " + line if line else "" for line in plain), ""]


def _definitions(block: list[str]) -> list[str] | None:
    """A definition list, or None where some line at the margin does not begin with names and two spaces."""
    heads = [i for i, line in enumerate(block) if line and not line.startswith(" ")]
    if not all(_ITEM.match(block[i].replace("\0", "")) for i in heads):
        return None
    out: list[str] = []
    for start, end in zip(heads, [*heads[1:], len(block)], strict=True):
        name, _, first = block[start].partition("  ")
        column = len(block[start].replace("\0", "")) - len(first.strip().replace("\0", ""))
        rest = block[start + 1 : end]
        beside = 0
        while beside < len(rest) and (not first or len(rest[beside]) - len(rest[beside].lstrip()) >= column):
            beside += 1
        text = [first.strip(), *(line.strip() for line in rest[:beside])]
        out += ["``" + name.replace("\0", "") + "``", *("    " + _finish(line) for line in text if line)]
        out += ["", *("    " + line for line in _blocks(rest[beside:])), ""]
    return out
