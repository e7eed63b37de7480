"""Text that must match a regular expression, a JSON schema or a grammar, through llguidance (an optional extra).

Before each draw llguidance says which tokens may come next, as a bit mask for the sampler: what is drawn can always be
completed to a match.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from fastgpt_c.errors import UsageError, missing_extra
from fastgpt_c.tokenizers.bpe import Tokenizer

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

# As json.dumps writes: a model that may put any number of spaces between the parts of JSON may never stop.
JSON_STYLE: Any = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


class Constraint:
    """What may follow, token by token.  Made by constraint_on; for one text and one thread."""

    def __init__(self, model: LoadedModel, grammar: str, what: str) -> None:
        import llguidance

        self._n_bytes = -(-model.n_vocab // 32) * 4
        self._what = what
        self._matcher = llguidance.LLMatcher(_tokenizer_of(model), grammar, log_level=0)
        self._check()

    def mask(self) -> bytes:
        """The tokens that may come next, as Sampler.allow_mask takes them; the end-of-text token where the text may
        end here.  Raises UsageError where llguidance gives up: the constraint is too complex."""
        mask: bytes = self._matcher.compute_bitmask()
        self._check()
        return mask[: self._n_bytes]

    def accept(self, token: int) -> None:
        """Notes a token that was drawn."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether the text matches and nothing can follow."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UsageError(f"{self._what}: {self._matcher.get_error()}")


def constraint_on(
    model: LoadedModel, regex: str | None, json_schema: str | Mapping[str, Any] | None, grammar: str | None
) -> Constraint | None:
    """The one that is given, or None.  Raises UsageError for one that is wrong, MissingExtraError."""
    if regex is None and json_schema is None and grammar is None:
        return None
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise missing_extra("constraints", "a regex, JSON schema or grammar") from None
    if regex is not None:
        return Constraint(model, LLMatcher.grammar_from_regex(regex), "regex")
    if grammar is not None:
        return Constraint(model, LLMatcher.grammar_from_lark(grammar), "grammar")
    schema = _schema(json_schema)
    return Constraint(model, LLMatcher.grammar_from_json_schema(schema, overrides=JSON_STYLE), "json_schema")


def _schema(given: str | Mapping[str, Any] | None) -> str:
    """The schema as JSON.  It is read here, so that an error in it is one of Python's json."""
    try:
        schema = json.loads(given) if isinstance(given, str) else given
        text = json.dumps(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"json_schema is not JSON: {error}") from error
    if not text.startswith("{"):
        raise UsageError(f"json_schema is not an object, but {text[:40]}")
    return text


class _Vocabulary:
    """The tokens of a model as llguidance asks for them."""

    bos_token_id = None

    def __init__(self, model: LoadedModel, tokenizer: Tokenizer) -> None:
        eos = model.n_vocab if model.eos_token is None else model.eos_token
        self.tokens = [tokenizer.decode_bytes([token]) for token in range(model.n_vocab)]
        if model.eos_token is None:
            self.tokens.append(b"<eos>")  # it wants one; this one is never drawn
        self.eos_token_id = eos
        self.special_token_ids = [eos]
        self._encode = tokenizer.encode  # not the model, which would then live as long as _tokenizers

    def __call__(self, text: bytes) -> Sequence[int]:
        return self._encode(text, special=False)


_tokenizers: WeakKeyDictionary[LoadedModel, Any] = WeakKeyDictionary()


def _tokenizer_of(model: LoadedModel) -> Any:
    """llguidance's tables of a model's vocabulary; they take some tenths of a second for GPT-2's, once."""
    from llguidance import LLTokenizer, TokenizerWrapper

    tokenizer = model.tokenizer
    if not isinstance(tokenizer, Tokenizer):
        raise UsageError("constraints work on bytes: they need GPT-2's byte-level tokenizer, which this model has not")
    if model not in _tokenizers:
        _tokenizers[model] = LLTokenizer(TokenizerWrapper(_Vocabulary(model, tokenizer)))
    return _tokenizers[model]
