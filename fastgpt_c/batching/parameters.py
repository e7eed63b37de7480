"""The fields of a JSON request, as OpenAI names them: one table for lines of a batch file and for requests over HTTP.

A table says of each name whether it is served, read over, or refused; what a value must be is said once, by the options
of native/arguments.py.  The server's document of its interface is made from the same tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastgpt_c.batching.requests import MOST_SAMPLES
from fastgpt_c.native.arguments import OPTIONS, Kind, Refused, integer, shown

JSON = dict[str, Any]


class BadRequest(Exception):
    """What is wrong with a request; param names the field, if it is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


Read = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Parameter:
    """A field of a request.

    name    in JSON
    field   what it is called from there on: a field of Options, or one that the caller reads
    read    (name, value) -> the value as it is stored; raises BadRequest
    schema  what JSON Schema can say of its values
    about   a line for the documentation
    """

    name: str
    field: str
    read: Read
    schema: Mapping[str, Any]
    about: str
    required: bool = False


class Table:
    """The fields of one kind of request.

    ignored  names that are read over, with the reason
    refused  names that are known and not served, with the reason; null, false and what is empty ask for nothing
    """

    def __init__(
        self, *parameters: Parameter, ignored: Mapping[str, str] = {}, refused: Mapping[str, str] = {}
    ) -> None:
        self.parameters = {parameter.name: parameter for parameter in parameters}
        self.ignored, self.refused = dict(ignored), dict(refused)

    def read(self, body: Mapping[str, Any]) -> JSON:
        """The values of a request by field, without those that ask for nothing.  Raises BadRequest."""
        values: JSON = {}
        for name, value in body.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                self._check_other(name, value)
            elif not (value is None or (value is False and parameter.schema.get("type") != "boolean")):
                self._note(values, parameter, parameter.read(name, value))
        for parameter in self.parameters.values():
            if parameter.required and parameter.field not in values:
                raise BadRequest(f"{parameter.name} is missing", parameter.name)
        return values

    def _check_other(self, name: str, value: Any) -> None:
        if name in self.ignored:
            return
        if name in self.refused:
            if value:
                raise BadRequest(f"{name} is not served here: {self.refused[name]}", name)
            return
        raise BadRequest(f"{name} is no parameter here; those are {', '.join(sorted(self.parameters))}", name)

    def _note(self, values: JSON, parameter: Parameter, value: Any) -> None:
        if value is None:
            return
        if parameter.field in values:
            names = [other.name for other in self.parameters.values() if other.field == parameter.field]
            raise BadRequest(f"give one of {', '.join(names)}", parameter.name)
        values[parameter.field] = value

    def schema(self) -> JSON:
        """JSON Schema of its requests."""
        properties = {
            name: {"description": parameter.about, **_nullable(parameter)}
            for name, parameter in self.parameters.items()
        }
        properties |= {name: {"description": f"Read over: {why}."} for name, why in self.ignored.items()}
        required = [name for name, parameter in self.parameters.items() if parameter.required]
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return schema | ({"required": required} if required else {})


def _nullable(parameter: Parameter) -> Mapping[str, Any]:
    """null asks for nothing wherever a field may be left out."""
    if parameter.required or "type" not in parameter.schema:
        return parameter.schema
    schema = {**parameter.schema, "type": [*_as_list(parameter.schema["type"]), "null"]}
    return schema | {"enum": [*schema["enum"], None]} if "enum" in schema else schema


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


# ---- Values ------------------------------------------------------------------------------------------------

_ENGLISH = {"integer": "an integer", "number": "a number", "string": "text", "boolean": "true or false"}
_TYPES: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "string": (str,), "boolean": (bool,)}


def read_kind(kind: Kind, name: str, value: Any) -> Any:
    """A value of the JSON type and range of kind: JSON's true is no number, and 1.0 no integer."""
    wanted = kind.schema.get("type")
    if wanted in _TYPES and type(value) not in _TYPES[wanted]:
        raise BadRequest(f"{name} is not {_ENGLISH[wanted]}", name)
    try:
        return kind.read(value)
    except Refused as refused:
        raise BadRequest(str(refused) or f"{name} is {shown(value)}, not {kind.says}", name) from None


def parameter_of(name: str, kind: Kind, about: str, field: str | None = None, *, required: bool = False) -> Parameter:
    """A field whose values are those of kind."""
    return Parameter(name, field or name, partial(read_kind, kind), kind.schema, about, required)


def option(name: str, about: str, field: str | None = None) -> Parameter:
    """An option of native/arguments.py, under its own name or another one."""
    return parameter_of(name, OPTIONS[field or name], about, field)


def _read_stop(name: str, value: Any) -> Any:
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(one, str) for one in strings):
        raise BadRequest("stop is neither text nor a list of texts", name)
    return read_kind(OPTIONS["stop"], name, strings)


def _read_bias(name: str, value: Any) -> dict[int, float]:
    try:
        if any(isinstance(bias, bool) for bias in value.values()):
            raise ValueError
        bias = {int(token): float(bias) for token, bias in value.items()}
        OPTIONS["logit_bias"].read(bias)
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise BadRequest('logit_bias is not an object such as {"50256": -100}', name) from None
    except Refused as refused:
        raise BadRequest(str(refused), name) from None
    return bias


def _read_prompt(name: str, value: Any) -> str | list[int]:
    if isinstance(value, str) or is_token_row(value):
        return value  # type: ignore[no-any-return]
    raise BadRequest("prompt is neither text nor a list of token ids", name)


def is_token_row(value: Any) -> bool:
    """Whether value is a list of integers."""
    return isinstance(value, list) and all(type(token) is int for token in value)


def _read_schema(name: str, value: Any) -> Any:
    if isinstance(value, dict | str):
        return value
    raise BadRequest(f"{name} is not a JSON schema, as an object or as text", name)


def _read_response_format(name: str, value: Any) -> Any:
    """The JSON schema that it stands for; None for plain text."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema" and isinstance(value.get("json_schema"), dict):
        return _read_schema("response_format.json_schema.schema", value["json_schema"].get("schema"))
    raise BadRequest(
        'response_format is not {"type": "text"}, {"type": "json_object"} or '
        '{"type": "json_schema", "json_schema": {"schema": ...}}',
        name,
    )


# ---- /v1/completions ---------------------------------------------------------------------------------------

TOKEN_ROW = {"type": "array", "items": {"type": "integer", "minimum": 0}}
PROMPT = Parameter(
    "prompt", "prompt", _read_prompt, {"anyOf": [{"type": "string"}, TOKEN_ROW]}, "text, or token ids", required=True
)
N = parameter_of("n", integer(1, MOST_SAMPLES), "texts for each prompt; each draws from a seed of its own")

_STOP_SCHEMA = {
    "anyOf": [
        {"type": "null"},
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}},
    ]
}
_BIAS_SCHEMA = {
    "type": "object",
    "propertyNames": {"pattern": "^[0-9]{1,9}$"},
    "additionalProperties": {"type": "number"},
}
_FORMAT_SCHEMA = {"type": "object", "required": ["type"]}

MAX_TOKENS = option("max_tokens", "tokens of the text at most", "max_new_tokens")
STOP = Parameter("stop", "stop", _read_stop, _STOP_SCHEMA, "ends the text before any of these appears")
LOGPROBS = option("logprobs", "k: log-probabilities of the tokens, and of the k likeliest in each place")
LOGIT_BIAS = Parameter("logit_bias", "logit_bias", _read_bias, _BIAS_SCHEMA, "{token id: number added to its logit}")

# What a request may say of how its text is drawn, besides these.
_DRAWING = {
    "temperature": "logits are divided by it; 0 = always the likeliest token",
    "top_p": "only the likeliest tokens that sum to this probability",
    "seed": "the same seed draws the same text",
    "frequency_penalty": "taken from a token's logit for each time that the text has it",
    "presence_penalty": "taken from the logit of each token that the text has",
    "repetition_penalty": "above 1, tokens of the prompt and the text are less likely",
    "no_repeat_ngram_size": "no so many tokens in a row come twice",
    "min_new_tokens": "no end of text before so many tokens",
    "top_k": "only the k likeliest tokens; 0 = all",
    "min_p": "only tokens so many times as likely as the likeliest",
    "typical_p": "only tokens about as surprising as expected that sum to this",
    "top_n_sigma": "only logits so many standard deviations below the largest",
    "mirostat_tau": "bits of surprise to keep a token near",
    "mirostat_eta": "how fast mirostat learns",
    "ignore_eos": "an end-of-text token does not end the text",
    "on_overflow": "when prompt and max_tokens exceed n_ctx: error, truncate (the prompt) or slide",
}
DRAWING = tuple(option(name, about) for name, about in _DRAWING.items())

CONSTRAINTS = (
    option("regex", "the text matches this regular expression"),
    option("grammar", "the text matches this grammar, in Lark's notation"),
    Parameter(
        "json_schema", "json_schema", _read_schema, {"type": ["object", "string"]}, "the text is JSON of this schema"
    ),
    Parameter(
        "response_format", "json_schema", _read_response_format, _FORMAT_SCHEMA,
        "text, json_object, or json_schema with a schema",
    ),
)  # fmt: skip

NOT_NEEDED = {"model": "the server has one", "user": "nobody is counted by name"}

# The body of a line of a batch file.
COMPLETION = Table(
    PROMPT, MAX_TOKENS, N, STOP, LOGPROBS, LOGIT_BIAS, *DRAWING, *CONSTRAINTS, ignored=NOT_NEEDED,
    refused=dict.fromkeys(("stream", "stream_options", "echo", "best_of"), "only the server answers it")
    | {"control_vector": "for all lines of a file, give fastgpt-c batch --control-vector FILE"}
    | {"suffix": "the model continues texts, and fills no gaps"},
)  # fmt: skip


def changed(parameter: Parameter, **changes: Any) -> Parameter:
    """The same field with other properties."""
    return replace(parameter, **changes)


# ---- JSON --------------------------------------------------------------------------------------------------


def json_object(data: bytes) -> JSON:
    """The object that data spells, in UTF-8.  Raises BadRequest."""

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # also what is not UTF-8
        raise BadRequest(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("not a JSON object")
    return value
