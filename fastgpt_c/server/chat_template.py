"""Messages -> the prompt that a model was trained on, by a template of Jinja.

Templates come with model files, from strangers.  Jinja's sandbox keeps them from Python's objects; what is bounded here
is the work that one may ask for.  Texts of messages are never taken for special tokens: each such text that a message
spells is marked before the template sees it, and the mark removed after.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
from jinja2.ext import LoopControlExtension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fastgpt_c.errors import ModelFileError
from fastgpt_c.server.errors import HTTPError

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

# For models without a template: what fastgpt-c chat writes.
PLAIN = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{- message.content + '\\n\\n' -}}"
    "{%- elif message.role == 'user' -%}{{- 'User: ' + message.content + '\\n' -}}"
    "{%- else -%}{{- 'Assistant: ' + message.content + '\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)
PLAIN_STOP = ("\nUser:",)

MOST_ITEMS = 100_000  # that ranges of one rendering may count
MOST_CHARACTERS = 1 << 24  # of a text that is repeated or joined


class _Sandbox(ImmutableSandboxedEnvironment):
    """Without ways to ask for much memory in few characters."""

    intercepted_binops = frozenset(["*", "**", "%", "+"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if _size_of(operator, left, right) > MOST_CHARACTERS:
            raise jinja2.TemplateError("a value is too large")
        return super().call_binop(context, operator, left, right)


def _size_of(operator: str, left: Any, right: Any) -> int:
    """About how large the result may be; what is of moderate size whatever the operands are is 0."""
    if operator == "**":
        return (
            0 if isinstance(left, int | float) and isinstance(right, int) and abs(right) < 64 else MOST_CHARACTERS + 1
        )
    if operator == "%" and isinstance(left, str):
        return MOST_CHARACTERS + 1  # a format such as "%999999999d"
    sizes = [len(one) for one in (left, right) if isinstance(one, str | list | tuple)]
    if operator == "+":
        return sum(sizes)
    counts = [abs(one) for one in (left, right) if isinstance(one, int)]
    return sizes[0] * counts[0] if sizes and counts else sum(count.bit_length() for count in counts) // 8


class ChatTemplate:
    """A model's template.

    stop  what ends an answer besides the end-of-text token

    Raises ModelFileError for a template that cannot be read.
    """

    def __init__(self, model: LoadedModel, template: str | None = None) -> None:
        """template  None = the model file's, and where it has none a plain one"""
        self._model = model
        if template is None:
            own = model.metadata("tokenizer.chat_template")
            template = None if own is None else own.decode("utf-8", "replace")
        self.stop: Sequence[str] = PLAIN_STOP if template is None else ()
        self.source = PLAIN if template is None else template
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension])
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(self.source)
        except jinja2.TemplateError as error:
            raise ModelFileError(f"{model.path}: its chat template cannot be read: {error}") from error
        self._special = _special_texts(model)

    def tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The prompt that asks for the next turn of the assistant.  Raises HTTPError 400 for messages that the template
        does not take."""
        mark = secrets.token_hex(8)
        marked = [{**message, "content": self._marked(message["content"], mark)} for message in messages]
        try:
            text = self._template.render(
                messages=marked,
                add_generation_prompt=True,
                bos_token=self._end_of_text(),
                eos_token=self._end_of_text(),
                range=_Ranges().make,
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise HTTPError(400, f"the model's chat template says: {error}", param="messages") from None
        return self._encoded(text, mark)

    def _marked(self, text: str, mark: str) -> str:
        """Each text of a special token gets a mark behind its first character."""
        if self._special is None:
            return text
        return self._special.sub(lambda found: found[0][:1] + mark + found[0][1:], text)

    def _encoded(self, text: str, mark: str) -> list[int]:
        if self._special is None:
            return self._model.encode(text, special=False)
        tokens: list[int] = []
        begin = 0
        for found in self._special.finditer(text):
            tokens += self._literal(text[begin : found.start()], mark) + self._model.encode(found[0])
            begin = found.end()
        return tokens + self._literal(text[begin:], mark)

    def _literal(self, text: str, mark: str) -> list[int]:
        return self._model.encode(text.replace(mark, ""), special=False)

    def _end_of_text(self) -> str:
        return "" if self._model.eos_token is None else self._model.decode([self._model.eos_token])


def _special_texts(model: LoadedModel) -> re.Pattern[str] | None:
    """Finds the text of any special token, the longest first; None where there are none."""
    texts = {text for text in model.special_tokens.values() if text} if model.has_tokenizer else set()
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if texts else None


class _Ranges:
    """range, for one rendering."""

    def __init__(self) -> None:
        self._n_left = MOST_ITEMS

    def make(self, *arguments: int) -> range:
        made = range(*arguments)
        self._n_left -= len(made)
        if self._n_left < 0:
            raise jinja2.TemplateError(f"its ranges count more than {MOST_ITEMS} items")
        return made


def _raise(message: object) -> NoReturn:
    """What templates call for messages that they do not take."""
    raise jinja2.TemplateError(str(message))
