"""The lines of a batch: requests in, records out, in the format of OpenAI's Batch API for /v1/completions.

    {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Once", "max_tokens": 20}}
    {"prompt": "Once", "max_tokens": 20}                            the short form; custom_id may stand in it, too

Format: https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from fastgpt_c.batching.requests import MOST_SAMPLES, derived_seed
from fastgpt_c.engine.log_probs import TokenLogProb
from fastgpt_c.generation.completion import Completion
from fastgpt_c.generation.options import Options, RequestKeywords

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

URL = "/v1/completions"
MOST_CHARACTERS = 500  # characters of an error message

# OpenAI's names of fields of Options; all others have the same name there and here.
RENAMED = {"max_tokens": "max_new_tokens"}

# Accepted, without effect.
IGNORED = ("model", "user")


class LineError(Exception):
    """What is wrong with a line; param names the parameter, if it is one."""

    def __init__(self, message: str, param: str | None = None, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.param, self.custom_id = param, custom_id


@dataclass(frozen=True)
class Line:
    """A request.

    number     of the line in its file, from 1
    custom_id  "line-NUMBER" where it has none
    prompt     text or token ids
    n          choices, each of them a text of its own
    changes    fields of Options
    """

    number: int
    custom_id: str
    prompt: str | list[int]
    n: int
    changes: dict[str, Any]


# ---- In ----------------------------------------------------------------------------------------------------


def parse(data: bytes, number: int) -> Line:
    """Line number -> its request; raises LineError."""
    line = _json_object(data)
    custom_id = line.pop("custom_id", None)
    if custom_id is None:
        custom_id = f"line-{number}"
    if not isinstance(custom_id, str):
        raise LineError("custom_id is not a string", "custom_id")
    try:
        body = _body(line)
        return Line(number, custom_id, _prompt(body), _n(body), _changes(body))
    except LineError as error:
        error.custom_id = custom_id
        raise


def _json_object(data: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    try:
        line = json.loads(data.decode("utf-8-sig"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # also what is not UTF-8
        raise LineError(f"not JSON: {error}") from None
    if not isinstance(line, dict):
        raise LineError("not a JSON object")
    return line


def _body(line: dict[str, Any]) -> dict[str, Any]:
    """The prompt and its parameters, of either form."""
    if "body" not in line:
        if "prompt" not in line:
            raise LineError('has neither "body" nor "prompt"')
        return line
    body, url, method = line.pop("body"), line.pop("url", URL), line.pop("method", "POST")
    if line:
        raise LineError(f"{next(iter(line))} is no part of a line with a body", next(iter(line)))
    if not isinstance(body, dict):
        raise LineError("body is not a JSON object", "body")
    if url != URL or method != "POST":
        raise LineError(f"{method} {url} is not served here; POST {URL} is", "url")
    return body


def _prompt(body: dict[str, Any]) -> str | list[int]:
    prompt = body.pop("prompt", None)
    if isinstance(prompt, str) or (isinstance(prompt, list) and all(type(token) is int for token in prompt)):
        return prompt
    raise LineError("prompt is neither text nor a list of token ids", "prompt")


def _n(body: dict[str, Any]) -> int:
    n = body.pop("n", None)
    n = 1 if n is None else _checked("n", n, int)
    if not 1 <= n <= MOST_SAMPLES:
        raise LineError(f"n is {n}, not in [1, {MOST_SAMPLES}]", "n")
    return n


def _changes(body: Mapping[str, Any]) -> dict[str, Any]:
    changes = {}
    for name, value in body.items():
        if value is None or value is False or name in IGNORED:
            continue  # nothing is asked for
        field = RENAMED.get(name, name)
        if field not in _TYPES:
            known = sorted({*_TYPES, *RENAMED, "n"} - set(RENAMED.values()))
            raise LineError(f"{name} is no parameter here; those are {', '.join(known)}", name)
        changes[field] = _PARSERS.get(field, _checked)(name, value, _TYPES[field])
    return changes


def _checked(name: str, value: Any, wanted: type) -> Any:
    """value, if it has that JSON type; its range is checked later, by Options and Sampler."""
    if type(value) is wanted or (wanted is float and type(value) is int):
        return value
    raise LineError(f"{name} is not {_ENGLISH[wanted]}", name)


def _stop(name: str, value: Any, _: type) -> Sequence[str]:
    stop = [value] if isinstance(value, str) else value
    if isinstance(stop, list) and all(isinstance(one, str) for one in stop):
        return stop
    raise LineError("stop is neither text nor a list of texts", name)


def _logit_bias(name: str, value: Any, _: type) -> dict[int, float]:
    try:
        return {int(token): float(_checked(name, bias, float)) for token, bias in value.items()}
    except (AttributeError, ValueError, OverflowError, LineError):
        raise LineError('logit_bias is not an object such as {"50256": -100}', name) from None


_ENGLISH = {int: "an integer", float: "a number", str: "text"}
_PARSERS = {"stop": _stop, "logit_bias": _logit_bias}


def _types() -> dict[str, type]:
    """The fields of Options that a line may set, with their JSON types."""
    own = {field.name: type(field.default) for field in fields(Options) if field.default is not MISSING}
    plain = {name: kind for name, kind in own.items() if kind in _ENGLISH and name in RequestKeywords.__annotations__}
    return plain | {"seed": int, "logprobs": int, "stop": str, "logit_bias": dict}


_TYPES = _types()


# ---- Seed --------------------------------------------------------------------------------------------------


def seed_of(line: Line, base: int) -> int:
    """The line's own seed, or one made of base and custom_id: neither its place in the file nor the run matters."""
    seed: int | None = line.changes.get("seed")
    return derived_seed(base, line.custom_id) if seed is None else seed


# ---- Out ---------------------------------------------------------------------------------------------------

RECORD_BEGIN = b'{"id": "batch_req_'


def completion_record(line: Line, model: LoadedModel, completions: Sequence[Completion]) -> bytes:
    """The record of a request that went well, a line; completions are those of model."""
    number = _request_number(line.custom_id)
    n_prompt, n_new = completions[0].n_prompt, sum(len(completion.tokens) for completion in completions)
    body = {
        "id": f"cmpl-{number}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model.name or model.path.name,
        "choices": [_choice(i, completion, model) for i, completion in enumerate(completions)],
        "usage": {"prompt_tokens": n_prompt, "completion_tokens": n_new, "total_tokens": n_prompt + n_new},
    }
    response = {"status_code": 200, "request_id": f"req_{number}", "body": body}
    return _record(number, line.custom_id, response, None)


def _choice(index: int, completion: Completion, model: LoadedModel) -> dict[str, Any]:
    return {
        "index": index,
        "text": completion.text,
        "logprobs": None if completion.logprobs is None else _logprobs(completion.logprobs, model),
        "finish_reason": "length" if completion.finish_reason == "length" else "stop",
        "seed": completion.seed,
    }


def _logprobs(rows: Sequence[TokenLogProb], model: LoadedModel) -> dict[str, Any]:
    """Four lists with an element for each token; text_offset counts the characters that are complete before it."""
    decoder = model.tokenizer.stream() if model.has_tokenizer else None
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + (len(decoder.push(row.token)) if decoder else 0))
    return {
        "tokens": [_token_text(row.token, model) for row in rows],
        "token_logprobs": [row.logprob for row in rows],
        "top_logprobs": [_top_logprobs(row, model) for row in rows],
        "text_offset": offsets[:-1],
    }


def _top_logprobs(row: TokenLogProb, model: LoadedModel) -> dict[str, float]:
    """By text, likeliest first; with the token itself, as OpenAI does, so there may be one more than asked for.  Of
    tokens with the same text the likeliest counts."""
    values: dict[str, float] = {}
    for token, logprob in (*row.top, (row.token, row.logprob)):
        values.setdefault(_token_text(token, model), logprob)
    return values


def _token_text(token: int, model: LoadedModel) -> str:
    """As OpenAI writes tokens; "token_id:5" for a model without tokenizer."""
    if not model.has_tokenizer:
        return f"token_id:{token}"
    data = model.tokenizer.decode_bytes([token])
    try:
        return data.decode()
    except UnicodeDecodeError:  # a part of a character
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def error_record(number: int, custom_id: str | None, message: str, param: str | None = None) -> bytes:
    """The record of a line that failed; custom_id None where the line has none that can be told from another's."""
    error = {
        "code": "invalid_request",
        "message": f"line {number}: {_shortened(message)}",
        "param": param and _shortened(param),
        "line": number,
    }
    return _record(_request_number(custom_id or f"line {number}"), custom_id, None, error)


def _shortened(text: str) -> str:
    """Cuts messages, which may quote megabytes of a line."""
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "..."


def _request_number(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _record(number: str, custom_id: str | None, response: Any, error: Any) -> bytes:
    record = {"id": f"batch_req_{number}", "custom_id": custom_id, "response": response, "error": error}
    # A lone surrogate, which JSON can hold and UTF-8 cannot, becomes JSON's escape for it.
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
