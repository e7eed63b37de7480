"""A model and all that it can do: what packages below do one by one, under one name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastgpt_c.engine.model import LoadedModel
from fastgpt_c.engine.reader import Reader
from fastgpt_c.engine.session import Session
from fastgpt_c.errors import ContextFullError, FastGPTError, UsageError
from fastgpt_c.generation.completion import Completion
from fastgpt_c.generation.options import BatchKeywords, OptionKeywords, Options
from fastgpt_c.generation.prompt import Prompt, tokens_of_prompt
from fastgpt_c.generation.text_generation import TextGeneration
from fastgpt_c.io.c_strings import c_path
from fastgpt_c.native.arguments import Floats, as_path, checked_n_threads, merge_options, token_array
from fastgpt_c.native.typing_unpack import Unpack

if TYPE_CHECKING:
    from fastgpt_c.batching.requests import Request
    from fastgpt_c.generation.beam_search import Beam, BeamKeywords, Beams
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
    """A model file and all that it can do.  Made by fastgpt_c.load; close it, or use it in a "with" statement.

    Threads may share a model: generate, stream, score and the like make sessions of their own.  A session belongs to
    one thread at a time.

    path        of the file
    name        that the file gives, "" = none
    type        of its weights: "F32", "F16", "BF16", "Q8_0" ...
    activation  "gelu_tanh", "gelu_erf", "relu" or "silu"
    n_vocab     tokens of the vocabulary
    n_ctx       positions: the longest text, prompt included
    n_embd, n_head, n_layer, n_ff, n_params
                sizes; layers and heads are counted from 0
    eos_token   id of the end-of-text token, or None
    eos_tokens  ids of all tokens that end a text, that one first
    n_threads   threads of its sessions; None = the usable cores
    """

    def generate(
        self,
        prompt: Prompt,
        options: Options | None = None,
        reader: Reader | Session | None = None,
        **changes: Unpack[OptionKeywords],
    ) -> Completion:
        """Continues a prompt -> Completion(text, tokens, finish_reason, n_prompt, seed ...).

        prompt   text or token ids; "" = the end-of-text token
        options  an Options, or a dict of its fields; None = the defaults
        reader   a Session to go on with instead of a new one, whose kv_type, deterministic and n_threads count then;
                 what it holds of the prompt is not read again
        changes  single options by name, which go before those of options:

        How long, and where to end
            max_new_tokens        tokens to generate at most (100)
            min_new_tokens        no end-of-text token before so many (0)
            stop                  a text, or several, before which the completion ends (none)
            ignore_eos            True goes on after a token that ends texts (False)
            on_overflow           when prompt + max_new_tokens exceeds n_ctx: "error", "truncate" or "slide" ("error")
        How tokens are drawn
            temperature           logits are divided by it; 0 = greedy (0.8)
            top_k                 draw from the k likeliest tokens; 0 = all (0)
            top_p                 draw from the likeliest tokens that sum to this probability; 1 = all (0.95)
            min_p                 draw from tokens at least so many times as likely as the likeliest (0)
            typical_p             draw from the tokens nearest to the expected surprise that sum to it; 1 = all (0)
            top_n_sigma           draw from logits within so many standard deviations of the largest; 0 = all (0)
            mirostat_tau          bits of surprise a token to aim at (mirostat 2.0); 0 = off (0)
            mirostat_eta          how fast mirostat adapts (0.1)
            seed                  the same seed draws the same text; None = a fresh one (None)
        Adjusted logits
            repetition_penalty    divides logits of tokens that were there before; 1 = off (1)
            frequency_penalty     taken from a logit for each time that its token was generated (0)
            presence_penalty      taken from the logits of all tokens that were generated (0)
            no_repeat_ngram_size  n: no n tokens in a row come twice; 0 = off (0)
            logit_bias            {token: number added to its logit}; -inf bans a token (None)
            logits_processor      a function of (tokens, logits), called before each draw (None)
        Constraints, of which one may be given
            regex                 the text matches this regular expression (None)
            json_schema           the text is JSON of this schema, a text or a dict (None)
            grammar               the text matches this grammar, in Lark's notation (None)
        What is returned
            logprobs              k: Completion.logprobs has each token and the k likeliest in its place (None)
        How it is computed
            kv_cache              False computes all positions anew for each token (True)
            kv_type               values of the KV cache: "f32", "f16", "bf16", "q8_0"; see Options ("auto")
            deterministic         the same bits alone, in a batch, and without KV cache (False)
            n_threads             threads; None = the model's (None)
            prompt_lookup         speculative decoding: guess so many tokens from the text so far (0)
            draft                 speculative decoding: a smaller Model that guesses (None)
            penalty_alpha         contrastive search among top_k tokens, in [0, 1] (None)
            control_vector        a ControlVector that is added to the residual stream: steers the text (None)

        fastgpt_c.Options says more of each.  Raises UsageError (a wrong name or value; the message has the nearest
        right one), ContextFullError (more tokens than n_ctx), MissingExtraError (a constraint without llguidance),
        MemoryError, KeyboardInterrupt.
        """
        return self.stream(prompt, options, reader, **changes).finish()

    def stream(
        self,
        prompt: Prompt,
        options: Options | None = None,
        reader: Reader | Session | None = None,
        **changes: Unpack[OptionKeywords],
    ) -> TextGeneration:
        """Continues a prompt -> an iterator over pieces of text, each as soon as its characters are complete.

        Arguments are those of generate.  After the last piece its .completion is what generate returns; .finish() reads
        to the end.  Raises what generate raises: for arguments at once, for the rest with the piece.
        """
        return TextGeneration(self, prompt, merge_options(Options, "options", options, changes), reader)

    def default_options(self) -> Options:
        """Options as the model's own generation_config.json has them, which nothing applies by itself: with them,
        generate does what transformers' generate does where nobody says how.  Options() where the file has none."""
        from fastgpt_c.generation.model_defaults import model_defaults  # here, since few need it

        return Options(**model_defaults(self))

    def beam_search(
        self,
        prompt: Prompt,
        beams: Beams | None = None,
        *,
        n_threads: int | None = None,
        **changes: Unpack[BeamKeywords],
    ) -> list[Beam]:
        """Continuations of prompt that are likely as a whole, best first: Beam(text, tokens, finish_reason, score).

        prompt   text or token ids; prompt + max_new_tokens must fit into n_ctx
        beams    a Beams, or a dict of its fields
        changes  single fields of Beams: num_beams, max_new_tokens, length_penalty, early_stopping, repetition_penalty,
                 frequency_penalty, presence_penalty, no_repeat_ngram_size, min_new_tokens, logit_bias

        Takes the memory of num_beams sessions that share the prompt.  Raises UsageError, ContextFullError,
        MemoryError, KeyboardInterrupt.
        """
        from fastgpt_c.generation.beam_search import Beams, search  # here, since few need it

        return search(self, prompt, merge_options(Beams, "beams", beams, changes), n_threads)

    def stream_batch(
        self,
        prompts: Iterable[Prompt | Request],
        options: Options | None = None,
        *,
        n: int = 1,
        max_batch: int = 32,
        max_tokens_in_flight: int | None = None,
        prefill_chunk: int | None = None,
        prefix_cache: int | None = None,
        **changes: Unpack[BatchKeywords],
    ) -> Iterator[tuple[int, Completion | FastGPTError]]:
        """Continues many prompts, together -> (index of the prompt, its completion) as each one ends.

        prompts    text or token ids, or a Request, which changes options for one of them.  May be endless: the next one
                   is asked for when there is room for it
        n          completions of each prompt, in [1, 128], which read it once.  The first draws as with n=1, the others
                   from seeds that are made of its seed; their index is the same
        options, changes
                   as in generate, for all prompts; kv_type, deterministic and n_threads are those of the whole batch.
                   With deterministic=True neighbours make no difference to a completion, to the bit; without it, which
                   is faster, sums are added in another order, and two tokens that are about as likely may change places
        max_batch  sequences that are computed together, up to 4096
        max_tokens_in_flight
                   room in all KV caches together, in tokens: a sequence takes its prompt's and its max_new_tokens;
                   None = half of what max_batch sequences of n_ctx tokens would take
        prefill_chunk
                   tokens of prompts that a step reads at most while texts grow beside them; None = 512
        prefix_cache
                   tokens that idle KV caches keep at most for later prompts that begin alike; None = all that no text
                   needs

        A prompt that fails (too long, a bad option ...) gives its error in place of a completion, and the others go on.
        Options that read several tokens a step for one text are refused: prompt_lookup, draft, penalty_alpha.  Raises
        UsageError for options that no prompt could use; MemoryError, KeyboardInterrupt.
        """
        from fastgpt_c.batching import requests  # here, since one prompt alone needs none of it

        batch = requests.Batch(
            self, merge_options(Options, "options", options, changes), n=n, max_batch=max_batch,
            max_tokens_in_flight=max_tokens_in_flight, prefill_chunk=prefill_chunk, prefix_cache=prefix_cache,
        )  # fmt: skip
        return requests.stream(batch, requests.checked_prompts(prompts))

    def generate_batch(
        self,
        prompts: Iterable[Prompt | Request],
        options: Options | None = None,
        *,
        n: int = 1,
        max_batch: int = 32,
        max_tokens_in_flight: int | None = None,
        prefill_chunk: int | None = None,
        prefix_cache: int | None = None,
        **changes: Unpack[BatchKeywords],
    ) -> list[Completion]:
        """stream_batch, at once: n completions for each prompt, in the order of the prompts.

        Arguments are those of stream_batch.  With n=3 the first three completions are those of the first prompt.
        Raises what stream_batch raises, and once all have ended BatchError if some failed; its .results has the others.
        """
        from fastgpt_c.batching import requests

        batch = requests.Batch(
            self, merge_options(Options, "options", options, changes), n=n, max_batch=max_batch,
            max_tokens_in_flight=max_tokens_in_flight, prefill_chunk=prefill_chunk, prefix_cache=prefix_cache,
        )  # fmt: skip
        return requests.in_order(batch, requests.checked_prompts(prompts))

    def embed(self, prompt: Prompt, pooling: str = "last") -> Floats:
        """A text, or token ids, as one vector -> float32 [n_embd]: the hidden state after the last layer and ln_f.

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
        """How likely the model finds text (or token ids): TokenScores(tokens, logprobs, ranks, top_tokens ...), arrays
        with an element for each token; log-probabilities are natural logarithms.

        top_k   the top_k likeliest tokens in each place, too
        bos     begin with the end-of-text token, as GPT-2's texts do, so that the first token has a score as well;
                otherwise its log-probability is NaN
        stride  how far to move on in a text longer than n_ctx, see token_scores.windows; None = n_ctx // 2

        Raises UsageError (a token outside [0, n_vocab), top_k or stride out of range), KeyboardInterrupt.
        """
        from fastgpt_c.scoring.token_scores import Scorer, score, start_token

        tokens = tokens_of_prompt(self, text)
        with Scorer(self, n_threads=n_threads, kv_type=kv_type) as scorer:
            return score(scorer, tokens, top_k=top_k, start=start_token(self) if bos else None, stride=stride)
