"""A prompt -> the tokens to read, cut to fit into n_ctx where the options allow it."""

from __future__ import annotations

from collections.abc import Sequence

from fastgpt_c.engine.model import LoadedModel
from fastgpt_c.errors import ContextFullError, UsageError
from fastgpt_c.generation.options import Options
from fastgpt_c.native.arguments import shown, token_array

Prompt = str | Sequence[int]


def prompt_tokens(model: LoadedModel, prompt: Prompt, options: Options) -> list[int]:
    """The tokens to read before the first one is drawn, at least one; cut or refused as on_overflow says.

    An empty prompt is the end-of-text token: a text begins where the one before it ended.
    """
    tokens = tokens_of_prompt(model, prompt)
    if tokens:
        return _fit_into_context(tokens, model.n_ctx, options)
    if model.eos_token is None:
        raise UsageError("the prompt is empty, and the model has no end-of-text token to begin with")
    return _fit_into_context([model.eos_token], model.n_ctx, options)


def tokens_of_prompt(model: LoadedModel, prompt: Prompt) -> list[int]:
    """Raises UsageError for what is neither text nor token ids."""
    if isinstance(prompt, str):
        return model.encode(prompt)
    if isinstance(prompt, list | tuple) and any(isinstance(part, str) for part in prompt):
        raise UsageError(
            f"the prompt is {shown(prompt)}, more than one text: generate_batch and stream_batch take a list of them"
        )
    try:
        return token_array(prompt).tolist()  # type: ignore[no-any-return]
    except UsageError as error:
        raise UsageError(f"the prompt is {shown(prompt)}, not text or a row of token ids: {error}") from None


def _fit_into_context(tokens: list[int], n_ctx: int, options: Options) -> list[int]:
    n_new = options.max_new_tokens
    if len(tokens) + n_new <= n_ctx:
        return tokens
    if options.on_overflow == "slide":
        return tokens if len(tokens) <= n_ctx else newest_half(tokens, n_ctx)
    if options.on_overflow == "truncate" and n_new < n_ctx:
        return tokens[len(tokens) + n_new - n_ctx :]
    raise ContextFullError(
        f"{len(tokens)} prompt tokens and {n_new} new ones exceed the model's n_ctx of {n_ctx}; "
        f'shorten either, or choose on_overflow "truncate" or "slide"'
    )


def newest_half(tokens: list[int], n_ctx: int) -> list[int]:
    """The newest tokens, as many as fill half of the context."""
    return tokens[-max(n_ctx // 2, 1) :]
