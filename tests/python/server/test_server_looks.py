"""Scores, looks inside, tokens, figures, the page and the document: each equals what the library gives."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from served import Served

import fastgpt_c
from fastgpt_c.analysis import attribution, logit_lens
from fastgpt_c.server.openapi import document
from fastgpt_c.server.parameters import LOOKS

TEXT = "Once upon a time, there was a café 😀"


@pytest.fixture(scope="module")
def demo() -> Any:
    with fastgpt_c.load() as model:
        yield model


def test_scores(served: Served, demo: Any) -> None:
    """Those of Model.score; null for a first token that nothing stands before."""
    for bos in (False, True):
        found, expected = served.post("/v1/score", prompt=TEXT, top_k=3, bos=bos), demo.score(TEXT, top_k=3, bos=bos)
        has_score = expected.ranks > 0
        assert [value is not None for value in found["token_logprobs"]] == has_score.tolist()
        values = [value for value in found["token_logprobs"] if value is not None]
        np.testing.assert_allclose(values, expected.logprobs[has_score], atol=1e-4)
        assert found["tokens"] == expected.tokens.tolist() and found["n_scored"] == expected.n_scored
        assert found["inputs"] == logit_lens.inputs(demo, found["tokens"])


def test_looks_inside(served: Served, demo: Any) -> None:
    """Those of the logit lens, of attention, of a prefill and of logit attribution."""
    found, tokens = served.post("/v1/inspect", prompt=TEXT), demo.encode(TEXT)
    seen = logit_lens.read(demo, tokens)
    report = logit_lens.page_data(demo, logit_lens.report(demo, seen))
    for name in ("tokens", "inputs", "best", "answer", "attention", "n_layer", "n_head"):
        assert found[name] == report[name], name
    np.testing.assert_allclose(found["probability"], report["probability"], atol=1e-3)
    with demo.session() as session:
        logits = session.prefill(tokens)
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(found["next"]["logits"]), "<f4"), logits, atol=1e-4)
    parts = attribution.report(demo, attribution.attribute(demo, tokens))
    assert found["parts"]["answer"] == parts["answer"]
    np.testing.assert_allclose(found["parts"]["heads"], parts["heads"], atol=1e-3)
    assert {one["op"] for one in found["time"]} >= {"attention", "qkv"} and all(
        one["seconds"] >= 0 for one in found["time"]
    )
    assert found["scores"]["tokens"] == tokens
    assert {str(token) for token in np.ravel(seen.best)} <= found["texts"].keys()


@pytest.mark.parametrize("name", LOOKS)
def test_one_look_alone(served: Served, name: str) -> None:
    """Only what is asked for is told."""
    found = served.post("/v1/inspect", prompt=[495, 481], include=[name])
    assert {"scores", "best", "attention", "next", "parts", "time"} & found.keys() == {
        "best" if name == "lens" else name
    }


def test_tokens_as_vllm_and_as_llama_cpp_have_them(served: Served, demo: Any) -> None:
    """Both shapes, and back to the text."""
    tokens = demo.encode(TEXT)
    found = served.post("/tokenize", prompt=TEXT, add_special_tokens=False, return_token_strs=True)
    assert (found["tokens"], found["count"], found["max_model_len"]) == (tokens, len(tokens), demo.n_ctx)
    assert len(found["token_strs"]) == len(tokens)
    pieces = served.post("/tokenize", content=TEXT, with_pieces=True)["tokens"]
    assert [one["id"] for one in pieces] == tokens
    assert served.post("/detokenize", tokens=tokens) == {"prompt": TEXT, "content": TEXT}
    info = served.get("/tokenizer_info")
    assert demo.encode(info["eos_token"]) == [demo.eos_token]


def test_figures(served: Served) -> None:
    """vLLM's names; what a request read and wrote is counted."""
    names = ("prompt_tokens_total", "generation_tokens_total", "prefix_cache_queries_total")
    before = [served.metric(name) for name in names]
    body = {"prompt": "a b c d e f g h", "max_tokens": 7, "ignore_eos": True}
    usage = served.post("/v1/completions", **body)["usage"]
    served.events("/v1/completions", **body)
    after = [served.metric(name) for name in names]
    assert after[1] - before[1] == 14 and after[2] - before[2] == 2 * usage["prompt_tokens"]
    assert 0 < after[0] - before[0] <= 2 * usage["prompt_tokens"]
    assert served.metric("time_to_first_token_seconds_count") >= 1
    assert served.metric("op_seconds_total", op="attention", phase="decode") > 0
    assert served.metric("inter_token_latency_seconds_count") >= 6
    assert served.metric("http_requests_total", path="/v1/completions", status="200") >= 2


def test_the_page(served: Served) -> None:
    """It and its files are there, under a policy that lets it load nothing from elsewhere."""
    status, headers, data = served.request("GET", "/")
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert (
        "script-src 'self'" in headers["content-security-policy"] and "unsafe" not in headers["content-security-policy"]
    )
    script = data.decode().partition('type="module" src="')[2].partition('"')[0]
    status, headers, _ = served.request("GET", f"/{script.lstrip('/')}")
    assert status == 200 and headers["content-type"].startswith("text/javascript")


def test_the_document(served: Served) -> None:
    """It is what the tables make."""
    assert served.get("/openapi.json") == json.loads(json.dumps(document()))
