"""POST /v1/score and /v1/inspect: how likely a text is, and what happens inside the model while it is read."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from fastgpt_c.analysis import attribution, logit_lens
from fastgpt_c.batching.openai_choices import token_text
from fastgpt_c.errors import FastGPTError
from fastgpt_c.generation.prompt import Prompt, tokens_of_prompt
from fastgpt_c.profiling.profile import Profile
from fastgpt_c.scoring.token_scores import TokenScores
from fastgpt_c.server.bodies import json_body
from fastgpt_c.server.errors import HTTPError, encoded, from_library
from fastgpt_c.server.parameters import INSPECT, SCORE

if TYPE_CHECKING:
    from fastgpt_c.model import Model
    from fastgpt_c.server.service import Service

N_TOP = 10


async def score(request: Request) -> Response:
    """Log-probabilities of a text's tokens."""
    service: Service = request.app.state.service
    values = SCORE.read(await json_body(request, service.settings.limits))
    service.check_ready()
    tokens = _tokens(service, values["prompt"])
    work = partial(service.side.scores, tokens, values.get("top_k", 0), bos=values.get("bos", False))
    (scores,) = await service.side.run(request, [work])
    return _json({"model": service.model_name, "inputs": _inputs(service.model, tokens), **scores_report(scores)})


async def inspect(request: Request) -> Response:
    """What is asked for of a look inside."""
    service: Service = request.app.state.service
    values = INSPECT.read(await json_body(request, service.settings.limits))
    service.check_ready()
    tokens = _tokens(service, values["prompt"])
    if not tokens:
        raise HTTPError(400, "the prompt is empty: there is nothing to inspect", param="prompt")
    names = values.get("include", tuple(REPORTS))
    reports = await service.side.run(request, [partial(REPORTS[name], service, tokens, values) for name in names])
    model = service.model
    body: dict[str, Any] = {
        "model": service.model_name,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "tokens": tokens,
        "inputs": _inputs(model, tokens),
        "texts": {},
    }
    for report in reports:
        texts = body["texts"] | report.pop("texts", {})
        body |= report | {"texts": texts}
    return _json(body)


def _tokens(service: Service, prompt: Prompt) -> list[int]:
    try:
        tokens = tokens_of_prompt(service.model, prompt)
    except FastGPTError as error:
        raise from_library(error, "prompt") from None
    n_most = min(service.settings.limits.max_inspected, service.model.n_ctx)
    if len(tokens) > n_most:
        message = f"the prompt has {len(tokens)} tokens, more than {n_most}"
        raise HTTPError(400, message, param="prompt", code="context_length_exceeded")
    if any(not 0 <= token < service.model.n_vocab for token in tokens):
        raise HTTPError(400, f"a token is outside [0, {service.model.n_vocab})", param="prompt")
    return tokens


def scores_report(scores: TokenScores) -> dict[str, Any]:
    """What JSON can hold of scores: null where there is none."""
    has_score = (scores.ranks > 0).tolist()
    return {
        "tokens": scores.tokens.tolist(),
        "token_logprobs": _where(scores.logprobs.tolist(), has_score),
        "ranks": _where(scores.ranks.tolist(), has_score),
        "top_tokens": _where(scores.top_tokens.tolist(), has_score),
        "top_logprobs": _where(scores.top_logprobs.tolist(), has_score),
        "total": scores.total,
        "n_scored": scores.n_scored,
    }


def _where(values: Sequence[Any], present: Sequence[bool]) -> list[Any]:
    return [value if is_there else None for value, is_there in zip(values, present, strict=True)]


# ---- What inspect can report, by name; each in the thread of side work ----


def _surprise(service: Service, tokens: list[int], values: dict[str, Any]) -> dict[str, Any]:
    scores = service.side.scores(tokens, values.get("top_k", N_TOP))
    return {"scores": scores_report(scores), "texts": _texts(service.model, scores.top_tokens.ravel().tolist())}


def _lens(service: Service, tokens: list[int], _: dict[str, Any]) -> dict[str, Any]:
    seen = logit_lens.read(service.model, tokens, attention=False)
    report = logit_lens.report(service.model, seen)
    names = ("answer", "best", "probability", "answer_probability", "answer_rank", "surprisal", "texts")
    return {name: report[name] for name in names}


def _attention(service: Service, tokens: list[int], _: dict[str, Any]) -> dict[str, Any]:
    model = service.model
    heads = [(layer, head) for layer in range(model.n_layer) for head in range(model.n_head)]
    with model.session(n_ctx=len(tokens)) as session:
        weights = session.inspect(tokens, heads=heads)["attention"]
    shape = (model.n_layer, model.n_head, len(tokens), len(tokens))
    return {"attention": logit_lens.packed_attention(weights.reshape(shape))}


def _next(service: Service, tokens: list[int], _: dict[str, Any]) -> dict[str, Any]:
    """The logits after the last token, all of them, and the texts of the likeliest."""
    with service.model.session(n_ctx=len(tokens)) as session:
        logits = session.prefill(tokens)
    likeliest = np.argsort(-logits, kind="stable")[:100]
    data = base64.b64encode(logits.astype("<f4").tobytes()).decode()
    return {"next": {"logits": data}, "texts": _texts(service.model, likeliest.tolist())}


def _parts(service: Service, tokens: list[int], values: dict[str, Any]) -> dict[str, Any]:
    """What each part of the model adds to the logit of an answer after the last token."""
    try:
        found = attribution.attribute(service.model, tokens, values.get("answer"), values.get("against"))
    except FastGPTError as error:
        raise from_library(error, "answer") from None
    return {"parts": attribution.report(service.model, found)}


def _time(service: Service, tokens: list[int], _: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each op in one reading of the text."""
    with service.model.session(n_ctx=len(tokens)) as session, session.profile(0) as profile:
        session.prefill(tokens)
    return {"time": op_seconds(profile)}


def op_seconds(profile: Profile) -> list[dict[str, Any]]:
    """The ops of a profile, by name, the longest first."""
    sums: dict[str, int] = {}
    for record in profile.records:
        sums[str(record["op"])] = sums.get(str(record["op"]), 0) + int(record["ns"])
    return [{"op": name, "seconds": ns / 1e9} for name, ns in sorted(sums.items(), key=lambda pair: -pair[1])]


Report = Callable[["Service", list[int], dict[str, Any]], dict[str, Any]]
REPORTS: dict[str, Report] = {
    "scores": _surprise, "lens": _lens, "attention": _attention, "next": _next, "parts": _parts, "time": _time,
}  # fmt: skip


def _inputs(model: Model, tokens: list[int]) -> list[str]:
    """What to show of each token."""
    return logit_lens.inputs(model, tokens) if model.has_tokenizer else [token_text(token, model) for token in tokens]


def _texts(model: Model, tokens: Sequence[int]) -> dict[str, str]:
    """What to show of tokens, by id."""
    ids = sorted({token for token in tokens if token >= 0})
    show = logit_lens.visible if model.has_tokenizer else lambda model, token: token_text(token, model)
    return {str(token): show(model, token) for token in ids}


def _json(body: dict[str, Any]) -> Response:
    return Response(encoded(body), media_type="application/json")
