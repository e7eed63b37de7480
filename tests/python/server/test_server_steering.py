"""control_vector in requests: the texts are those of the library with the vectors that the names stand for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import SCRIPT
from served import Served, serving

import fastgpt_c
from fastgpt_c import ControlVector, patching
from fastgpt_c.server.openapi import document

PROMPT = "Once upon a time, there was a little"
GREEDY: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 16, "temperature": 0}


@pytest.fixture(scope="module")
def demo() -> Iterator[fastgpt_c.Model]:
    with fastgpt_c.load() as model:
        yield model


@pytest.fixture(scope="module")
def vectors(demo: fastgpt_c.Model) -> dict[str, ControlVector]:
    pairs = [("The girl was very sad", "The girl was very happy"), ("Tim began to cry", "Tim began to laugh")]
    generator = np.random.default_rng(5)
    return {
        "sad": patching.control_vector(demo, pairs, [3]),
        "odd": ControlVector({layer: generator.normal(0, 0.3, demo.n_embd) for layer in (2, 3)}),
    }


@pytest.fixture(scope="module")
def steering(vectors: dict[str, ControlVector], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("vectors")
    options: list[str | Path] = ["--deterministic", "--max-batch", "4"]
    for name, vector in vectors.items():
        patching.save_control_vector(folder / f"{name}.gguf", vector)
        options += ["--control-vector", f"{name}={folder / name}.gguf"]
    with serving(*options) as server:
        yield server


def test_texts_are_the_librarys(steering: Served, demo: fastgpt_c.Model, vectors: dict[str, ControlVector]) -> None:
    """One vector, one turned round, two added, one named twice, none; each steers its own request alone."""
    sad, odd = vectors["sad"], vectors["odd"]
    cases: list[tuple[Any, ControlVector | None]] = [
        ({"name": "sad", "strength": 5}, sad.times(5)),
        ({"name": "sad", "strength": -5}, sad.times(-5)),
        ([{"name": "sad", "strength": 4}, {"name": "odd"}], sad.times(4).plus(odd)),
        ([{"name": "sad", "strength": 2}, {"name": "sad", "strength": 3}], sad.times(5)),
        ([], None),
        (None, None),
    ]
    expected = [
        demo.generate(PROMPT, max_new_tokens=16, temperature=0, deterministic=True, control_vector=vector).text
        for _, vector in cases
    ]
    assert len({*expected}) == 4
    for (chosen, _), text in zip(cases, expected, strict=True):
        choice = steering.post("/v1/completions", **GREEDY, control_vector=chosen)["choices"][0]
        assert choice["text"] == text, chosen
        events = steering.events("/v1/completions", **GREEDY, control_vector=chosen)[:-1]
        assert "".join(event["choices"][0]["text"] for event in events) == text, chosen


def test_chats_are_steered(steering: Served) -> None:
    """As a completion of the same tokens is."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 12, "temperature": 0}
    chosen = {"name": "sad", "strength": 6}
    texts = [
        steering.post("/v1/chat/completions", **body, control_vector=vector)["choices"][0]["message"]["content"]
        for vector in (chosen, None)
    ]
    prompt = "User: Hello!\nAssistant:"
    plain = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "stop": ["\nUser:"]}
    assert texts[0] == steering.post("/v1/completions", **plain, control_vector=chosen)["choices"][0]["text"]
    assert texts[0] != texts[1]


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"name": "glad"}, "control_vector", "'glad' here; there are odd, sad"),
        ("sad", "control_vector", "not an object such as"),
        ({"strength": 2}, "control_vector", "not an object such as"),
        ({"name": "sad", "layer": 2}, "control_vector", "not an object such as"),
        ([{"name": "sad"}, 3], "control_vector[1]", "not an object such as"),
        ({"name": 3}, "control_vector.name", "not text"),
        ({"name": "sad", "strength": "2"}, "control_vector.strength", "not a number"),
        ({"name": "sad", "strength": 1e9}, "control_vector.strength", "not a number in [-1000, 1000]"),
        ([{"name": "sad", "strength": 600}] * 2, "control_vector[1].strength", "not a number in [-1000, 1000]"),
    ],
)
def test_what_cannot_steer_is_named(steering: Served, value: Any, field: str, words: str) -> None:
    status, _, data = steering.request("POST", "/v1/completions", {**GREEDY, "control_vector": value})
    error = json.loads(data)["error"]
    assert status == 400 and error["param"] == field and words in error["message"], error


def test_strong_vectors_harm_nobody(steering: Served) -> None:
    """The text is nonsense, and the next one is not."""
    before = steering.post("/v1/completions", **GREEDY)["choices"][0]["text"]
    for strength in (1000, -1000):
        steering.post("/v1/completions", **GREEDY, control_vector={"name": "odd", "strength": strength})
    assert steering.post("/v1/completions", **GREEDY)["choices"][0]["text"] == before


def test_echoed_scores_are_refused(steering: Served) -> None:
    """A prompt's log-probabilities would be those of the model without the vector."""
    body = {**GREEDY, "echo": True, "logprobs": 0, "control_vector": {"name": "sad"}}
    status, _, data = steering.request("POST", "/v1/completions", body)
    assert status == 400 and json.loads(data)["error"]["param"] == "control_vector"


def test_a_server_without_any_says_so(served: Served) -> None:
    status, _, data = served.request("POST", "/v1/completions", {**GREEDY, "control_vector": {"name": "sad"}})
    assert status == 400 and "without any" in json.loads(data)["error"]["message"]


def test_the_document_has_the_field() -> None:
    for path in ("/v1/completions", "/v1/chat/completions"):
        schema = document()["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["properties"]["control_vector"]["anyOf"][1]["required"] == ["name"]


def test_files_that_fit_no_model_end_the_start(tmp_path: Path, vectors: dict[str, ControlVector]) -> None:
    """With the name of the vector; so do two of one name, and a name without a file."""
    patching.save_control_vector(tmp_path / "short.gguf", ControlVector({1: [1.0, 2.0]}))
    patching.save_control_vector(tmp_path / "sad.gguf", vectors["sad"])
    short, sad = f"short={tmp_path}/short.gguf", f"sad={tmp_path}/sad.gguf"
    for options, words in (
        ([short], "short: the control vector has 2 numbers a layer"),
        ([sad, sad], "two files have the name 'sad'"),
        (["sad.gguf"], "is not NAME=FILE"),
        (["sad=none.gguf"], "none.gguf"),
    ):
        given = [word for option in options for word in ("--control-vector", option)]
        done = subprocess.run([*SCRIPT, "serve", "--port", "0", *given], capture_output=True, text=True, timeout=60)
        assert done.returncode in (1, 2) and words in done.stderr, (options, done)
