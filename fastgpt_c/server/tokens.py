"""POST /tokenize and /detokenize, GET /tokenizer_info: shapes of vLLM and llama.cpp side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from fastgpt_c.batching.openai_choices import token_text
from fastgpt_c.batching.parameters import BadRequest
from fastgpt_c.server.bodies import json_body
from fastgpt_c.server.errors import encoded
from fastgpt_c.server.parameters import DETOKENIZE, TOKENIZE

if TYPE_CHECKING:
    from fastgpt_c.server.service import Service


async def tokenize(request: Request) -> Response:
    """Text -> token ids."""
    service: Service = request.app.state.service
    values = TOKENIZE.read(await json_body(request, service.settings.limits))
    service.check_ready()
    if "text" not in values:
        raise BadRequest("prompt is missing", "prompt")
    model = service.model
    tokens = model.encode(values["text"], special=values.get("special", True))
    texts = [token_text(token, model) for token in tokens] if values.keys() & {"with_texts", "with_pieces"} else []
    pieces = [{"id": token, "piece": text} for token, text in zip(tokens, texts, strict=False)]
    body: dict[str, Any] = {
        "count": len(tokens),
        "max_model_len": model.n_ctx,
        "tokens": pieces if values.get("with_pieces") else tokens,
    }
    return _json(body | ({"token_strs": texts} if values.get("with_texts") else {}))


async def detokenize(request: Request) -> Response:
    """Token ids -> text."""
    service: Service = request.app.state.service
    values = DETOKENIZE.read(await json_body(request, service.settings.limits))
    service.check_ready()
    text = service.model.decode(values["tokens"])
    return _json({"prompt": text, "content": text})


async def tokenizer_info(request: Request) -> Response:
    """What a client that tokenizes itself needs to know."""
    service: Service = request.app.state.service
    service.check_ready()
    model = service.model
    end = None if model.eos_token is None else model.decode([model.eos_token])
    return _json(
        {
            "tokenizer_class": "GPT2Tokenizer",
            "model_max_length": model.n_ctx,
            "vocab_size": model.n_vocab,
            "bos_token": end,
            "eos_token": end,
            "unk_token": end,
            "pad_token": None,
            "add_bos_token": False,
            "chat_template": service.template.source,
        }
    )


def _json(body: dict[str, Any]) -> Response:
    return Response(encoded(body), media_type="application/json")
