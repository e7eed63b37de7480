"""vLLM on the CPU; it runs with its own copy of Intel's OpenMP, which it is faster with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from harness.engine import N_CTX, Engine, Rows, main
from harness.plan import TEMPERATURE, TOP_P

DTYPES = {"f32": "float32", "bf16": "bfloat16"}


class VLLM(Engine):
    def load(self, model: str, type: str, n_threads: int) -> None:
        os.environ.update(
            VLLM_CPU_KVCACHE_SPACE="4",
            VLLM_CPU_OMP_THREADS_BIND=f"0-{n_threads - 1}",
            VLLM_ENABLE_V1_MULTIPROCESSING="0",
            VLLM_LOGGING_LEVEL="WARNING",
        )
        from vllm import LLM

        self.llm = LLM(
            model, dtype=DTYPES[type], skip_tokenizer_init=True, max_model_len=N_CTX, enable_prefix_caching=False
        )

    def continue_all(self, prompts: Rows, n_new: int, sampled: bool) -> Rows:
        from vllm import SamplingParams, TokensPrompt

        drawn = {"temperature": TEMPERATURE, "top_p": TOP_P} if sampled else {"temperature": 0.0}
        params = SamplingParams(max_tokens=n_new, ignore_eos=True, detokenize=False, **drawn)
        found = self.llm.generate([TokensPrompt(prompt_token_ids=prompt) for prompt in prompts], params, use_tqdm=False)
        return [list(one.outputs[0].token_ids) for one in found]


def preload_openmp() -> None:
    """Starts the process anew with libiomp5 before all other libraries, as vLLM's manual asks."""
    libraries = sorted(Path(sys.prefix).rglob("libiomp5.so"))
    if libraries and "libiomp5" not in os.environ.get("LD_PRELOAD", ""):
        os.environ["LD_PRELOAD"] = str(libraries[0])
        os.execv(sys.executable, [sys.executable, "-m", "engines.vllm_batches", *sys.argv[1:]])


if __name__ == "__main__":
    preload_openmp()
    main(VLLM())
