"""EleutherAI's lm-evaluation-harness on models of fastgpt_c, as its model "fastgpt-c".

    python -m fastgpt_c.lm_eval_adapter run --model fastgpt-c --model_args model=gpt2 --tasks lambada_openai

is that library's own command, which knows one model more.  loglikelihood, loglikelihood_rolling and generate_until
give what its HFLM gives for the same checkpoint.  Needs fastgpt-c[eval], and torch, which the library imports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastgpt_c.errors import ContextFullError, UsageError, missing_extra

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    from tqdm import tqdm
except ImportError as error:
    raise missing_extra("eval", "lm-evaluation-harness") from error

from fastgpt_c.model import load
from fastgpt_c.scoring.token_scores import Scorer, start_token

# A request as the harness's TemplateLM makes it: what it was, tokens of the context, tokens after it.
Request = tuple[Any, list[int], list[int]]

_SAMPLING = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty"}
_DEFAULT_MAX_GEN_TOKS = 256  # HFLM's


@register_model("fastgpt-c")
class FastGPTLM(TemplateLM):  # type: ignore[misc]
    """model_args: model (what fastgpt-c -m takes; the demo model if not given), n_threads, kv_type.

    batch_size, max_batch_size and device are taken, since the harness hands them over, and do nothing.
    """

    def __init__(
        self,
        model: str | None = None,
        n_threads: int | None = None,
        kv_type: str = "f32",
        batch_size: object = None,
        max_batch_size: object = None,
        device: object = None,
    ) -> None:
        super().__init__()
        self._model = load(model, n_threads=n_threads)
        self._kv_type = kv_type
        self._scorer = Scorer(self._model, kv_type=kv_type)
        self.max_length = self._model.n_ctx
        self.batch_size = 1

    # ---- Text ----

    @property
    def eot_token_id(self) -> int:
        return start_token(self._model)

    @property
    def tokenizer_name(self) -> str:
        return str(self._model.path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """GPT-2's tokenizer adds no special tokens, whatever the flag says."""
        return self._model.encode(string)

    # ---- Log-likelihoods ----

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Sorted, so that what neighbours have in common, such as the examples of a task, is read once."""
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        order = sorted(range(len(requests)), key=lambda i: requests[i][1] + requests[i][2])
        for i in tqdm(order, disable=disable_tqdm, desc="loglikelihood"):
            asked, context, tokens = requests[i]
            answers[i] = self._one_loglikelihood(context, tokens)
            if asked is not None:
                self.cache_hook.add_partial("loglikelihood", asked, answers[i])
        return answers

    def _one_loglikelihood(self, context: list[int], tokens: list[int]) -> tuple[float, bool]:
        """What does not fit is the beginning of the context."""
        n_room = self.max_length + 1 - len(tokens)
        if n_room < 1:
            raise ContextFullError(
                f"a continuation of {len(tokens)} tokens exceeds the model's n_ctx {self.max_length}"
            )
        scores = self._scorer.after(context[-n_room:], tokens)
        return scores.total, scores.greedy

    def loglikelihood_rolling(self, requests: Iterable[Any], disable_tqdm: bool = False) -> list[float]:
        totals = []
        for (text,) in tqdm([request.args for request in requests], disable=disable_tqdm, desc="rolling"):
            windows = get_rolling_token_windows(
                self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            parts = [self._one_loglikelihood(*make_disjoint_window(window)) for window in windows]
            totals.append(sum(total for total, _ in parts))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), totals[-1])
        return totals

    # ---- Generation ----

    def generate_until(self, requests: Iterable[Any], disable_tqdm: bool = False) -> list[str]:
        texts = []
        for context, options in tqdm([request.args for request in requests], disable=disable_tqdm, desc="generate"):
            texts.append(self._generate(context, options))
            self.cache_hook.add_partial("generate_until", (context, options), texts[-1])
        return texts

    def _generate(self, context: str, options: dict[str, Any]) -> str:
        options = dict(normalize_gen_kwargs(options, _DEFAULT_MAX_GEN_TOKS))
        n_new = options.pop("max_gen_toks")
        if n_new >= self.max_length:
            raise ContextFullError(f"max_gen_toks {n_new} leaves no room for a prompt in n_ctx {self.max_length}")
        end_of_text = self._model.decode([self.eot_token_id])
        stop = [text for text in handle_stop_sequences(options.pop("until", None), eos=end_of_text) if text]
        tokens = self.tok_encode(context)[n_new - self.max_length :]
        completion = self._model.generate(
            tokens, max_new_tokens=n_new, stop=stop, kv_type=self._kv_type, **_sampling(options)
        )
        return str(postprocess_generated_text(completion.text, stop, None))


def _sampling(options: dict[str, Any]) -> dict[str, Any]:
    """The options of Model.generate, in transformers' words; what is none of them is refused."""
    unknown = options.keys() - _SAMPLING - {"do_sample"}
    if unknown:
        raise UsageError(f"gen_kwargs has {', '.join(sorted(unknown))}; only {', '.join(sorted(_SAMPLING))} are known")
    return {"top_p": 1.0} | options if options.pop("do_sample") else options | {"temperature": 0.0}


def main() -> None:
    """The harness's own command."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
