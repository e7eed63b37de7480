"""A logit is the sum of what the parts of the model added to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from models import Tiny
from paths import VECTORS

import fastgpt_c
from fastgpt_c.analysis import attribution, composition
from fastgpt_c.convert import convert
from fastgpt_c.errors import ContextFullError, UsageError


def tokens_of(tiny: Tiny) -> list[int]:
    return [int(token) for token in tiny.golden["tokens"].ravel()[:7]]


@pytest.mark.parametrize("position", [0, 3, -1])
def test_parts_sum_to_the_logit(tiny: Tiny, position: int) -> None:
    """For every architecture, a logit and a difference: within 1e-3 of what the model says."""
    tokens, model = tokens_of(tiny), tiny.model
    with model.session() as session:
        logits = session.prefill(tokens, all_logits=True)[position]
    found = attribution.attribute(model, tokens, position=position)
    assert found.answer == logits.argmax() and found.position == position % len(tokens)
    difference = attribution.attribute(model, tokens, 5, 2, position)
    for expected, parts in ((logits.max(), found), (logits[5] - logits[2], difference)):
        assert parts.logit == pytest.approx(expected, abs=1e-4)
        assert parts.total == pytest.approx(expected, abs=1e-3)


def test_heads_of_a_layer_are_what_attention_wrote(tiny: Tiny) -> None:
    """Their sum and the bias are what the residual stream gained, and no head reads after the position."""
    tokens = tokens_of(tiny)
    found = attribution.attribute(tiny.model, tokens, 1, position=-2)
    with tiny.model.session() as session:
        seen = session.inspect(tokens, "hidden", "hidden_mid")
    gained = (seen["hidden_mid"][:, -2] - seen["hidden"][:-1, -2]).astype(np.float64) @ found.direction
    assert np.allclose(found.heads.sum(axis=1) + found.attn_bias, gained, atol=1e-4)
    assert found.sources.shape == (tiny.model.n_layer, tiny.model.n_head, len(tokens) - 1)


def test_answers_by_text() -> None:
    """A text of one token is its id; of several, an error that names them; the report is JSON."""
    with fastgpt_c.load() as model:
        tokens = model.encode("Once upon a time, there was a little")
        found = attribution.attribute(model, tokens, " girl", " boy")
        assert (found.answer, found.against) == (model.encode(" girl")[0], model.encode(" boy")[0])
        report = json.loads(json.dumps(attribution.report(model, found)))
        assert report["answer_text"] == " girl" and np.shape(report["heads"]) == (model.n_layer, model.n_head)
        assert np.allclose(report["heads"], np.sum(report["sources"], axis=2), atol=1e-3)
        assert [abs(added) for _, added in attribution.largest(found, 5)] == sorted(
            (abs(added) for _, added in attribution.largest(found, 5)), reverse=True
        )
        with pytest.raises(UsageError, match=r"answer is ' girls and', \d tokens \(' girl"):
            attribution.attribute(model, tokens, " girls and")
        with pytest.raises(UsageError, match=r"against is -1"):
            attribution.attribute(model, tokens, 1, -1)


def test_what_cannot_be_attributed() -> None:
    with fastgpt_c.load() as model:
        with pytest.raises(UsageError, match="empty"):
            attribution.attribute(model, [])
        with pytest.raises(UsageError, match="position is 2"):
            attribution.attribute(model, [1, 2], position=2)
        with pytest.raises(ContextFullError, match="n_ctx"):
            attribution.attribute(model, [1] * (model.n_ctx + 1))


def test_tensors_are_those_of_the_file(tiny: Tiny) -> None:
    """Every tensor by its name, or some of its rows; the output matrix is the embedding where they are tied."""
    from reference import load_gguf

    weights = load_gguf(tiny.path).weights
    for name, expected in weights.items():
        assert np.array_equal(tiny.model.tensor(name), expected), name
    output = weights.get("output.weight", weights["token_embd.weight"])
    assert np.array_equal(tiny.model.tensor("output.weight", [3, 0]), output[[3, 0]])
    with pytest.raises(UsageError, match=r"no tensor 'wte'"):
        tiny.model.tensor("wte")
    with pytest.raises(UsageError, match="row is 99999"):
        tiny.model.tensor("output.weight", [99999])


@pytest.fixture(scope="module", params=["three_heads", "three_layers", "n_inner"])
def lens_vectors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A model, and what TransformerLens says about it (tools/make_transformer_lens_vectors.py)."""
    path = tmp_path_factory.mktemp("lens_vectors") / "model.gguf"
    convert(VECTORS / request.param, path)
    with np.load(VECTORS / request.param / "patching.npz") as golden, fastgpt_c.load(path) as model:
        yield model, dict(golden)


def test_parts_are_those_of_transformer_lens(lens_vectors: Any) -> None:
    """decompose_resid and stack_head_results through logit_attrs, within 1e-3 of the largest."""
    model, golden = lens_vectors
    answer, against = golden["pair"].tolist()
    found = attribution.attribute(model, golden["clean"], answer, against)
    parts = {"embed": found.token_embed, "pos_embed": found.pos_embed}
    for layer in range(model.n_layer):
        parts[f"{layer}_attn_out"] = found.heads[layer].sum() + found.attn_bias[layer]
        parts[f"{layer}_mlp_out"] = found.feed_forward[layer] + found.ff_bias[layer]
    tolerance = 1e-3 * np.abs(golden["parts"]).max()
    np.testing.assert_allclose([parts[label] for label in golden["labels"]], golden["parts"], atol=tolerance)
    np.testing.assert_allclose(found.heads.ravel(), golden["heads"], atol=1e-3 * np.abs(golden["heads"]).max())
    by_neuron = attribution.neurons(model, found)
    np.testing.assert_allclose(by_neuron.ravel(), golden["neurons"], atol=1e-3 * np.abs(golden["neurons"]).max())
    np.testing.assert_allclose(by_neuron.sum(axis=1), found.feed_forward, atol=1e-4)


@pytest.mark.parametrize("mode", composition.MODES)
def test_composition_scores_are_those_of_transformer_lens(lens_vectors: Any, mode: str) -> None:
    """all_composition_scores of its model with folded norms and centred weights."""
    model, golden = lens_vectors
    np.testing.assert_allclose(composition.scores(model, mode), golden[f"composition_{mode}"], atol=1e-3)
