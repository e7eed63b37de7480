"""The model inside the package is the one that its card describes, and it has learnt something."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
import reference
from paths import ROOT

import fastgpt_c

HELD_OUT = ROOT / "tests" / "data" / "fairy_tales_heldout.txt"


@pytest.fixture(scope="module")
def demo() -> Iterator[fastgpt_c.Model]:
    with fastgpt_c.load() as model:
        yield model


def test_size(demo: fastgpt_c.Model) -> None:
    """Small enough to ship, in F16, and of the shape that the card gives."""
    assert demo.path.stat().st_size <= 13e6
    assert demo.type == "F16"
    assert (demo.n_layer, demo.n_head, demo.n_embd, demo.n_ctx, demo.n_vocab) == (6, 8, 256, 512, 4096)


def test_tokenizer(demo: fastgpt_c.Model) -> None:
    """Its vocabulary spells any text, and knows where a text ends."""
    text = "The wolf said: \u201cÀ bientôt!\u201d \U0001f43a\n"
    assert demo.decode(demo.encode(text)) == text
    assert demo.encode("<|endoftext|>") == [demo.eos_token]


def test_logits_equal_the_reference(demo: fastgpt_c.Model) -> None:
    """Trained weights have larger activations than random ones: the kernels' errors stay below 1e-3 all the same."""
    tokens = demo.encode(HELD_OUT.read_text()[:800])
    with demo.session(kv_type="f32") as session:
        actual = session.prefill(tokens, all_logits=True)
    expected = reference.load_gguf(demo.path).logits(np.array(tokens))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-3)


def test_held_out_loss_is_that_of_the_card() -> None:
    """The card quotes what fastgpt-c eval prints: test_evaluation.py holds that against transformers."""
    card = (ROOT / "fastgpt_c" / "models" / "demo.md").read_text()
    vectors = json.loads((ROOT / "tests" / "vectors" / "perplexity.json").read_text())
    quoted = re.search(r"^    perplexity +([\d.]+)", card, re.MULTILINE)
    assert quoted is not None
    assert float(quoted[1]) == pytest.approx(vectors["demo"]["perplexities"]["512"]["mean"], abs=1e-3)


def test_it_tells_stories(demo: fastgpt_c.Model) -> None:
    """Most of the words that it writes occur in 64 KiB of tales it has never seen; of random letters, hardly any do."""
    known = set(re.findall(r"[a-z]+", HELD_OUT.read_text().lower()))
    text = "".join(demo.generate("Once upon a time", seed=seed, max_new_tokens=100).text for seed in range(5))
    words = re.findall(r"[a-z]+", text.lower())
    assert len(words) > 250
    assert sum(word in known for word in words) > 0.6 * len(words)
