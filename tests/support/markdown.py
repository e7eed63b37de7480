"""Code blocks and links of the project's Markdown pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paths import ROOT

_FENCE = re.compile(r"^(?P<ticks>`{3,})(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=ticks) *$", re.DOTALL | re.MULTILINE)
_NOTES = re.compile(r"<!--(?P<note>(?:(?!-->).)*)-->\s*\Z", re.DOTALL)


@dataclass
class Block:
    """
    language  "python", "sh" ...; "" for what is only shown, such as output
    code      its lines
    line      of the page, where the code begins
    not_run   why it does not run here; "" = it does
    file      where the text says that the block is kept; "" = nowhere
    """

    language: str
    code: str
    line: int
    not_run: str = ""
    file: str = ""


def pages() -> list[Path]:
    """README.md and the pages of docs/: what users read."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def pages_for_developers() -> list[Path]:
    """The other pages beside README.md, and those of the folders of source."""
    folders = (ROOT / folder for folder in ("csrc", "fastgpt_c", "examples"))
    beside = (page for page in ROOT.glob("*.md") if page.name != "README.md")
    return sorted([*beside, *(page for folder in folders for page in folder.rglob("*.md"))])


def blocks(page: Path) -> Iterator[Block]:
    """Comments above a block may say <!-- not run: why --> or <!-- file: NAME -->."""
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        line = text.count("\n", 0, fence.start("code")) + 1
        block = Block(fence["language"].strip(), fence["code"], line)
        above = text[: fence.start()]
        while note := _NOTES.search(above):
            kind, _, value = note["note"].strip().partition(":")
            if kind in ("not run", "file"):
                setattr(block, kind.replace(" ", "_"), value.strip())
            above = above[: note.start()]
        yield block


def links(page: Path) -> list[str]:
    """Targets of links and pictures, outside of code."""
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text(encoding="utf-8")))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<(https?:[^>]+)>", text)


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, by GitHub's rule."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
