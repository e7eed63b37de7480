"""The lines of a batch: requests in, records out, in the format of OpenAI's Batch API for /v1/completions.

    {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Once", "max_tokens": 20}}
    {"prompt": "Once", "max_tokens": 20}                            the short form; custom_id may stand in it, too

Format: https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastgpt_c.batching.openai_choices import choice, usage
from fastgpt_c.batching.parameters import COMPLETION, BadRequest, json_object
from fastgpt_c.batching.requests import derived_seed
from fastgpt_c.generation.completion import Completion

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

URL = "/v1/completions"
MOST_CHARACTERS = 500  # characters of an error message


class LineError(BadRequest):
    """What is wrong with a line; param names the parameter, if it is one."""

    def __init__(self, message: str, param: str | None = None, custom_id: str | None = None) -> None:
        super().__init__(message, param)
        self.custom_id = custom_id


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
    custom_id = None
    try:
        line = json_object(data)
        given = line.pop("custom_id", None)
        if not isinstance(given, str | None):
            raise BadRequest("custom_id is not a string", "custom_id")
        custom_id = f"line-{number}" if given is None else given
        values = COMPLETION.read(_body(line))
        return Line(number, custom_id, values.pop("prompt"), values.pop("n", 1), values)
    except BadRequest as error:
        raise LineError(str(error), error.param, custom_id) from None


def _body(line: dict[str, Any]) -> dict[str, Any]:
    """The prompt and its parameters, of either form."""
    if "body" not in line:
        if "prompt" not in line:
            raise BadRequest('has neither "body" nor "prompt"')
        return line
    body, url, method = line.pop("body"), line.pop("url", URL), line.pop("method", "POST")
    if line:
        raise BadRequest(f"{next(iter(line))} is no part of a line with a body", next(iter(line)))
    if not isinstance(body, dict):
        raise BadRequest("body is not a JSON object", "body")
    if url != URL or method != "POST":
        raise BadRequest(f"{method} {url} is not served here; POST {URL} is", "url")
    return body


# ---- Seed --------------------------------------------------------------------------------------------------


def seed_of(line: Line, base: int) -> int:
    """The line's own seed, or one made of base and custom_id: neither its place in the file nor the run matters."""
    seed: int | None = line.changes.get("seed")
    return derived_seed(base, line.custom_id) if seed is None else seed


# ---- Out ---------------------------------------------------------------------------------------------------

RECORD_BEGIN = b'{"id": "batch_req_'


def record_time() -> int:
    """Seconds since 1970 that records bear: now, or the environment's SOURCE_DATE_EPOCH
    (https://reproducible-builds.org/specs/source-date-epoch/), with which two runs write the same bytes."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given) if given.isascii() and given.isdigit() else int(time.time())


def completion_record(
    line: Line, model: LoadedModel, completions: Sequence[Completion], created: int | None = None
) -> bytes:
    """The record of a request that went well, a line; completions are those of model, and created is None for now."""
    number = _request_number(line.custom_id)
    body = {
        "id": f"cmpl-{number}",
        "object": "text_completion",
        "created": record_time() if created is None else created,
        "model": model.name or model.path.name,
        "choices": [choice(i, completion, model) for i, completion in enumerate(completions)],
        "usage": usage(completions[0].n_prompt, sum(len(completion.tokens) for completion in completions)),
    }
    response = {"status_code": 200, "request_id": f"req_{number}", "body": body}
    return _record(number, line.custom_id, response, None)


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
