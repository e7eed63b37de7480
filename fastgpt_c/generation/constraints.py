"""Text that must match a regular expression, a JSON schema or a grammar, through llguidance (an optional extra).

Before each draw llguidance says which tokens may come next, as a bit mask for the sampler: what is drawn can always be
completed to a match.

Constraints may come from strangers.  While it compiles them, llguidance recurses over rules and references, and a stack
that overflows ends the process.  So what exceeds the limits below is refused, and the rest is compiled on a stack that
is large enough for any text of its length.  Computing masks needs little stack.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from fastgpt_c.errors import FastGPTError, UsageError, missing_extra
from fastgpt_c.generation.large_stack import call_with_stack
from fastgpt_c.tokenizers.bpe import Tokenizer

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

# As json.dumps writes: a model that may put any number of spaces between the parts of JSON may never stop.
JSON_STYLE: Any = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


MOST_BYTES = 1 << 19  # of a constraint, in UTF-8
MOST_RULES = 2000  # of a grammar, and different $ref of a schema: so many may form a chain
MOST_NESTED = 120  # arrays and objects of a schema, within each other; llguidance reads a few more

# llguidance 1.9 takes 600 bytes of stack for a byte of its input in the worst case, chains of rules with short names.
_STACK_BYTES = 1 << 24
_STACK_PER_BYTE = 1 << 10

_MOST_OF_A_MESSAGE = 1000  # characters: llguidance repeats the constraint


class Constraint:
    """What may follow, token by token.  Made by constraint_on; for one text and one thread."""

    def __init__(self, model: LoadedModel, matcher: Any, what: str) -> None:
        self._n_bytes = -(-model.n_vocab // 32) * 4
        self._ends = model.eos_tokens
        self._what = what
        self._matcher = matcher
        self._check()

    def mask(self) -> bytes:
        """The tokens that may come next, as Sampler.allow_mask takes them; every end-of-text token where the text may
        end here.  Raises UsageError where llguidance gives up: the constraint is too complex."""
        mask: bytes = self._matcher.compute_bitmask()
        self._check()
        return self._with_every_end(mask[: self._n_bytes])

    def _with_every_end(self, mask: bytes) -> bytes:
        """llguidance knows one token that ends a text; where that may come, so may the model's others."""
        if not self._ends or not mask[self._ends[0] // 8] >> self._ends[0] % 8 & 1:
            return mask
        bits = bytearray(mask)
        for token in self._ends[1:]:
            bits[token // 8] |= 1 << token % 8
        return bytes(bits)

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
            raise UsageError(f"{self._what}: {_shortened(self._matcher.get_error())}")


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
        return _compiled(model, "regex", regex, LLMatcher.grammar_from_regex)
    if grammar is not None:
        _check_rules(grammar)
        return _compiled(model, "grammar", grammar, LLMatcher.grammar_from_lark)
    schema = _schema(json_schema)
    return _compiled(
        model, "json_schema", schema, lambda text: LLMatcher.grammar_from_json_schema(text, overrides=JSON_STYLE)
    )


def _compiled(model: LoadedModel, what: str, text: str, to_grammar: Callable[[str], str]) -> Constraint:
    import llguidance

    tokenizer = _tokenizer_of(model)
    matcher = _on_large_stack(
        what, _n_bytes(what, text), lambda: llguidance.LLMatcher(tokenizer, to_grammar(text), log_level=0)
    )
    return Constraint(model, matcher, what)


def _on_large_stack(what: str, n_bytes: int, function: Callable[[], Any]) -> Any:
    """What function returns.  All errors name the constraint; llguidance's own are ValueErrors and Rust's panics."""
    try:
        return call_with_stack(_STACK_BYTES + n_bytes * _STACK_PER_BYTE, function)
    except UsageError:
        raise
    except FastGPTError as error:
        raise FastGPTError(f"{what}: {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{what}: {_shortened(str(error))}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise UsageError(f"{what}: llguidance gives up: {_shortened(str(error))}") from error


def _n_bytes(what: str, text: object) -> int:
    """Of a text that can be a constraint."""
    if not isinstance(text, str):
        raise UsageError(f"{what} is {type(text).__name__}, not text")
    n_bytes = _n_utf8(what, text)
    if n_bytes > MOST_BYTES:
        raise UsageError(f"{what} has {n_bytes:,} bytes; more than {MOST_BYTES:,} are not compiled")
    return n_bytes


def _n_utf8(what: str, text: str) -> int:
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}, half of a surrogate pair"
        raise UsageError(f"{what}: character {error.start} is {half}, which UTF-8 cannot hold") from error


def _shortened(text: str) -> str:
    """A message of llguidance without the states of its machinery."""
    text = text.partition("<backtrace>")[0].partition("<state>")[0].rstrip()
    return text if len(text) <= _MOST_OF_A_MESSAGE else f"{text[:_MOST_OF_A_MESSAGE]}..."


# ---- Grammars and schemas ------------------------------------------------------------------------------------

Path = tuple[str | int, ...]  # keys and positions that lead to a part of a schema

_RULE = re.compile(r"^[ \t]*[?!]?\w+(?:\[[^\]\n]*\])?(?:\.-?\d+)?[ \t]*:", re.MULTILINE)


def _check_rules(grammar: str) -> None:
    n_rules = len(_RULE.findall(grammar)) if isinstance(grammar, str) else 0
    if n_rules > MOST_RULES:
        raise UsageError(f"grammar has {n_rules:,} rules; more than {MOST_RULES:,} are not compiled")


def _schema(given: str | Mapping[str, Any] | None) -> str:
    """The schema as JSON.  It is read here, so that an error in it is one of Python's json."""
    n_bytes = _n_bytes("json_schema", given) if isinstance(given, str) else 0
    text: str = _on_large_stack("json_schema", n_bytes, lambda: _read_schema(given))
    if not text.startswith("{"):
        raise UsageError(f"json_schema is not an object, but {text[:40]}")
    return text


def _read_schema(given: str | Mapping[str, Any] | None) -> str:
    try:
        schema = json.loads(given if isinstance(given, str) else json.dumps(given))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"json_schema is not JSON: {error}") from error
    _check_schema(schema)
    return json.dumps(schema)


def _check_schema(schema: Any) -> None:
    """Raises UsageError for what Python's json takes and no other reader of JSON, and beyond the limits."""
    references: set[str] = set()
    left: list[tuple[Path, Any]] = [((), schema)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            for key in value:
                _n_utf8(f"json_schema: a key of {_place(path)}", key)
            if isinstance(reference := value.get("$ref"), str):
                references.add(reference)
            left += [((*path, key), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            left += [((*path, i), inner) for i, inner in enumerate(value)]
        else:
            _check_scalar(path, value)
        if isinstance(value, (dict, list)) and len(path) >= MOST_NESTED:
            raise UsageError(f"json_schema: {_place(path)} is nested deeper than {MOST_NESTED} arrays and objects")
    if len(references) > MOST_RULES:
        raise UsageError(
            f"json_schema has {len(references):,} different $ref; more than {MOST_RULES:,} are not compiled"
        )


def _check_scalar(path: Path, value: Any) -> None:
    if isinstance(value, str):
        _n_utf8(f"json_schema: {_place(path)}", value)
    elif isinstance(value, float) and math.isnan(value):
        raise UsageError(f"json_schema: {_place(path)} is NaN, which JSON does not have")
    elif isinstance(value, (int, float)) and abs(value) > sys.float_info.max:
        raise UsageError(f"json_schema: {_place(path)} is infinite or beyond 1.8e308, which no reader of JSON takes")


def _place(path: Path) -> str:
    """Where in a schema, as JSON pointers say it; the beginning of a long one."""
    return "".join(f"/{part}" for part in path[:8]).encode("utf-8", "backslashreplace").decode()[:200] or "the schema"


class _Vocabulary:
    """The tokens of a model as llguidance asks for them."""

    bos_token_id = None

    def __init__(self, model: LoadedModel, tokenizer: Tokenizer) -> None:
        eos = model.n_vocab if model.eos_token is None else model.eos_token
        self.tokens = [tokenizer.decode_bytes([token]) for token in range(model.n_vocab)]
        if model.eos_token is None:
            self.tokens.append(b"<eos>")  # it wants one; this one is never drawn
        self.eos_token_id = eos
        self.special_token_ids = [eos, *model.eos_tokens[1:]]  # none of them is text
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
