"""The two forms in which OpenAI's API gives texts: completions and chats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fastgpt_c.batching.live_engine import Event
from fastgpt_c.batching.openai_choices import LogProbLists, choice, finish_reason, token_text
from fastgpt_c.engine.log_probs import TokenLogProb
from fastgpt_c.generation.completion import Completion
from fastgpt_c.server.errors import encoded

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel


class Form(Protocol):
    """How texts are written.

    prefix                of ids
    object, chunk_object  what a body and an event say that they are
    """

    prefix: str
    object: str
    chunk_object: str

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        """A whole text."""

    def opening(self, index: int) -> list[bytes]:
        """Choices, as JSON, that come before the first piece of a text."""

    def piece(self, index: int, happened: Event) -> bytes | None:
        """What a token adds to a text, as JSON; None where that is nothing."""

    def ending(self, index: int, text: str, completion: Completion) -> bytes:
        """The last piece of a text, as JSON."""


class CompletionForm:
    """Of /v1/completions.

    prompts      the text of each prompt, which may stand before its texts
    prompt_rows  log-probabilities of its tokens, where they are wanted
    n            texts of each prompt
    logprobs, token_ids
                 whether they are wanted of the texts
    """

    prefix, object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(
        self, model: LoadedModel, n: int, prompts: Sequence[str], prompt_rows: Sequence[Sequence[TokenLogProb]],
        *, echo: bool, logprobs: bool, token_ids: bool,
    ) -> None:  # fmt: skip
        self._model, self._n, self._prompts, self._prompt_rows, self._echo = model, n, prompts, prompt_rows, echo
        self._wants_logprobs, self._wants_ids = logprobs, token_ids
        self._lists: dict[int, LogProbLists] = {}  # of texts that stream

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        made = choice(index, completion, self._model)
        if self._echo:
            made["text"] = self._prompts[index // self._n] + completion.text
        if not self._wants_logprobs:
            made["logprobs"] = None
        elif completion.logprobs is not None:
            made["logprobs"] = self._new_lists(index).of([*self._rows(index), *completion.logprobs])
        if self._wants_ids:
            made["token_ids"] = completion.tokens
        return made

    def opening(self, index: int) -> list[bytes]:
        if not self._echo:
            return []
        rows = self._rows(index)
        logprobs = self._lists_of(index).of(rows) if rows else None
        return [_choice_piece(index, self._prompts[index // self._n], logprobs)]

    def piece(self, index: int, happened: Event) -> bytes | None:
        has_logprob = self._wants_logprobs and happened.logprob is not None
        if not (happened.text or has_logprob or self._wants_ids):
            return None
        logprobs = self._lists_of(index).of([happened.logprob]) if has_logprob and happened.logprob else None
        ids = {"token_ids": [happened.token]} if self._wants_ids else {}
        return _choice_piece(index, happened.text, logprobs, ids)

    def ending(self, index: int, text: str, completion: Completion) -> bytes:
        self._lists.pop(index, None)
        return encoded({
            "index": index, "text": text, "logprobs": None, "finish_reason": finish_reason(completion),
            "seed": completion.seed,
        })  # fmt: skip

    def _rows(self, index: int) -> Sequence[TokenLogProb]:
        return self._prompt_rows[index // self._n] if self._prompt_rows else ()

    def _new_lists(self, index: int) -> LogProbLists:
        """Offsets count from the prompt's first character."""
        return LogProbLists(self._model, 0 if self._rows(index) else len(self._prompts[index // self._n]))

    def _lists_of(self, index: int) -> LogProbLists:
        if index not in self._lists:
            self._lists[index] = self._new_lists(index)
        return self._lists[index]


def _choice_piece(index: int, text: str, logprobs: dict[str, Any] | None, more: Mapping[str, Any] = {}) -> bytes:
    return encoded({"index": index, "text": text, "logprobs": logprobs, "finish_reason": None, **more})


class ChatForm:
    """Of /v1/chat/completions."""

    prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        logprobs = None if completion.logprobs is None else self._logprobs(completion.logprobs)
        return {
            "index": index,
            "message": {"role": "assistant", "content": completion.text, "refusal": None},
            "logprobs": logprobs,
            "finish_reason": finish_reason(completion),
            "seed": completion.seed,
        }

    def opening(self, index: int) -> list[bytes]:
        return [_delta(index, {"role": "assistant", "content": ""})]

    def piece(self, index: int, happened: Event) -> bytes | None:
        if not happened.text and happened.logprob is None:
            return None
        logprobs = None if happened.logprob is None else self._logprobs([happened.logprob])
        return _delta(index, {"content": happened.text}, logprobs)

    def ending(self, index: int, text: str, completion: Completion) -> bytes:
        delta = {"content": text} if text else {}
        return encoded({
            "index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason(completion),
            "seed": completion.seed,
        })  # fmt: skip

    def _logprobs(self, rows: Sequence[TokenLogProb]) -> dict[str, Any]:
        return {"content": [self._token(row) for row in rows], "refusal": None}

    def _token(self, row: TokenLogProb) -> dict[str, Any]:
        top = [self._named(token, logprob) for token, logprob in row.top]
        return self._named(row.token, row.logprob) | {"top_logprobs": top}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        data = list(self._model.tokenizer.decode_bytes([token])) if self._model.has_tokenizer else None
        return {
            "token": token_text(token, self._model),
            "logprob": logprob,
            "bytes": data,
        }


def _delta(index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> bytes:
    return encoded({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None})
