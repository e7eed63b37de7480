"""Constraints and logits processors in a batch: each text is what it is alone, and a faulty one fails alone."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import fastgpt_c
from fastgpt_c import Request
from fastgpt_c.batching.ragged_step import RaggedStep
from fastgpt_c.errors import FastGPTError, UsageError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def demo() -> fastgpt_c.Model:
    return fastgpt_c.load()


def no_vowels(tokens: Sequence[int], logits: Any) -> None:
    """In place, and depending on the text so far: bans one token more with every token."""
    logits[: 40 + len(tokens)] = -np.inf


def halved(_: Sequence[int], logits: Any) -> Any:
    """As another array, of another type."""
    return logits.astype(np.float64) / 2


CHANGES: list[dict[str, Any]] = [
    {"regex": r" [A-Z][a-z]{1,9}( and [A-Z][a-z]+)*\."},
    {"json_schema": SCHEMA},
    {"grammar": 'start: " the " ("cat" | "dog") ("s" | "") /[ a-z]*/ "!"'},
    {"logits_processor": no_vowels},
    {"logits_processor": halved},
    {"logits_processor": no_vowels, "regex": "[ a-z]+"},
    {},
]


@pytest.mark.parametrize("max_batch", [1, 5, 28])
def test_each_is_what_it_is_alone(demo: fastgpt_c.Model, max_batch: int) -> None:
    """To the token and the log-probability, which stay the model's own; texts match, or begin a match."""
    settings: dict[str, Any] = {"deterministic": True, "temperature": 1.5, "top_p": 1.0, "max_new_tokens": 30}
    requests = [
        Request(prompt, seed=seed, logprobs=2, stop=[" and B"] if seed == 1 else None, **changes)
        for (seed, prompt), changes in itertools.product(enumerate(("Once upon a time", "A dog:")), CHANGES)
    ]
    together = demo.generate_batch(requests, max_batch=max_batch, **settings)
    for request, one in zip(requests, together, strict=True):
        alone = demo.generate(request.prompt, **settings, **request.changes)
        assert (one.text, one.tokens, one.finish_reason) == (alone.text, alone.tokens, alone.finish_reason)
        assert one.logprobs == alone.logprobs
        if "regex" in request.changes and one.finish_reason == "stop" and not request.changes["stop"]:
            assert re.fullmatch(request.changes["regex"], one.text)
        if "json_schema" in request.changes and one.finish_reason == "stop":
            assert set(json.loads(one.text)) == {"name", "age"}


def raising(_: Sequence[int], __: Any) -> None:
    raise KeyError("mine")


def nothing_left(_: Sequence[int], logits: Any) -> None:
    logits[:] = -np.inf


FAULTS: list[tuple[dict[str, Any], type[FastGPTError], str]] = [
    ({"regex": "("}, UsageError, "regex"),
    ({"logits_processor": raising}, FastGPTError, "logits processor raised KeyError: 'mine'"),
    ({"logits_processor": lambda _, logits: logits[:5]}, UsageError, "shape"),
    ({"logits_processor": nothing_left}, UsageError, "logits processor leaves no token"),
    ({"regex": "a", "logit_bias": dict.fromkeys(range(4096), -np.inf)}, UsageError, "banned by regex and logit_bias"),
]


@pytest.mark.parametrize(("changes", "kind", "words"), FAULTS, ids=[words for _, _, words in FAULTS])
def test_a_fault_stays_where_it_is(
    demo: fastgpt_c.Model, changes: dict[str, Any], kind: type[FastGPTError], words: str
) -> None:
    """The neighbours have the texts that they have without it."""
    settings: dict[str, Any] = {"deterministic": True, "max_new_tokens": 6, "seed": 3}
    results = dict(demo.stream_batch(["Tom", Request("Lily", **changes), "Ben"], **settings))
    assert isinstance(results[1], kind) and words in str(results[1])
    for i, prompt in ((0, "Tom"), (2, "Ben")):
        assert results[i].text == demo.generate(prompt, **settings).text  # type: ignore[union-attr]


def test_processors_see_the_text_so_far(random_model: fastgpt_c.Model) -> None:
    """The tokens that a lone run shows, also where the text slides beyond n_ctx."""
    settings: dict[str, Any] = {"max_new_tokens": 60, "on_overflow": "slide", "temperature": 0, "deterministic": True}

    def seen_by(generate: Any) -> list[list[int]]:
        seen: list[list[int]] = []
        generate(lambda tokens, _: seen.append(list(tokens)))
        return seen

    alone = seen_by(lambda processor: random_model.generate([5, 6, 7], logits_processor=processor, **settings))
    batch = seen_by(
        lambda processor: random_model.generate_batch(
            [[9], Request([5, 6, 7], logits_processor=processor), [8, 1]], **settings
        )
    )
    assert batch == alone and len(alone) == 60


def test_masks_are_asked_for_only_where_tokens_are_drawn(
    long_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt that is read in many steps calls its processor once, after the last of them."""
    n_steps = itertools.count()
    run = RaggedStep.run

    def counted(self: RaggedStep, *what: Any) -> None:
        next(n_steps)
        run(self, *what)

    monkeypatch.setattr(RaggedStep, "run", counted)
    calls: list[int] = []
    request = Request(list(range(90)) * 10, logits_processor=lambda tokens, _: calls.append(len(tokens)))
    long_model.generate_batch([[1], request], max_new_tokens=3, prefill_chunk=100)
    assert calls == [900, 901, 902] and next(n_steps) > 4
