"""What bad input gets: a status, and {"error": {message, type, param, code}} with the name of the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from served import Served, serving

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]
DEEP = b'{"prompt": ' + b"[" * 100 + b"]" * 100 + b"}"

BAD: list[tuple[str, Any, int, str | None, str]] = [
    (COMPLETIONS, b'{"prompt": ', 400, None, "not JSON"),
    (COMPLETIONS, b"\xff", 400, None, "not JSON"),
    (COMPLETIONS, b"[]", 400, None, "not a JSON object"),
    (COMPLETIONS, b'{"prompt": "a", "seed": NaN}', 400, None, "NaN"),
    (COMPLETIONS, DEEP, 400, None, "deeper than 32"),
    (COMPLETIONS, b'{"prompt": ' + b"[" * 10**6, 400, None, "not JSON"),
    (COMPLETIONS, {}, 400, "prompt", "missing"),
    (COMPLETIONS, {"prompt": 5}, 400, "prompt", "neither text"),
    (COMPLETIONS, {"prompt": []}, 400, "prompt", "neither text"),
    (COMPLETIONS, {"prompt": ["a", [1]]}, 400, "prompt", "neither text"),
    (COMPLETIONS, {"prompt": [4096]}, 400, "prompt", "outside"),
    (COMPLETIONS, {"prompt": [10**30]}, 400, "prompt", "row of integers"),
    (COMPLETIONS, {"prompt": "\ud800"}, 400, "prompt", "D800"),
    (COMPLETIONS, {"prompt": "a", "foo": 1}, 400, "foo", "no parameter"),
    (COMPLETIONS, {"prompt": "a", "suffix": "b"}, 400, "suffix", "not served"),
    (COMPLETIONS, {"prompt": "a", "max_tokens": "5"}, 400, "max_tokens", "not an integer"),
    (COMPLETIONS, {"prompt": "a", "max_tokens": 1.0}, 400, "max_tokens", "not an integer"),
    (COMPLETIONS, {"prompt": "a", "max_tokens": -1}, 400, "max_tokens", "max_tokens is -1"),
    (COMPLETIONS, {"prompt": "a", "max_tokens": 600}, 400, "prompt", "n_ctx of 512"),
    (COMPLETIONS, {"prompt": "a", "temperature": True}, 400, "temperature", "not a number"),
    (COMPLETIONS, {"prompt": "a", "logprobs": 21}, 400, "logprobs", "logprobs is 21"),
    (COMPLETIONS, {"prompt": "a", "stop": ["a", "b", "c", "d", "e"]}, 400, "stop", "more than 4"),
    (COMPLETIONS, {"prompt": "a", "n": 129}, 400, "n", "n is 129"),
    (COMPLETIONS, {"prompt": ["a"] * 100, "n": 100}, 400, "n", "exceed 1024"),
    (COMPLETIONS, {"prompt": "a", "n": 2, "best_of": 1}, 400, "best_of", "less than n"),
    (COMPLETIONS, {"prompt": "a", "best_of": 2, "stream": True}, 400, "best_of", "stream"),
    (COMPLETIONS, {"prompt": "a", "stream_options": {"include_usage": True}}, 400, "stream_options", "needs stream"),
    (COMPLETIONS, {"prompt": "a", "logit_bias": {"4096": 1}}, 400, "logit_bias", "logit_bias"),
    (COMPLETIONS, {"prompt": "a", "regex": "["}, 400, "regex", "regex"),
    (COMPLETIONS, {"prompt": "a", "regex": "a", "grammar": "b"}, 400, None, "not both"),
    (COMPLETIONS, {"prompt": "a", "response_format": {"type": "xml"}}, 400, "response_format", "response_format"),
    (COMPLETIONS, {"prompt": ["a", "b" * 4000]}, 400, "prompt", "prompt 1: "),
    (CHAT, {}, 400, "messages", "missing"),
    (CHAT, {"messages": []}, 400, "messages", "not a list"),
    (CHAT, {"messages": [{"role": "tool", "content": "a"}]}, 400, "messages", "role"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages", "text alone"),
    (CHAT, {"messages": HI, "tools": [{"type": "function"}]}, 400, "tools", "no tools"),
    (CHAT, {"messages": HI, "tool_choice": "required"}, 400, "tool_choice", "no tools"),
    (CHAT, {"messages": HI, "top_logprobs": 3}, 400, "top_logprobs", "needs logprobs"),
    (CHAT, {"messages": HI, "max_tokens": 3, "max_completion_tokens": 4}, 400, "max_completion_tokens", "give one of"),
    ("/v1/embeddings", {"input": "a", "dimensions": 5}, 400, "dimensions", "n_embd"),
    ("/v1/embeddings", {"input": ""}, 400, "input", "empty"),
    ("/v1/embeddings", {"input": "a" * 5000}, 400, "input", "n_ctx"),
    ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, 400, "encoding_format", "one of"),
    ("/v1/score", {"prompt": "a b " * 500}, 400, "prompt", "more than 512"),
    ("/v1/score", {"prompt": [4096]}, 400, "prompt", "outside"),
    ("/v1/inspect", {"prompt": ""}, 400, "prompt", "empty"),
    ("/v1/inspect", {"prompt": "a", "include": ["soul"]}, 400, "include", "soul"),
    ("/tokenize", {}, 400, "prompt", "missing"),
    ("/detokenize", {"tokens": [-1]}, 400, None, "outside"),
]


def assert_is_error(answer: tuple[int, dict[str, str], bytes], status: int, param: str | None, words: str) -> None:
    """An error of that status, in OpenAI's shape, about param, whose message has the words."""
    found, headers, data = answer
    assert found == status, data
    assert headers["content-type"] == "application/json"
    error = json.loads(data)["error"]
    assert error.keys() == {"message", "type", "param", "code"} and isinstance(error["type"], str)
    assert words in error["message"]
    assert param is None or str(error["param"]).startswith(param)


@pytest.mark.parametrize(("path", "body", "status", "param", "words"), BAD)
def test_bad_requests(served: Served, path: str, body: Any, status: int, param: str | None, words: str) -> None:
    """Each names its field, streamed or not."""
    assert_is_error(served.request("POST", path, body), status, param, words)
    if isinstance(body, dict) and path in (COMPLETIONS, CHAT) and "stream_options" not in body:
        assert_is_error(served.request("POST", path, {**body, "stream": True}), status, param, words)


def test_paths_and_methods(served: Served) -> None:
    """404 for what is not there, 405 with the methods that are."""
    assert_is_error(served.request("GET", "/nothing"), 404, None, "/nothing")
    assert_is_error(served.request("GET", "/pages/../cli/serve.py"), 404, None, "/pages")
    assert_is_error(served.request("GET", "/pages/studio"), 404, None, "/pages")
    assert_is_error(served.request("GET", "/v1/models/gpt-4"), 404, "model", "gpt-4")
    for method, path, allowed in (("GET", COMPLETIONS, "POST"), ("POST", "/health", "GET"), ("DELETE", "/", "GET")):
        answer = served.request(method, path)
        assert_is_error(answer, 405, None, method)
        assert allowed in answer[1]["allow"]
    assert served.request("OPTIONS", "/v1/models")[0] == 204


def test_large_bodies(served: Served) -> None:
    """413, whether the length is said or not."""
    body = b'{"prompt": "' + b"a" * (4 << 20) + b'"}'
    assert_is_error(served.request("POST", COMPLETIONS, body), 413, None, "4194304")
    connection = served.connect()
    connection.request("POST", COMPLETIONS, iter([body[:1000], body[1000:]]), encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413 and json.loads(answer.read())["error"]["type"] == "invalid_request_error"


def test_every_answer_has_an_id(served: Served) -> None:
    """The client's, if it is one; else a new one."""
    assert served.request("GET", "/health", headers={"x-request-id": "mine-1"})[1]["x-request-id"] == "mine-1"
    ids = {served.request("GET", "/nothing", headers={"x-request-id": "a b"})[1]["x-request-id"] for _ in range(2)}
    assert len(ids) == 2 and "a b" not in ids


def test_what_never_fits(tmp_path: Any) -> None:
    """400, at once: no cache is so large."""
    with serving("--max-tokens-in-flight", "64") as server:
        answer = server.request("POST", COMPLETIONS, {"prompt": "a", "max_tokens": 100})
        assert_is_error(answer, 400, None, "have 64")


def test_overload() -> None:
    """429 with Retry-After where too much is waiting; the others end, and health answers throughout."""
    with serving("--max-batch", "1", "--max-queue", "2") as server:
        connections = [server.connect() for _ in range(12)]
        for connection in connections:
            body = json.dumps({"prompt": "Once", "max_tokens": 300, "ignore_eos": True})
            connection.request("POST", COMPLETIONS, body)
        assert server.get("/health") == {"status": "ok"}
        answers = [connection.getresponse() for connection in connections]
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 429} and statuses.count(200) >= 3
        refused = next(answer for answer in answers if answer.status == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert json.loads(refused.read())["error"]["type"] == "rate_limit_error"
        assert server.metric("request_rejected_total") == statuses.count(429)
        server.wait_idle()
        assert server.post(COMPLETIONS, prompt="a", max_tokens=1)


def test_a_timeout_of_requests() -> None:
    """504 once the time is over, and in a stream an event with the error, without [DONE]; the slot is free then."""
    with serving("--request-timeout", "0.3") as server:
        body = {"prompt": "Once", "max_tokens": 20000, "ignore_eos": True, "on_overflow": "slide"}
        answer = server.request("POST", COMPLETIONS, body)
        assert_is_error(answer, 504, None, "0.3 s")
        assert answer[1]["x-should-retry"] == "false"
        status, _, data = server.request("POST", COMPLETIONS, {**body, "stream": True})
        *events, last, rest = data.decode().split("\n\n")
        assert status == 200 and rest == "" and events
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "request_timeout"
        server.wait_idle()
