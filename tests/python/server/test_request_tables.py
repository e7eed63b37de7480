"""The tables of request fields: every field of OpenAI's clients is served, read over, or refused, by its name."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from paths import ROOT

from fastgpt_c.batching.parameters import COMPLETION, BadRequest, Table
from fastgpt_c.generation.options import RequestKeywords
from fastgpt_c.server.openapi import POSTS, document
from fastgpt_c.server.parameters import CHAT, COMPLETIONS, EMBEDDINGS

NOT_IN_JSON = {"logits_processor", "control_vector"}  # functions and arrays; a server has names for the latter

OF_OPENAI = [
    (COMPLETIONS, completion_create_params.CompletionCreateParamsBase),
    (COMPLETIONS, completion_create_params.CompletionCreateParamsStreaming),
    (CHAT, chat_create_params.CompletionCreateParamsBase),
    (CHAT, chat_create_params.CompletionCreateParamsStreaming),
    (EMBEDDINGS, embedding_create_params.EmbeddingCreateParams),
]


@pytest.mark.parametrize(("table", "params"), OF_OPENAI, ids=lambda value: getattr(value, "__name__", "table"))
def test_every_field_of_openai_python_is_known(table: Table, params: Any) -> None:
    """None is unknown here: what is not served is read over, or refused with the reason."""
    known = table.parameters.keys() | table.ignored.keys() | table.refused.keys()
    assert params.__annotations__.keys() <= known


def test_a_refused_field_is_named() -> None:
    """With the reason; where it asks for nothing it is no error."""
    assert CHAT.read({"messages": [{"role": "user", "content": "a"}], "tools": [], "audio": None})
    for name, reason in CHAT.refused.items():
        with pytest.raises(BadRequest, match=reason) as caught:
            CHAT.read({"messages": [{"role": "user", "content": "a"}], name: {"x": 1}})
        assert caught.value.param == name


def test_an_unknown_field_is_named() -> None:
    """Even where it is null: a name that is misspelled asks for something."""
    for _, table in POSTS.values():
        with pytest.raises(BadRequest, match="max_token is no parameter") as caught:
            table.read({"max_token": None})
        assert caught.value.param == "max_token"


def test_the_file_reads_what_the_server_reads() -> None:
    """A field of both is one and the same object, but for the limits of the server; a file serves all options that a
    prompt of a batch may have."""
    own = {"prompt", "logprobs", "stop"}
    shared = COMPLETION.parameters.keys() - own
    assert all(COMPLETIONS.parameters[name] is COMPLETION.parameters[name] for name in shared)
    fields = {parameter.field for parameter in COMPLETION.parameters.values()}
    assert fields >= RequestKeywords.__annotations__.keys() - NOT_IN_JSON


def test_the_document_is_made_of_the_tables() -> None:
    """Each path has the fields of its table, and no others."""
    paths = document()["paths"]
    for path, (_, table) in POSTS.items():
        schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["properties"].keys() == table.parameters.keys() | table.ignored.keys()
        assert schema["additionalProperties"] is False


def test_the_page_names_every_field() -> None:
    """docs/serving.md has the served, the ignored and the refused ones of each table."""
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for path, (_, table) in POSTS.items():
        missing = [name for name in (*table.parameters, *table.ignored, *table.refused) if f"`{name}`" not in page]
        assert not missing, path
