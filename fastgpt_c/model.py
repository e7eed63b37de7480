"""A model and all that it can do: what packages below do one by one, under one name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgpt_c.engine.model import LoadedModel
from fastgpt_c.engine.reader import Reader
from fastgpt_c.engine.session import Session
from fastgpt_c.errors import ContextFullError, FastGPTError, UsageError
from fastgpt_c.generation.completion import Completion
from fastgpt_c.generation.options import Options
from fastgpt_c.generation.prompt import Prompt, tokens_of_prompt
from fastgpt_c.generation.text_generation import TextGeneration
from fastgpt_c.io.c_strings import c_path
from fastgpt_c.native.arguments import Floats, as_path, checked_n_threads, made, token_array

if TYPE_CHECKING:
    from fastgpt_c.batching.requests import Request
    from fastgpt_c.generation.beam_search import Beam, Beams
    from fastgpt_c.scoring.token_scores import TokenScores


def load(
    name_or_path: str | Path | None = None,
    *,
    use_mmap: bool = True,
    n_threads: int | None = None,
    progress: bool = False,
    vocab_only: bool = False,
) -> Model:
    """Loads a model.

    name_or_path  None: the bundled demo model; a GGUF file; a folder with a Hugging Face checkpoint; a short name
                  (124M, 355M, 774M, 1558M) or an id of the Hugging Face hub ("gpt2")
    use_mmap      True maps the file, which nobody may then shorten; False copies it
    n_threads     threads of its sessions, up to 1024; None or 0 = the usable cores
    progress      show the progress of downloads and conversions on stderr
    vocab_only    True reads the tokenizer alone, of a file that may have no weights: encode and decode work, and
                  sessions are refused

    Raises UsageError (n_threads, a NUL in the name), ModelFileError, MissingExtraError (with the pip command),
    MemoryError.
    """
    checked_n_threads(n_threads)
    path = None if name_or_path is None else as_path("name_or_path", name_or_path)
    if path is not None:
        c_path(path)
    if path is None or path.suffix != ".gguf" or not path.is_file():
        from fastgpt_c.checkpoints import resolve  # here, since a plain file needs none of it

        path = resolve.resolve(name_or_path, progress=progress)
    return Model(path, use_mmap=use_mmap, n_threads=n_threads, vocab_only=vocab_only)


class Model(LoadedModel):
    """A model file.  May be shared by threads; each of them wants a session of its own.

    path, name, type ("F32", "F16", "BF16"), activation ("gelu_tanh", "gelu_erf", "relu", "silu"), n_vocab,
    n_ctx, n_embd, n_head, n_layer, n_ff, n_params,
    eos_token (None when the file names none), eos_tokens (all tokens that end a text, that one first)
    """

    def stream(
        self, prompt: Prompt, options: Options | None = None, reader: Reader | Session | None = None, **changes: Any
    ) -> TextGeneration:
        """Continues prompt (text or token ids): an iterator over pieces of text, as soon as they are complete.

        Keywords are the fields of Options: max_new_tokens, stop, on_overflow, kv_cache, kv_type, deterministic,
        n_threads; and those of Sampling: temperature, top_k, top_p, seed, repetition_penalty and many more.  With
        penalty_alpha=0.6, top_k=4 by contrastive search.
        options may also be a dict.  reader: a Session to go on with instead of a new one, which has its own kv_type,
        deterministic and n_threads; what it holds of the prompt is not read again.
        """
        return TextGeneration(self, prompt, made(Options, "options", options, changes), reader)

    def generate(self, prompt: Prompt, options: Options | None = None, **changes: Any) -> Completion:
        """stream, at once: Completion(text, tokens, finish_reason ...)."""
        return self.stream(prompt, options, **changes).finish()

    def default_options(self) -> Options:
        """Options as the model's own generation_config.json has them, which nothing applies by itself: with them,
        generate does what transformers' generate does where nobody says how.  Options() where the file has none."""
        from fastgpt_c.generation.model_defaults import model_defaults  # here, since few need it

        return Options(**model_defaults(self))

    def beam_search(
        self, prompt: Prompt, beams: Beams | None = None, *, n_threads: int | None = None, **changes: Any
    ) -> list[Beam]:
        """Continuations of prompt that are likely as a whole, best first: Beam(text, tokens, finish_reason, score).

        Keywords are the fields of Beams: num_beams, max_new_tokens, length_penalty, early_stopping; and those of
        sampler.Adjustments: repetition_penalty, no_repeat_ngram_size, min_new_tokens, logit_bias ...  The memory is
        that of num_beams sessions.  Raises UsageError, ContextFullError, MemoryError, KeyboardInterrupt.
        """
        from fastgpt_c.generation.beam_search import Beams, search  # here, since few need it

        return search(self, prompt, made(Beams, "beams", beams, changes), n_threads)

    def stream_batch(
        self,
        prompts: Iterable[Prompt | Request],
        options: Options | None = None,
        *,
        max_batch: int = 32,
        max_tokens_in_flight: int | None = None,
        **changes: Any,
    ) -> Iterator[tuple[int, Completion | FastGPTError]]:
        """Continues many prompts, together -> (index of the prompt, its completion) as each one ends.

        prompts   text or token ids, or a Request, which changes options for one of them.  May be endless: the next one
                  is asked for when there is room for it
        options, changes
                  as in stream, for all prompts; n_threads, kv_type and deterministic are those of the whole batch.
                  deterministic: a prompt's tokens are the same whatever else is in the batch, to the bit.  The default
                  is faster, and sums in another order, so that now and then two tokens that are about as likely change
                  places
        max_batch sequences that are computed together, up to 4096
        max_tokens_in_flight
                  room in all KV caches together, in tokens: a prompt takes its own and its max_new_tokens; None = half
                  of what max_batch prompts could take at most

        A prompt that fails (too long, a bad option ...) gives its error in the place of a completion, and the rest goes
        on.  Raises UsageError for options that no prompt could use; MemoryError.
        """
        from fastgpt_c.batching import requests  # here, since one prompt alone needs none of it

        settings = requests.Batch(
            self,
            made(Options, "options", options, changes),
            max_batch=max_batch,
            max_tokens_in_flight=max_tokens_in_flight,
        )
        return requests.stream(settings, requests.checked_prompts(prompts))

    def generate_batch(
        self, prompts: Iterable[Prompt | Request], options: Options | None = None, **changes: Any
    ) -> list[Completion]:
        """stream_batch, at once: a Completion for each prompt, in their order.  Keywords are the same.

        Raises what stream_batch raises, and when all have ended BatchError if some failed; its .results has the others.
        """
        from fastgpt_c.batching import requests

        return requests.in_order(self.stream_batch(prompts, options, **changes))

    def embed(self, prompt: Prompt, pooling: str = "last") -> Floats:
        """A text, or token ids, as one vector -> float32 [n_embd]: the last hidden state, after ln_f.

        pooling  "last": of the last token, which has seen all others; "mean": the mean of all tokens
        Raises UsageError (no tokens, another pooling), ContextFullError.
        """
        if pooling not in ("last", "mean"):
            raise UsageError(f'pooling is {pooling!r}; it must be "last" or "mean"')
        tokens = token_array(tokens_of_prompt(self, prompt))
        if not len(tokens):
            raise UsageError("the prompt is empty: there is nothing to embed")
        if len(tokens) > self.n_ctx:
            raise ContextFullError(f"the prompt has {len(tokens)} tokens, more than the model's n_ctx of {self.n_ctx}")
        with self.session(n_ctx=len(tokens)) as session:
            rows = session.inspect(tokens, "ln_f")["ln_f"]
        vector: Floats = rows[-1] if pooling == "last" else rows.mean(axis=0, dtype=np.float64)
        return vector.astype(np.float32)

    def score(
        self, text: Prompt, *, top_k: int = 0, bos: bool = False, stride: int | None = None,
        n_threads: int | None = None, kv_type: str = "f32",
    ) -> TokenScores:  # fmt: skip
        """How likely the model finds text (or token ids): TokenScores(tokens, logprobs, ranks, top_tokens ...).

        top_k   tell the top_k likeliest tokens in each place, too
        bos     begin with the end-of-text token, as GPT-2's texts do, so that the first token has a score as well;
                otherwise its log-probability is NaN
        stride  how far to move on in a text longer than n_ctx, see token_scores.windows; None = n_ctx // 2

        Raises UsageError (a token outside [0, n_vocab), top_k or stride out of range), KeyboardInterrupt.
        """
        from fastgpt_c.scoring.token_scores import Scorer, score, start_token

        tokens = tokens_of_prompt(self, text)
        with Scorer(self, n_threads=n_threads, kv_type=kv_type) as scorer:
            return score(scorer, tokens, top_k=top_k, start=start_token(self) if bos else None, stride=stride)
