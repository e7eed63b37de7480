"""Laws of the sampler beside transformers itself: what any combination of parameters keeps, and how likely it is.

FASTGPT_TEST_SAMPLERS says how many random combinations are compared.  tests/vectors has transformers' answers to some
hundred fixed ones, for machines that do not have it.
"""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from paths import ROOT

from fastgpt_c.engine.sampler import Sampler

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

N_COMBINATIONS = int(os.environ.get("FASTGPT_TEST_SAMPLERS", "2000"))
N_VOCAB = 60
EOS = 7


def vectors_tool() -> ModuleType:
    """tools/make_vectors.py, which knows how transformers is asked, and where rounding alone decides."""
    spec = importlib.util.spec_from_file_location("make_vectors", ROOT / "tools" / "make_vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_case(rng: np.random.Generator) -> dict[str, Any]:
    """Each parameter is off in half of the cases, and else anywhere in its range."""

    def either(off: Any, value: Any) -> Any:
        return value if rng.random() < 0.5 else off

    return {
        "temperature": either(1.0, float(rng.uniform(0.1, 3))) if rng.random() < 0.9 else 0.0,
        "top_k": either(0, int(rng.integers(1, N_VOCAB))),
        "top_p": either(1.0, float(rng.choice([0, rng.uniform(0, 1)], p=[0.1, 0.9]))),
        "min_p": either(0.0, float(rng.uniform(0, 0.5))),
        "typical_p": either(1.0, float(rng.uniform(0.05, 0.99))),
        "repetition_penalty": either(1.0, float(rng.uniform(0.5, 3))),
        "no_repeat_ngram_size": either(0, int(rng.integers(1, 4))),
        "min_new_tokens": either(0, int(rng.integers(1, 6))),
        "bias": bool(rng.random() < 0.3),
        "allowed": bool(rng.random() < 0.3),
    }


def our_probabilities(case: dict[str, Any], bias: dict[int, float], allowed: list[int], history: Any, n_prompt: int,
                      logits: Any) -> Any:  # fmt: skip
    fields = {name: value for name, value in case.items() if name not in ("bias", "allowed")}
    sampler = Sampler(N_VOCAB, **fields, logit_bias=bias if case["bias"] else None, eos_token=EOS)
    if case["allowed"]:
        sampler.allow(allowed)
    sampler.accept_prompt(history[:n_prompt])
    sampler.accept(history[n_prompt:])
    return sampler.probabilities(logits)


def test_random_combinations_equal_transformers() -> None:
    """The same tokens survive, with the same probabilities, wherever more than rounding decides."""
    tool, rng = vectors_tool(), np.random.default_rng(12)
    config = transformers.GPT2Config(
        vocab_size=N_VOCAB, n_positions=32, n_embd=8, n_layer=1, n_head=1, bos_token_id=EOS, eos_token_id=EOS
    )
    model = transformers.GPT2LMHeadModel(config)
    n_compared = 0
    for _ in range(N_COMBINATIONS):
        case, history = random_case(rng), tool.sampler_history(rng, N_VOCAB)
        logits = tool.sampler_logits(rng, N_VOCAB)[int(rng.integers(3))]
        bias = {int(token): float(rng.normal(0, 3)) for token in rng.choice(N_VOCAB, 5, replace=False)}
        allowed = sorted(int(token) for token in rng.choice(N_VOCAB, 40, replace=False))
        n_prompt = len(history) - tool.N_TAKEN
        processors = tool.Processors(model, case, bias, allowed, EOS, n_prompt)
        if not processors.is_fair(history, logits):
            continue
        n_compared += 1
        expected = processors.probabilities(history, logits)
        actual = our_probabilities(case, bias, allowed, history, n_prompt, logits)
        np.testing.assert_array_equal(actual > 0, expected > 0, err_msg=str(case))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7, err_msg=str(case))
    assert n_compared > N_COMBINATIONS // 2
