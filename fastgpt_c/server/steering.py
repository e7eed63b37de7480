"""control_vector: which of the operator's control vectors steer the texts of a request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

from fastgpt_c.batching.parameters import BadRequest, Parameter, read_kind
from fastgpt_c.engine.control_vector import ControlVector
from fastgpt_c.native.arguments import TEXT, number

FIELD = "control_vector"
MOST_STRENGTH = 1000.0
STRENGTH = number(-MOST_STRENGTH, MOST_STRENGTH)

_ONE = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "strength": dict(STRENGTH.schema)},
    "additionalProperties": False,
}
_SCHEMA = {"anyOf": [{"type": "null"}, _ONE, {"type": "array", "items": _ONE}]}


def _read(name: str, value: Any) -> dict[str, float] | None:
    """{name: strength}, those of one name added; None for none."""
    strengths: dict[str, float] = {}
    for i, one in enumerate(value if isinstance(value, list) else [value]):
        where = f"{name}[{i}]" if isinstance(value, list) else name
        if not isinstance(one, dict) or not {"name"} <= one.keys() <= {"name", "strength"}:
            raise BadRequest(f'{where} is not an object such as {{"name": "sad", "strength": 2}}', where)
        chosen = read_kind(TEXT, f"{where}.name", one["name"])
        strength = read_kind(STRENGTH, f"{where}.strength", one.get("strength", 1))
        strengths[chosen] = read_kind(STRENGTH, f"{where}.strength", strengths.get(chosen, 0) + strength)
    return strengths or None


CONTROL_VECTOR = Parameter(
    FIELD, FIELD, _read, _SCHEMA, "name of one of the server's control vectors, and its strength (1); or a list of such"
)


def steered(options: Mapping[str, Any], vectors: Mapping[str, ControlVector]) -> dict[str, Any]:
    """options with the sum of the vectors that they name.  Raises BadRequest for a name that there is not."""
    strengths: dict[str, float] = options.get(FIELD) or {}
    if not strengths:
        return dict(options)
    for name in strengths:
        if name not in vectors:
            there = f"there are {', '.join(sorted(vectors))}" if vectors else "the server was started without any"
            raise BadRequest(f"{FIELD}: there is no control vector {name!r} here; {there}", FIELD)
    return {**options, FIELD: reduce(ControlVector.plus, [vectors[name].times(s) for name, s in strengths.items()])}
