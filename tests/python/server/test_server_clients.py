"""Clients, unchanged, against a server: OpenAI's own, and what lm-evaluation-harness asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openai
import pytest
from served import Served

import fastgpt_c
from fastgpt_c.scoring.token_scores import Scorer

MESSAGES: Any = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def client(exact: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{exact.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_completions(client: openai.OpenAI) -> None:
    """At once and as a stream: one text, and one usage."""
    body: Any = {"model": "any", "prompt": "Once upon a time", "max_tokens": 20, "seed": 1, "logprobs": 2}
    whole = client.completions.create(**body)
    events = list(client.completions.create(**body, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.text for event in events for choice in event.choices) == whole.choices[0].text
    assert whole.usage is not None and events[-1].usage is not None
    assert events[-1].usage.total_tokens == whole.usage.total_tokens
    assert whole.choices[0].logprobs is not None and len(whole.choices[0].logprobs.tokens or ()) == 20


def test_chats(client: openai.OpenAI) -> None:
    """Likewise; the helper for streams puts a message together."""
    body: Any = {"model": "any", "messages": MESSAGES, "max_completion_tokens": 20, "seed": 1}
    whole = client.chat.completions.create(**body)
    events = list(client.chat.completions.create(**body, stream=True))
    assert "".join(event.choices[0].delta.content or "" for event in events) == whole.choices[0].message.content
    with client.chat.completions.stream(**body, extra_body={"regex": "yes|no"}) as stream:
        assert stream.get_final_completion().choices[0].message.content in ("yes", "no")


def test_async(exact: Served) -> None:
    """Many at once, each its own text."""

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{exact.url}/v1", api_key="none", max_retries=0) as made:

            async def one(seed: int) -> str:
                stream = await made.completions.create(model="", prompt="Once", max_tokens=9, seed=seed, stream=True)
                return "".join([event.choices[0].text async for event in stream])

            return await asyncio.gather(*(one(seed) for seed in (1, 2, 1, 2)))

    with ThreadPoolExecutor(1) as thread:  # the loop of a browser may run in this one
        first, second, *again = thread.submit(asyncio.run, ask()).result()
    assert again == [first, second] and first != second


def test_embeddings(client: openai.OpenAI) -> None:
    """Those of Model.embed, as base64, which the client asks for by itself, and as floats."""
    texts = ["Once upon a time", "The wolf"]
    packed = client.embeddings.create(model="any", input=texts)
    plain = client.embeddings.create(model="any", input=texts, encoding_format="float")
    with fastgpt_c.load() as model:
        expected = [model.embed(text) for text in texts]
    for answer in (packed, plain):
        assert [one.index for one in answer.data] == [0, 1]
        np.testing.assert_allclose([one.embedding for one in answer.data], expected, rtol=1e-5, atol=1e-6)
    assert packed.usage.prompt_tokens == 6


def test_models_and_errors(client: openai.OpenAI) -> None:
    """A list of one, and errors of the client's own classes, with the field."""
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id).id == model.id == "fastgpt-demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="any", prompt="a", logprobs=21)
    assert caught.value.param == "logprobs"


def test_what_lm_evaluation_harness_asks(exact: Served) -> None:
    """local-completions: echoed log-probabilities of a continuation sum to a scorer's, and are greedy where it is."""
    with fastgpt_c.load() as model, Scorer(model) as scorer:
        texts = ["Once upon a time, there was", "Once upon a time, there was a", "The wolf said moon", "Tom and Lily"]
        pairs = [(tokens[:2], tokens[2:]) for tokens in map(model.encode, texts)]
        expected = [scorer.after(context, tokens) for context, tokens in pairs]
    prompts = [[*context, *tokens] for context, tokens in pairs]
    asked = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True, "model": "any"}
    answer = exact.post("/v1/completions", prompt=prompts, **asked)
    for (context, _), choice, scores in zip(pairs, answer["choices"], expected, strict=True):
        lists = choice["logprobs"]
        logprobs = lists["token_logprobs"][len(context) : -1]
        tops = lists["top_logprobs"][len(context) : -1]
        assert sum(logprobs) == pytest.approx(scores.total, abs=1e-4)
        assert all(own == max(top.values()) for own, top in zip(logprobs, tops, strict=True)) == scores.greedy
    assert {scores.greedy for scores in expected} == {True, False}
