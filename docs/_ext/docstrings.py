"""Lets autodoc read this project's docstrings, which are plain text in the layout of plain_text."""

from __future__ import annotations

from plain_text import to_rst
from sphinx.application import Sphinx


def _convert(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = to_rst("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _convert)
    return {"parallel_read_safe": True}
