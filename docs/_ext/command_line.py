"""The directive command-reference: every subcommand of an argparse parser, and its options as entries of Sphinx."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator

from docutils import nodes
from plain_text import to_rst
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class CommandReference(SphinxDirective):
    """.. command-reference:: module:function that makes the parser"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, function = self.arguments[0].partition(":")
        parser = getattr(importlib.import_module(module), function)()
        text = "\n".join(line for command in _commands(parser) for line in _section(command))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from dict.fromkeys(action.choices.values())


def _section(parser: argparse.ArgumentParser) -> list[str]:
    name = parser.prog.split()[-1]
    usage = re.sub(r"^usage: ", "", parser.format_usage())
    usage = re.sub(r"\n +", "\n    ", usage).splitlines()
    out = [name, "-" * len(name), "", *to_rst(parser.description or "")]
    out += [".. code-block:: text", "", *("   " + line for line in usage), ""]
    out += [f".. program:: {parser.prog}", ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if "-h" not in action.option_strings]
        if not actions:
            continue
        if group.title not in ("options", "positional arguments"):
            out += [f".. rubric:: {group.title}", "", *to_rst(group.description or "")]
        for action in actions:
            out += _option(action, parser)
    return [*out, *_epilog(parser.epilog or "")]


def _option(action: argparse.Action, parser: argparse.ArgumentParser) -> list[str]:
    formatter = parser.formatter_class(parser.prog)
    names = formatter._format_action_invocation(action)
    text = formatter._expand_help(action) if action.help else ""
    return [f".. option:: {names}", "", *("   " + line for line in to_rst(text)), ""]


def _epilog(text: str) -> list[str]:
    """Its examples are shell lines."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if block.startswith("examples:"):
            lines = [line.strip() for line in block.splitlines()[1:]]
            out += [".. code-block:: sh", "", *("   " + line for line in lines), ""]
        else:
            out += to_rst(block) if block.strip() else []
    return out


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-reference", CommandReference)
    return {"parallel_read_safe": True}
