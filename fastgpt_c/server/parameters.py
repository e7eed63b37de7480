"""What each endpoint reads: tables of the fields of its requests.

The first, of /v1/completions, is that of a batch file with the fields that only a server can answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastgpt_c.batching.parameters import (
    COMPLETION,
    LOGPROBS,
    MAX_TOKENS,
    NOT_NEEDED,
    PROMPT,
    STOP,
    TOKEN_ROW,
    BadRequest,
    Parameter,
    Table,
    changed,
    is_token_row,
    option,
    parameter_of,
    read_kind,
)
from fastgpt_c.native.arguments import FLAG, TEXT, integer, one_of, optional, shown
from fastgpt_c.server.steering import CONTROL_VECTOR

MOST_TOP, MOST_STOPS = 20, 4
MOST_SAMPLES = COMPLETION.parameters["n"].schema["maximum"]
_TEXT_OR_ROW = [{"type": "string"}, TOKEN_ROW]


# ---- Values ----


def _read_prompts(name: str, value: Any) -> list[str | list[int]]:
    """Text, ids, or a list of either -> a list of either."""
    if isinstance(value, str) or (value and is_token_row(value)):
        return [value]
    if isinstance(value, list) and value and (all(isinstance(one, str) for one in value) or _are_rows(value)):
        return value
    raise BadRequest(f"{name} is neither text, nor token ids, nor a list with some of either", name)


def _are_rows(values: list[Any]) -> bool:
    return all(is_token_row(value) for value in values)


_PROMPTS_SCHEMA = {"anyOf": [*_TEXT_OR_ROW, *({"type": "array", "minItems": 1, "items": one} for one in _TEXT_OR_ROW)]}


def _read_stop(name: str, value: Any) -> Any:
    stop = STOP.read(name, value)
    if len(stop) > MOST_STOPS:
        raise BadRequest(f"stop has {len(stop)} texts, more than {MOST_STOPS}", name)
    return stop


def _read_stream_options(name: str, value: Any) -> bool:
    """Whether usage is wanted."""
    if not isinstance(value, dict) or not value.keys() <= {"include_usage", "include_obfuscation"}:
        raise BadRequest('stream_options is not an object such as {"include_usage": true}', name)
    return bool(read_kind(FLAG, "stream_options.include_usage", value.get("include_usage") or False))


def _read_messages(name: str, value: Any) -> list[dict[str, Any]]:
    """Each with its content as one text."""
    if not isinstance(value, list) or not value:
        raise BadRequest("messages is not a list of messages", name)
    return [_read_message(f"messages[{i}]", message) for i, message in enumerate(value)]


ROLES = ("system", "developer", "user", "assistant")


def _read_message(name: str, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise BadRequest(f"{name} is not a message whose role is one of {', '.join(ROLES)}", name)
    for key, value in message.items():
        if value and key not in ("role", "content", "name"):
            raise BadRequest(f"{name}.{key} is not served here: messages are text", f"{name}.{key}")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_read_part(f"{name}.content[{i}]", part) for i, part in enumerate(content))
    if not isinstance(content, str):
        raise BadRequest(f"{name}.content is neither text nor a list of text parts", f"{name}.content")
    role = "system" if message["role"] == "developer" else message["role"]
    return {"role": role, "content": content}


def _read_part(name: str, part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise BadRequest(f'{name} is not {{"type": "text", "text": ...}}: this model reads text alone', name)


_MESSAGES_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": list(ROLES)}, "content": {"anyOf": [{"type": "string"}, {"type": "array"}]}},
    },
}


def _read_row(name: str, value: Any) -> list[int]:
    if is_token_row(value):
        return value  # type: ignore[no-any-return]
    raise BadRequest(f"{name} is not a list of token ids", name)


def _only(name: str, harmless: Sequence[Any], about: str) -> Parameter:
    """A field that is served where it asks for nothing special."""

    def read(_: str, value: Any) -> None:
        if value and value not in harmless:
            raise BadRequest(f"{name} is {shown(value)}, and only {shown(harmless[0])} is served: {about}", name)

    return Parameter(name, name, read, {}, f"only {json.dumps(harmless[0])}: {about}")


# ---- Tables ----

STREAM = parameter_of("stream", FLAG, "the text comes piece by piece, as server-sent events")
STREAM_OPTIONS = Parameter(
    "stream_options",
    "include_usage",
    _read_stream_options,
    {"type": "object"},
    "include_usage: one more event",
)
_STOP = changed(STOP, read=_read_stop, schema={**STOP.schema, "description": f"at most {MOST_STOPS}"})
_LOGPROBS = parameter_of("logprobs", optional(integer(0, MOST_TOP)), LOGPROBS.about)
_PROMPTS = changed(
    PROMPT, field="prompts", read=_read_prompts, schema=_PROMPTS_SCHEMA, about="text, token ids, or lists of either"
)

_SHARED = {**COMPLETION.parameters, "stop": _STOP, "stream": STREAM, "stream_options": STREAM_OPTIONS,
           "control_vector": CONTROL_VECTOR}  # fmt: skip
_COMPLETIONS = {
    **_SHARED,
    "prompt": _PROMPTS,
    "logprobs": _LOGPROBS,
    "best_of": parameter_of("best_of", integer(1, MOST_SAMPLES), "so many texts, of which the n likeliest are kept"),
    "return_token_ids": parameter_of("return_token_ids", FLAG, "token_ids of the text, too"),
    "echo": parameter_of("echo", FLAG, "the prompt stands before the text, with its log-probabilities"),
}
COMPLETIONS = Table(
    *_COMPLETIONS.values(), ignored=NOT_NEEDED, refused={"suffix": COMPLETION.refused["suffix"]}
)  # fmt: skip

_NO_TOOLS = "the model calls no tools"
_NO_MEDIA = "the model reads and writes text alone"
_CHAT = {name: parameter for name, parameter in _SHARED.items() if name not in ("prompt", "logprobs")} | {
    "messages": Parameter("messages", "messages", _read_messages, _MESSAGES_SCHEMA, "the turns so far", required=True),
    "max_tokens": MAX_TOKENS,
    "max_completion_tokens": option("max_completion_tokens", "the newer name of max_tokens", "max_new_tokens"),
    "logprobs": parameter_of("logprobs", FLAG, "log-probabilities of the tokens", "wants_logprobs"),
    "tool_choice": _only("tool_choice", ("none", "auto"), _NO_TOOLS),
    "function_call": _only("function_call", ("none", "auto"), _NO_TOOLS),
    "modalities": _only("modalities", (["text"],), _NO_MEDIA),
    "top_logprobs": parameter_of("top_logprobs", integer(0, MOST_TOP), "and those of the k likeliest in each place"),
}
CHAT = Table(
    *_CHAT.values(),
    ignored=NOT_NEEDED
    | {
        "metadata": "nothing is stored",
        "store": "nothing is stored",
        "prompt_cache_key": "prefixes are found by themselves",
        "prompt_cache_options": "prefixes are found by themselves",
        "prompt_cache_retention": "prefixes are found by themselves",
        "safety_identifier": "nobody is counted by name",
        "service_tier": "there is one",
        "parallel_tool_calls": "there are no tools",
        "reasoning_effort": "the model does not reason",
        "verbosity": "max_tokens says how long a text may be",
    },
    refused={
        "tools": _NO_TOOLS, "functions": _NO_TOOLS, "audio": _NO_MEDIA, "web_search_options": "there is no search",
        "prediction": "nothing is predicted by clients", "moderation": "there is no moderation",
    },
)  # fmt: skip

EMBEDDINGS = Table(
    changed(_PROMPTS, name="input", field="inputs"),
    parameter_of("encoding_format", one_of("float", "base64"), "base64: of little-endian 32-bit floats"),
    parameter_of("pooling", one_of("last", "mean"), "of the last token, which has seen all others, or the mean of all"),
    ignored=NOT_NEEDED,
    refused={"dimensions": "a vector has n_embd numbers"},
)

_TEXT = optional(TEXT)
TOKENIZE = Table(
    parameter_of("prompt", _TEXT, "the text", "text"),
    parameter_of("content", _TEXT, "the text, as llama.cpp calls it", "text"),
    parameter_of("return_token_strs", FLAG, "the text of each token, too", "with_texts"),
    parameter_of("with_pieces", FLAG, "the id and text of each token, as llama.cpp gives them"),
    parameter_of("parse_special", FLAG, "false takes <|endoftext|> and the like as literal text (true)", "special"),
    ignored={"model": "the server has one", "add_special_tokens": "the model's tokenizer adds none",
             "add_special": "the model's tokenizer adds none"},
)  # fmt: skip
DETOKENIZE = Table(
    Parameter("tokens", "tokens", _read_row, TOKEN_ROW, "token ids", required=True),
    ignored={"model": "the server has one"},
)

_INSPECTED = changed(PROMPT, about="text or token ids, of which there may be 512", schema={"anyOf": _TEXT_OR_ROW})
SCORE = Table(
    _INSPECTED,
    parameter_of("top_k", integer(0, MOST_TOP), "the k likeliest tokens in each place, too"),
    parameter_of("bos", FLAG, "begin with the end-of-text token, so that the first token has a score as well"),
    ignored=NOT_NEEDED,
)
LOOKS = ("scores", "lens", "attention", "next", "parts", "time")


def _read_looks(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value or any(one not in LOOKS for one in value):
        raise BadRequest(f"{name} is {shown(value)}, not a list with some of {', '.join(LOOKS)}", name)
    return list(dict.fromkeys(value))


def _read_token(name: str, value: Any) -> str | int:
    """An id, or a text of one token."""
    if type(value) is int or isinstance(value, str):
        return value
    raise BadRequest(f"{name} is neither a token id nor the text of a token", name)


_TOKEN_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}
INSPECT = Table(
    _INSPECTED,
    Parameter(
        "include", "include", _read_looks, {"type": "array", "minItems": 1, "items": {"enum": list(LOOKS)}},
        "what to tell; everything where nothing is said",
    ),
    parameter_of("top_k", integer(0, MOST_TOP), "of scores: the k likeliest tokens in each place (10)"),
    Parameter("answer", "answer", _read_token, _TOKEN_SCHEMA, "of parts: whose logit; the likeliest next token"),
    Parameter("against", "against", _read_token, _TOKEN_SCHEMA, "of parts: less the logit of this token"),
    ignored=NOT_NEEDED,
)  # fmt: skip
