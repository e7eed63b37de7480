"""A loaded model: weights, vocabulary, and what makes sessions and text of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgpt_c import tokenizers
from fastgpt_c._lib import check, create, error_text, ffi, lib
from fastgpt_c.arguments import as_path, made
from fastgpt_c.errors import ContextFullError, FastGPTError, ModelFileError, UsageError
from fastgpt_c.generation import Completion, Options, Prompt, Reader, TextGeneration, tokens_of_prompt
from fastgpt_c.session import Floats, Session, checked_n_threads, token_array
from fastgpt_c.tokenizer import Tokenizer

if TYPE_CHECKING:
    from fastgpt_c.batch import Request
    from fastgpt_c.beams import Beam, Beams
    from fastgpt_c.scoring import TokenScores


def load(
    name_or_path: str | Path | None = None,
    *,
    use_mmap: bool = True,
    n_threads: int | None = None,
    progress: bool = False,
) -> Model:
    """Loads a model.

    name_or_path  None: the bundled demo model; a GGUF file; a folder with a Hugging Face checkpoint; a short name
                  (124M, 355M, 774M, 1558M) or an id of the Hugging Face hub ("gpt2")
    use_mmap      True maps the file, which nobody may then shorten; False copies it
    n_threads     threads of its sessions, up to 1024; None or 0 = the usable cores
    progress      show the progress of downloads and conversions on stderr

    Raises UsageError (n_threads), ModelFileError, MissingExtraError (with the pip command), MemoryError.
    """
    checked_n_threads(n_threads)
    path = None if name_or_path is None else as_path("name_or_path", name_or_path)
    if path is None or path.suffix != ".gguf" or not path.is_file():
        from fastgpt_c import hub  # here, since a plain file needs none of it

        path = hub.resolve(name_or_path, progress=progress)
    return Model(path, use_mmap=use_mmap, n_threads=n_threads)


class Model:
    """A model file.  May be shared by threads; each of them wants a session of its own.

    path, name, type ("F32", "F16", "BF16"), activation ("gelu_tanh", "gelu_erf", "relu", "silu"), n_vocab,
    n_ctx, n_embd, n_head, n_layer, n_ff, n_params,
    eos_token (None when the file names none)
    """

    def __init__(self, path: Path, *, use_mmap: bool = True, n_threads: int | None = None) -> None:
        self.path = path
        self.n_threads = n_threads
        self._handle = _load_handle(path, use_mmap)
        self._pools: dict[int, Any] = {}
        self.n_vocab: int = lib.fastgpt_model_n_vocab(self._handle)
        self.n_ctx: int = lib.fastgpt_model_n_ctx(self._handle)
        self.n_embd: int = lib.fastgpt_model_n_embd(self._handle)
        self.n_head: int = lib.fastgpt_model_n_head(self._handle)
        self.n_layer: int = lib.fastgpt_model_n_layer(self._handle)
        self.n_ff: int = lib.fastgpt_model_n_ff(self._handle)
        self.n_params: int = lib.fastgpt_model_n_params(self._handle)
        self.name: str = ffi.string(lib.fastgpt_model_name(self._handle)).decode("utf-8", "replace")
        self.activation: str = ffi.string(lib.fastgpt_model_activation(self._handle)).decode()
        self.type: str = ffi.string(lib.fastgpt_model_type(self._handle)).decode()
        eos = lib.fastgpt_model_eos_token(self._handle)
        self.eos_token: int | None = eos if eos >= 0 else None

    def metadata(self, key: str) -> bytes | None:
        """The text (UTF-8) or the bytes under a key of the file such as "general.license"; None when it has none."""
        n_bytes = ffi.new("size_t *")
        data = lib.fastgpt_model_metadata(self.handle, key.encode(), n_bytes)
        return None if data == ffi.NULL else ffi.buffer(data, n_bytes[0])[:]

    # ---- Text ----

    @property
    def has_tokenizer(self) -> bool:
        """Whether the file has one; else the model takes and gives token ids."""
        return bool(lib.fastgpt_model_tokens(self.handle).n) or tokenizers.kind_of(self.metadata) is not None

    @cached_property
    def tokenizer(self) -> Tokenizer | tokenizers.LibraryTokenizer:
        """The tokenizer of the file.  Raises ModelFileError when it has none, or MissingExtraError."""
        if kind := tokenizers.kind_of(self.metadata):
            return tokenizers.open_tokenizer(kind, self.metadata, self.n_vocab, self.eos_token)
        if not self.has_tokenizer:
            raise ModelFileError(f"{self.path}: has no tokenizer; work with token ids")
        return Tokenizer.of_model(self.handle, self.n_vocab, self.eos_token)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of text; special=False takes "<|endoftext|>" and its like as literal text."""
        return self.tokenizer.encode(text, special=special)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text that tokens stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.tokenizer.decode(tokens)

    # ---- Work ----

    def session(
        self,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        kv_type: str = "f32",
        deterministic: bool = False,
    ) -> Session:
        """An empty session with room for n_ctx tokens (None = the model's own n_ctx, the most there is), whose cache
        holds numbers of kv_type: "f32", "f16" or "bf16".  deterministic: see Session."""
        return Session(self, n_ctx, n_threads, kv_type, deterministic)

    def load_session(
        self,
        path: str | Path,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        deterministic: bool = False,
    ) -> Session:
        """What Session.save has written, with room for n_ctx tokens: it goes on to the bit as the saved one.

        deterministic: positions from the first on that were not computed so are forgotten.
        Raises ModelFileError (unreadable, damaged, or of a later version), UsageError (saved with another model file),
        ContextFullError (more tokens than n_ctx), MemoryError.
        """
        return Session.load(self, path, n_ctx, n_threads, deterministic)

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

    def beam_search(
        self, prompt: Prompt, beams: Beams | None = None, *, n_threads: int | None = None, **changes: Any
    ) -> list[Beam]:
        """Continuations of prompt that are likely as a whole, best first: Beam(text, tokens, finish_reason, score).

        Keywords are the fields of Beams: num_beams, max_new_tokens, length_penalty, early_stopping; and those of
        sampling.Adjustments: repetition_penalty, no_repeat_ngram_size, min_new_tokens, logit_bias ...  The memory is
        that of num_beams sessions.  Raises UsageError, ContextFullError, MemoryError, KeyboardInterrupt.
        """
        from fastgpt_c.beams import Beams, search  # here, since few need it

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
        from fastgpt_c import batch  # here, since one prompt alone needs none of it

        settings = batch.Batch(
            self,
            made(Options, "options", options, changes),
            max_batch=max_batch,
            max_tokens_in_flight=max_tokens_in_flight,
        )
        return batch.stream(settings, batch.checked_prompts(prompts))

    def generate_batch(
        self, prompts: Iterable[Prompt | Request], options: Options | None = None, **changes: Any
    ) -> list[Completion]:
        """stream_batch, at once: a Completion for each prompt, in their order.  Keywords are the same.

        Raises what stream_batch raises, and when all have ended BatchError if some failed; its .results has the others.
        """
        from fastgpt_c import batch

        return batch.in_order(self.stream_batch(prompts, options, **changes))

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
        stride  how far to move on in a text longer than n_ctx, see scoring.windows; None = n_ctx // 2

        Raises UsageError (a token outside [0, n_vocab), top_k or stride out of range), KeyboardInterrupt.
        """
        from fastgpt_c.scoring import Scorer, score, start_token

        tokens = tokens_of_prompt(self, text)
        with Scorer(self, n_threads=n_threads, kv_type=kv_type) as scorer:
            return score(scorer, tokens, top_k=top_k, start=start_token(self) if bos else None, stride=stride)

    # ---- Life ----

    @property
    def handle(self) -> Any:
        """The fastgpt_model *; whoever holds it keeps the weights alive."""
        if self._handle is None:
            raise UsageError("the model is closed")
        return self._handle

    def pool(self, n_threads: int | None = None) -> Any:
        """The fastgpt_pool * of that many threads, shared by the model's sessions."""
        wanted = self.n_threads if n_threads is None else n_threads
        count = checked_n_threads(wanted) or lib.fastgpt_usable_cores()
        if count not in self._pools:  # no lock that an exception could leave locked: one pool of equals stays
            self._pools.setdefault(count, create(lib.fastgpt_pool_create, count, free=lib.fastgpt_pool_free))
        return self._pools[count]

    def close(self) -> None:
        """Refuses further work; the memory goes when the last session is closed.  Closing twice is harmless."""
        self._handle = None
        self._pools.clear()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load_handle(path: Path, use_mmap: bool) -> Any:
    options = ffi.new("fastgpt_load_options *", {"struct_size": ffi.sizeof("fastgpt_load_options")})
    options.no_mmap = not use_mmap
    out, error = ffi.new("fastgpt_model **"), ffi.new("fastgpt_error *")
    status = lib.fastgpt_model_load(os.fsencode(path), options, out, error)
    check(status, error_text(error))
    return ffi.gc(out[0], lib.fastgpt_model_free, size=lib.fastgpt_model_sizeof(out[0]))
