"""Other people's clients, unchanged: each is tried where it is installed, and all of them in .ci/full."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from served import Served

import fastgpt_c
from fastgpt_c.scoring.token_scores import Scorer

BODY: dict[str, Any] = {"max_tokens": 12, "seed": 1}
PROMPT = "Once upon a time"
# Where `npm install openai` was run.
NODE_FOLDER = "FASTGPT_TEST_NODE"


@pytest.fixture
def text(exact: Served) -> str:
    """What the server itself gives."""
    return str(exact.post("/v1/completions", prompt=PROMPT, **BODY)["choices"][0]["text"])


@pytest.fixture
def said(exact: Served) -> str:
    """Likewise, in a chat."""
    answer = exact.post("/v1/chat/completions", messages=[{"role": "user", "content": PROMPT}], **BODY)
    return str(answer["choices"][0]["message"]["content"])


def test_langchain(exact: Served, text: str, said: str) -> None:
    langchain = pytest.importorskip("langchain_openai")
    asked = {"base_url": f"{exact.url}/v1", "api_key": "none", "model": "any", **BODY}
    assert langchain.OpenAI(**asked).invoke(PROMPT) == text
    chat = langchain.ChatOpenAI(**asked)
    assert chat.invoke(PROMPT).content == said
    assert "".join(piece.content for piece in chat.stream(PROMPT)) == said


def test_litellm(exact: Served, said: str) -> None:
    litellm = pytest.importorskip("litellm")
    messages = [{"role": "user", "content": PROMPT}]
    asked = {"model": "openai/any", "api_base": f"{exact.url}/v1", "api_key": "none", "messages": messages, **BODY}
    assert litellm.completion(**asked).choices[0].message.content == said
    pieces = litellm.completion(**asked, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == said


def test_llm(exact: Served, said: str, tmp_path: Path) -> None:
    pytest.importorskip("llm")
    program = Path(sysconfig.get_path("scripts")) / "llm"
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: here\n  model_name: any\n  api_base: {exact.url}/v1\n"
    )
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path)}
    for more in ([], ["--no-stream"]):
        command = [program, "-m", "here", "-o", "max_tokens", "12", "-o", "seed", "1", *more, PROMPT]
        result = subprocess.run(command, capture_output=True, env=environment, check=True, stdin=subprocess.DEVNULL)
        assert result.stdout.decode().strip() == said.strip()


def test_openai_of_npm(exact: Served, said: str, tmp_path: Path) -> None:
    folder = os.environ.get(NODE_FOLDER)
    if not folder or not shutil.which("node"):
        pytest.skip(f"{NODE_FOLDER} names no folder with the package openai")
    script = Path(folder) / "ask.mjs"
    script.write_text(
        f"""
import OpenAI from "openai";
const client = new OpenAI({{baseURL: "{exact.url}/v1", apiKey: "none", maxRetries: 0}});
const body = {{model: "any", max_tokens: 12, seed: 1, messages: [{{role: "user", content: {json.dumps(PROMPT)}}}]}};
const whole = (await client.chat.completions.create(body)).choices[0].message.content;
let pieces = "";
for await (const event of await client.chat.completions.create({{...body, stream: true}})) {{
  pieces += event.choices[0].delta.content ?? "";
}}
const vector = (await client.embeddings.create({{model: "any", input: "a"}})).data[0].embedding;
console.log(JSON.stringify([whole, pieces, vector.length]));
"""
    )
    result = subprocess.run(["node", script], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    assert json.loads(result.stdout) == [said, said, 256]


@pytest.mark.parametrize("has_ids", [True, False])
def test_lm_evaluation_harness(exact: Served, has_ids: bool) -> None:
    """local-completions, with ids and with texts, and the tokenizer of the server: our own scores and flags."""
    completions = pytest.importorskip("lm_eval.models.openai_completions")
    instances = pytest.importorskip("lm_eval.api.instance")
    lm = completions.LocalCompletionsAPI(
        model="any", base_url=f"{exact.url}/v1/completions", tokenizer_backend="remote", max_length=512,
        tokenized_requests=has_ids, num_concurrent=1,
    )  # fmt: skip
    pairs = [("Once upon", " a time"), ("The wolf said", " moon"), ("Tom and", " Lily went"), ("There was", " a")]
    asked = [
        instances.Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)
    ]
    found = lm.loglikelihood(asked)
    with fastgpt_c.load() as model, Scorer(model) as scorer:
        for (context, continuation), (total, is_greedy) in zip(pairs, found, strict=True):
            scores = scorer.after(model.encode(context), model.encode(continuation))
            assert total == pytest.approx(scores.total, abs=1e-4) and is_greedy == scores.greedy
