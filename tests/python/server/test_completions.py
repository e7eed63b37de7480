"""/v1/completions and /v1/chat/completions: what is streamed is what is not, and both are what the library gives."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from served import Served, serving

import fastgpt_c

PROMPTS = ["Once upon a time", "The wolf said", "Lily and Tom"]


@pytest.fixture(scope="module")
def demo() -> Any:
    with fastgpt_c.load() as model:
        yield model


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "Once upon a time", "max_tokens": 40, "seed": 1},
        {"prompt": "Once upon a time", "max_tokens": 60, "seed": 2, "stop": [".", "girl"]},
        {"prompt": PROMPTS, "n": 2, "max_tokens": 12, "seed": 3, "logprobs": 2},
        {"prompt": "The wolf said", "max_tokens": 8, "seed": 4, "echo": True, "logprobs": 1},
        {"prompt": [[12, 401], [287]], "max_tokens": 8, "seed": 5, "echo": True},
        {"prompt": "a", "max_tokens": 8, "logit_bias": {str(token): 40 for token in range(188, 256)}, "seed": 5},
        {"prompt": "x", "max_tokens": 20, "regex": "[ab]{1,6}", "seed": 6, "logprobs": 0},
    ],
    ids=["plain", "stop", "many", "echo", "ids", "bytes", "regex"],
)
def test_the_pieces_of_a_stream_join(exact: Served, body: dict[str, Any]) -> None:
    """To the text, the log-probabilities and the usage of the answer in one piece; each text ends once, and the usage
    comes last, alone."""
    whole = exact.post("/v1/completions", **body)
    *events, counted, done = exact.events("/v1/completions", **body, stream_options={"include_usage": True})
    assert done == "[DONE]" and counted["choices"] == [] and counted["usage"]["completion_tokens"] > 0
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert counted["usage"][name] == whole["usage"][name]
    assert all(event["usage"] is None for event in events)
    assert {event["id"] for event in events} == {counted["id"]}
    pieces = [choice for event in events for choice in event["choices"]]
    for choice in whole["choices"]:
        own = [piece for piece in pieces if piece["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in own) == choice["text"]
        assert [piece["finish_reason"] for piece in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] == choice["finish_reason"] and own[-1]["seed"] == choice["seed"]
        lists = [piece["logprobs"] for piece in own if piece["logprobs"] is not None]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset") if choice["logprobs"] else ():
            assert [value for one in lists for value in one[name]] == choice["logprobs"][name]


def test_the_texts_are_the_librarys(exact: Served, demo: Any) -> None:
    """Of a deterministic batch with the same seed; text i of a prompt draws as its sample i."""
    answer = exact.post("/v1/completions", prompt=PROMPTS, n=2, max_tokens=15, seed=7, temperature=0.8, top_p=0.95)
    expected = demo.generate_batch(PROMPTS, n=2, max_new_tokens=15, seed=7, deterministic=True)
    assert [choice["text"] for choice in answer["choices"]] == [completion.text for completion in expected]
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert answer["usage"]["prompt_tokens"] == sum(completion.n_prompt for completion in expected[::2])


def test_echoed_log_probabilities_are_those_of_score(served: Served, demo: Any) -> None:
    """Null first, then the model's own, each the same float among the likeliest; offsets count characters."""
    text = "Once upon a time, there was a café"
    answer = served.post("/v1/completions", prompt=text, max_tokens=1, echo=True, logprobs=5, temperature=0)
    choice, scores = answer["choices"][0], demo.score(text, top_k=5)
    found = choice["logprobs"]
    assert choice["text"].startswith(text)
    assert found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
    n = len(scores)
    assert len(found["tokens"]) == n + 1
    assert found["token_logprobs"][1:n] == pytest.approx(scores.logprobs[1:].tolist(), abs=1e-4)
    lists = [found[key][1:] for key in ("token_logprobs", "tokens", "top_logprobs")]
    for logprob, name, top in zip(*lists, strict=True):
        assert top[name] == logprob and max(top.values()) >= logprob
    assert found["text_offset"][0] == 0 and found["text_offset"][n] == len(text)
    plain = served.post("/v1/completions", prompt=text, max_tokens=1, logprobs=0, temperature=0)["choices"][0]
    assert plain["logprobs"]["text_offset"] == [len(text)]


def test_tokens_that_are_no_characters_have_names_of_their_own(served: Served) -> None:
    """Parts of a character are spelled as bytes, and the text never has half a character."""
    emoji = "A 😀"
    answer = served.post("/v1/completions", prompt=emoji, max_tokens=0, echo=True, logprobs=0)["choices"][0]
    names = answer["logprobs"]["tokens"]
    assert any(name.startswith("bytes:\\x") for name in names) and answer["text"] == emoji


def test_best_of_keeps_the_likeliest(exact: Served) -> None:
    """The n of best_of texts with the largest mean log-probability, likeliest first; all of them count as written."""
    body = {"prompt": "The wolf said", "max_tokens": 10, "seed": 3, "temperature": 1.5}
    all_of_them = exact.post("/v1/completions", **body, n=6, logprobs=0)["choices"]
    best = exact.post("/v1/completions", **body, n=2, best_of=6)
    means = {one["text"]: _mean(one["logprobs"]["token_logprobs"]) for one in all_of_them}
    assert [one["text"] for one in best["choices"]] == sorted(means, key=means.__getitem__, reverse=True)[:2]
    assert all(one["logprobs"] is None for one in best["choices"])
    assert best["usage"]["completion_tokens"] == 60


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def test_a_seed_draws_one_text(exact: Served) -> None:
    """The same again, and every answer says which seed it drew from."""
    body = {"prompt": "Once", "max_tokens": 12}
    first = exact.post("/v1/completions", **body)["choices"][0]
    again = exact.post("/v1/completions", **body, seed=first["seed"])["choices"][0]
    assert again == first


def test_ignored_and_empty(served: Served) -> None:
    """model and user are read over, null asks for nothing, and an empty prompt begins a text."""
    answer = served.post("/v1/completions", model="gpt-4", user="me", prompt="", max_tokens=3, suffix=None, echo=False)
    assert answer["model"] == "fastgpt-demo" and answer["usage"]["prompt_tokens"] == 1


def test_constraints_hold_beside_each_other(served: Served) -> None:
    """Each text of a step matches its own."""
    age = {"type": "integer", "minimum": 0, "maximum": 9}
    schema = {"type": "object", "properties": {"age": age}, "required": ["age"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = served.post("/v1/completions", prompt=["a", "b"], max_tokens=30, response_format=form, n=2)
    assert all(0 <= json.loads(choice["text"])["age"] <= 9 for choice in answer["choices"])


# ---- Chat ----

MESSAGES = [{"role": "system", "content": "A talk."}, {"role": "user", "content": "Who are you?"}]


def test_the_pieces_of_a_chat_join(exact: Served) -> None:
    """The role comes first, and the log-probabilities are the same."""
    body = {"messages": MESSAGES, "max_tokens": 12, "seed": 1, "logprobs": True, "top_logprobs": 2, "n": 2}
    whole = exact.post("/v1/chat/completions", **body)
    *events, done = exact.events("/v1/chat/completions", **body)
    assert done == "[DONE]" and all("usage" not in event for event in events)
    for choice in whole["choices"]:
        own = [one for event in events for one in event["choices"] if one["index"] == choice["index"]]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(one["delta"].get("content", "") for one in own) == choice["message"]["content"]
        rows = [row for one in own if one["logprobs"] for row in one["logprobs"]["content"]]
        assert rows == choice["logprobs"]["content"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]


def test_a_chat_is_the_prompt_that_its_template_makes(exact: Served) -> None:
    """A model without a template gets what fastgpt-c chat writes, and its answer ends where the user's turn begins."""
    chat = exact.post("/v1/chat/completions", messages=MESSAGES, max_tokens=9, seed=5)
    text = "A talk.\n\nUser: Who are you?\nAssistant:"
    plain = exact.post("/v1/completions", prompt=text, max_tokens=9, seed=5, stop="\nUser:")
    assert chat["choices"][0]["message"]["content"] == plain["choices"][0]["text"]
    parts = [{"role": "user", "content": [{"type": "text", "text": "Who are"}, {"type": "text", "text": " you?"}]}]
    answer = exact.post("/v1/chat/completions", messages=[MESSAGES[0], *parts], max_completion_tokens=9, seed=5)
    assert answer["choices"][0]["message"] == chat["choices"][0]["message"]


def test_templates_of_strangers_are_kept_in_a_sandbox(tmp_path: Any) -> None:
    """They render, refuse messages, and reach neither Python's objects nor much memory; and no message spells a special
    token."""
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% if messages[0].content == 'out' %}{{ ''.__class__.__mro__[1].__subclasses__() }}{% endif %}"
        "{% if messages[0].content == 'big' %}{{ 'a' * 10**9 }}{% endif %}"
        "{% if messages[0].content == 'long' %}{% for i in range(10**9) %}a{% endfor %}{% endif %}"
        "{% if messages[0].content == 'no' %}{{ raise_exception('not that') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    with serving("--chat-template", template) as server:

        def ask(content: str) -> tuple[int, bytes]:
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
            status, _, data = server.request("POST", "/v1/chat/completions", body)
            return status, data

        for content, said in (("out", b"unsafe"), ("big", b"too large"), ("long", b"range"), ("no", b"not that")):
            status, data = ask(content)
            assert status == 400 and said in data.lower(), data
        count = server.post("/tokenize", prompt="a <|endoftext|> b", parse_special=False)["count"]
        body = {"messages": [{"role": "user", "content": "a <|endoftext|> b"}], "max_tokens": 1}
        assert server.post("/v1/chat/completions", **body)["usage"]["prompt_tokens"] == count + 1
