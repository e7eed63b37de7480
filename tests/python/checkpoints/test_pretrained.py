"""OpenAI's 124M weights give the tokens that fastGPT publishes.  Opt in with:  pytest -m pretrained

The model is "124M", which load() fetches or finds; FASTGPT_TEST_124M names a GGUF file or checkpoint folder instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

import fastgpt_c

pytestmark = pytest.mark.pretrained

# From the README of https://github.com/certik/fastGPT
PROMPT = "Alan Turing theorized that computers would one day become very powerful, but even he could not imagine"
PROMPT_TOKENS = [
    36235, 39141, 18765, 1143, 326, 9061, 561, 530, 1110, 1716, 845, 3665, 11, 475, 772, 339, 714, 407, 5967,
]  # fmt: skip
GREEDY_TOKENS = [
    703, 484, 561, 307, 1498, 284, 466, 523, 13, 198, 198, 1, 40, 892, 326, 262, 749, 1593, 1517, 318,
]  # fmt: skip
GREEDY_TEXT = ' how they would be able to do so.\n\n"I think that the most important thing is'


@pytest.fixture(scope="module")
def gpt2() -> Iterator[fastgpt_c.Model]:
    """GPT-2 124M."""
    with fastgpt_c.load(os.environ.get("FASTGPT_TEST_124M", "124M")) as model:
        yield model


def test_size(gpt2: fastgpt_c.Model) -> None:
    """It is the model that we think it is."""
    assert (gpt2.n_layer, gpt2.n_head, gpt2.n_embd, gpt2.n_ctx, gpt2.n_vocab) == (12, 12, 768, 1024, 50257)
    assert gpt2.n_params == 124_439_808


def test_prompt_tokens(gpt2: fastgpt_c.Model) -> None:
    """The prompt has the tokens that fastGPT prints, and they spell the prompt."""
    assert gpt2.encode(PROMPT) == PROMPT_TOKENS
    assert gpt2.decode(PROMPT_TOKENS) == PROMPT


@pytest.mark.parametrize("kv_cache", [True, False])
def test_greedy_tokens(gpt2: fastgpt_c.Model, kv_cache: bool) -> None:
    """20 greedy tokens, with the cache and without it."""
    completion = gpt2.generate(PROMPT, max_new_tokens=20, temperature=0.0, kv_cache=kv_cache)
    assert list(completion.tokens) == GREEDY_TOKENS
    assert completion.text == GREEDY_TEXT


def test_token_by_token(gpt2: fastgpt_c.Model) -> None:
    """Decoding the prompt one token at a time leads to the same place."""
    with gpt2.session() as whole, gpt2.session() as single:
        for token in PROMPT_TOKENS:
            logits = single.decode(token)
        np.testing.assert_allclose(logits, whole.prefill(PROMPT_TOKENS), rtol=1e-5, atol=1e-3)
    assert int(logits.argmax()) == GREEDY_TOKENS[0]
