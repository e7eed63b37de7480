"""--control-vector: files that steer what a model writes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fastgpt_c.errors import UsageError

if TYPE_CHECKING:
    from fastgpt_c.engine.control_vector import ControlVector


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "steering",
        "A direction is added to the residual stream of layers, at every position.  Python's patching.control_vector "
        "and save_control_vector make such files.",
    )
    group.add_argument(
        "--control-vector", action="append", type=_scaled, default=[], metavar="FILE[=STRENGTH]",
        help="a control vector as llama.cpp has them, times STRENGTH (1); below 0 = the other way; repeatable",
    )  # fmt: skip
    group.add_argument(
        "--control-vector-layer-range", type=int, nargs=2, metavar=("FIRST", "LAST"),
        help="of these layers alone, both included; they count from 0 (all)",
    )  # fmt: skip


def _scaled(text: str) -> tuple[str, float]:
    """FILE or FILE=STRENGTH; what is no number behind the last = belongs to the name."""
    name, equals, strength = text.rpartition("=")
    try:
        return (name, float(strength)) if equals else (text, 1.0)
    except ValueError:
        return text, 1.0


def control_vector_of(args: argparse.Namespace) -> ControlVector | None:
    """The sum of what was given, in the layers that were given; None where nothing was."""
    if not args.control_vector:
        return None
    from functools import reduce

    from fastgpt_c.engine.control_vector import ControlVector
    from fastgpt_c.patching.control_vector_file import load_control_vector

    whole = reduce(ControlVector.plus, [load_control_vector(*one) for one in args.control_vector])
    if args.control_vector_layer_range is None:
        return whole
    first, last = args.control_vector_layer_range
    try:
        return whole.within(first, last)
    except UsageError as error:
        raise UsageError(f"--control-vector-layer-range: {error}") from error


def add_named_option(group: argparse._ArgumentGroup) -> None:
    """Of a server, whose requests choose."""
    group.add_argument(
        "--control-vector", action="append", type=_named, default=[], metavar="NAME=FILE",
        help="a control vector as llama.cpp has them, for requests that name it; repeatable",
    )  # fmt: skip


def _named(text: str) -> tuple[str, str]:
    name, _, file = text.partition("=")
    if not name or not file:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE, such as sad=sad.gguf")
    return name, file


def named_control_vectors_of(args: argparse.Namespace) -> dict[str, ControlVector]:
    """By name."""
    if not args.control_vector:
        return {}
    from fastgpt_c.patching.control_vector_file import load_control_vector

    vectors: dict[str, ControlVector] = {}
    for name, file in args.control_vector:
        if name in vectors:
            raise UsageError(f"--control-vector: two files have the name {name!r}: give each its own")
        vectors[name] = load_control_vector(file)
    return vectors
