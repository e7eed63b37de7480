"""Random checkpoints of random sizes, saved by transformers, give transformers' logits and tokens.

FASTGPT_TEST_CHECKPOINTS says how many (default 3).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgpt_c
from fastgpt_c.convert import convert

REASON = "torch and transformers are not installed; tests/vectors has their answers for five fixed models"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

N_GREEDY = 50
TOLERANCE = 1e-4


def random_checkpoint(seed: int, folder: Path) -> Any:
    """Saves a GPT-2 of random size in the folder; returns it in evaluation mode."""
    rng = np.random.default_rng(seed)
    n_head, head_dim = int(rng.integers(1, 6)), int(rng.integers(0, 8)) * 2 + 1
    config = transformers.GPT2Config(
        n_layer=int(rng.integers(1, 5)),
        n_head=n_head,
        n_embd=n_head * head_dim,
        n_inner=int(rng.integers(1, 100)) if rng.random() < 0.3 else None,
        n_positions=int(rng.integers(8, 65)),
        vocab_size=int(rng.integers(300, 5001)),
        tie_word_embeddings=bool(rng.random() < 0.7),
        layer_norm_epsilon=float(10 ** rng.uniform(-6, -2)),
        initializer_range=float(rng.choice([0.02, 0.2])),  # as trained models start, and livelier
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases start at 0 and norms at 1, which would hide mistakes with them
                parameter.add_(torch.randn_like(parameter) * config.initializer_range)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("seed", range(int(os.environ.get("FASTGPT_TEST_CHECKPOINTS", "3"))))
def test_random_checkpoint(tmp_path: Path, seed: int) -> None:
    """Logits within 1e-4 at every position, and the same 50 greedy tokens, as far as n_ctx goes.

    The comparison of tokens ends where the two best logits are too close to tell.
    """
    expected_model = random_checkpoint(seed, tmp_path / "checkpoint")
    convert(tmp_path / "checkpoint", tmp_path / "model.gguf")
    with fastgpt_c.load(tmp_path / "model.gguf") as model, model.session() as session, torch.no_grad():
        tokens = np.random.default_rng(seed).integers(0, model.n_vocab, model.n_ctx)
        expected = expected_model(torch.from_numpy(tokens)[None]).logits[0].numpy()
        np.testing.assert_allclose(session.prefill(tokens, all_logits=True), expected, rtol=0, atol=TOLERANCE)

        session.truncate(0)
        text = tokens[:4].tolist()
        logits = session.prefill(text)
        while len(text) < min(model.n_ctx, 4 + N_GREEDY):
            two_best = expected_model(torch.tensor([text])).logits[0, -1].topk(2)
            if two_best.values[0] - two_best.values[1] < TOLERANCE:
                break
            assert logits.argmax() == two_best.indices[0], f"greedy token {len(text) - 4}"
            text.append(int(logits.argmax()))
            logits = session.decode(text[-1])
