"""Patching gives the arrays of TransformerLens, in any order, alone or together, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from paths import VECTORS

import fastgpt_c
from fastgpt_c import Edit, patching
from fastgpt_c.convert import convert
from fastgpt_c.errors import ContextFullError, UsageError


@pytest.fixture(scope="module", params=["three_heads", "three_layers", "n_inner"])
def vectors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A model, and what TransformerLens says about it (tools/make_transformer_lens_vectors.py)."""
    path = tmp_path_factory.mktemp("patching") / "model.gguf"
    convert(VECTORS / request.param, path)
    with np.load(VECTORS / request.param / "patching.npz") as golden, fastgpt_c.load(path) as model:
        yield model, dict(golden)


BY_POSITION = ("layer", "position", "head")
BY_HEAD = ("layer", "head")
SWEEPS = [
    ("resid_pre", "resid_pre", ("layer", "position")),
    # A TransformerBridge's hook_resid_mid is what the norm reads: the stream itself goes on unchanged.
    ("resid_mid", "ln_2", ("layer", "position")),
    ("attn_out", "attn_out", ("layer", "position")),
    ("mlp_out", "ff_out", ("layer", "position")),
    *((f"attn_head_{name}_by_pos", site, BY_POSITION) for name, site in zip(("out", *"qkv"), "zqkv", strict=True)),
    *((f"attn_head_{name}_all_pos", site, BY_HEAD) for name, site in zip(("out", *"qkv"), "zqkv", strict=True)),
    ("attn_head_pattern_all_pos", "pattern", BY_HEAD),
    ("attn_head_pattern_by_pos", "pattern", ("layer", "head", "position")),
    ("attn_head_pattern_dest_src_pos", "pattern", ("layer", "head", "position", "source")),
]


@pytest.mark.parametrize(("name", "site", "by"), SWEEPS, ids=[name for name, _, _ in SWEEPS])
def test_arrays_are_those_of_transformer_lens(vectors: Any, name: str, site: str, by: tuple[str, ...]) -> None:
    """Every get_act_patch_* function, within 1e-4."""
    model, golden = vectors
    metric = patching.logit_difference(model, *golden["pair"].tolist())
    found = patching.act_patch(model, golden["clean"], golden["corrupted"], metric, site, by, progress=False)
    np.testing.assert_allclose(found, golden[f"patch_{name}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("component", ["q", "k", "v"])
def test_paths_are_those_of_transformer_lens(vectors: Any, component: str) -> None:
    """Every sender to every later head; NaN where TransformerLens has the 0 of a receiver that is not later."""
    model, golden = vectors
    metric = patching.logit_difference(model, *golden["pair"].tolist())
    for layer, head in np.ndindex(model.n_layer, model.n_head):
        found = patching.path_patch(
            model, golden["clean"], golden["corrupted"], metric, (layer, head), component, progress=False
        )
        assert np.isnan(found[: layer + 1]).all()
        expected = golden[f"path_{component}"][layer, head, layer + 1 :]
        np.testing.assert_allclose(found[layer + 1 :], expected, rtol=0, atol=1e-4)


def test_all_ways_are_the_direct_one_between_neighbours(vectors: Any) -> None:
    """But for the feed-forward part of the sender's own layer: without it, both kinds of path are one."""
    model, golden = vectors
    clean, corrupted = golden["clean"], golden["corrupted"]
    metric = patching.logit_difference(model, *golden["pair"].tolist())
    full = patching.path_patch(model, clean, corrupted, metric, (0, 1), "v", direct=False, progress=False)
    with model.session() as session:
        z = session.inspect(clean, sites=["z"])["z"][0, :, 1]
    with model.session() as session:
        v = session.inspect(corrupted, sites=["v"], edits=[Edit(0, "z", "set", z, 1)])["v"]
    for head in range(model.n_head):
        with model.session() as session:
            logits = session.prefill(corrupted, edits=[Edit(1, "v", "set", v[1, :, head], head)])
        assert full[1, head] == pytest.approx(metric(logits), abs=1e-4)


# ---- The planner ----------------------------------------------------------------------------------------


def random_pair(model: fastgpt_c.Model, n_same: int, n: int) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(1)
    same, one, other = (rng.integers(0, model.n_vocab, k).tolist() for k in (n_same, n - n_same, n - n_same))
    return same + one, same + other


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "z", "ff_post", "scores"])
def test_shortcuts_change_nothing(long_model: fastgpt_c.Model, site: str) -> None:
    """Prefixes of a cache, layers that are left out, positions that are the same: as plain edits of the whole text."""
    clean, corrupted = random_pair(long_model, 3, 9)
    metric = patching.log_probability(long_model, 7)
    by = ("layer", "position", "head") if site in ("z", "scores") else ("layer", "position")
    found = patching.act_patch(long_model, clean, corrupted, metric, site, by, progress=False)
    with long_model.session() as session:
        values = session.inspect(clean, sites=[site])[site]
    for index in np.ndindex(found.shape):
        layer, position, head = (*index, None)[:3]
        if site == "scores":
            row = np.where(np.isfinite(values[layer, head, position]), values[layer, head, position], 0)
        else:
            row = values[layer, position] if head is None else values[layer, position, head]
        edit = Edit(layer, site, "set", row, head, position, position)  # type: ignore[arg-type]
        with long_model.session() as session:
            expected = metric(session.prefill(corrupted, edits=[edit]))
        assert found[index] == pytest.approx(expected, abs=1e-3)
    assert np.ptp(found[:, :3]) == 0 and np.ptp(found) > 0.01


def test_a_part_of_the_work_is_done(long_model: fastgpt_c.Model) -> None:
    """A run reads the tokens from its first changed position on, in the layers from its first changed one on."""
    tokens = list(range(10))
    with patching.Sweep(long_model, tokens, lambda logits: logits[0], progress=False) as sweep:
        sweep.run([[Edit(1, "z", "zero", first=7)], [Edit(0, "z", "zero", first=9), Edit(1, "z", "zero")]])
        assert (sweep.n_tokens_computed, sweep.n_layers_computed) == (3 + 10, 3 * 1 + 10 * 2)


def test_any_order_gives_the_same(long_model: fastgpt_c.Model) -> None:
    """To the bit, whatever the order of the runs; deterministic ones also alone, or in other batches."""
    rng, tokens = np.random.default_rng(2), list(range(20, 33))
    runs = [
        [Edit(int(layer), "z", "zero", head=int(head), first=int(first))]
        for layer, head, first in zip(
            rng.integers(0, 2, 40), rng.integers(0, 2, 40), rng.integers(0, 13, 40), strict=True
        )
    ]
    order = rng.permutation(len(runs))
    for deterministic in (False, True):
        metric, values = patching.log_probability(long_model, 3), []
        for most, some in (
            (100, range(40)),
            (100, order),
            *(((7, range(40)), (500, order[:11])) if deterministic else ()),
        ):
            with patching.Sweep(
                long_model, tokens, metric, max_tokens_in_flight=most, deterministic=deterministic, progress=False
            ) as sweep:
                found = np.full(40, np.nan)
                found[list(some)] = sweep.run([runs[i] for i in some])
                values.append(found)
        for other in values[1:]:
            known = ~np.isnan(other)
            assert np.array_equal(values[0][known], other[known])


def test_memory_is_bounded(long_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs there are: no step reads more tokens than allowed, and no more positions have caches; a text
    that is longer than that goes alone."""
    from fastgpt_c.patching import runs as module

    sizes: list[int] = []
    step = module.step

    def counted(spans: Any, **kwargs: Any) -> Any:
        n = sum(len(span.tokens) for span in spans)
        sizes.append(n + sweep.n_positions)
        assert n == len(spans[0].tokens) or n <= sizes_allowed
        return step(spans, **kwargs)

    monkeypatch.setattr(module, "step", counted)
    tokens = list(range(12))
    for sizes_allowed in (40, 5):
        sizes.clear()
        with patching.Sweep(
            long_model, tokens, lambda logits: 0.0, max_tokens_in_flight=sizes_allowed, progress=False
        ) as sweep:
            sweep.run([[Edit(layer, "z", "zero", first=first)] for layer in (0, 1) for first in range(12)] * 9)
            assert max(sizes) <= max(sizes_allowed, 12) and len(sizes) >= 9 * 2 * 78 / max(sizes_allowed, 12)


def test_all_caches_are_closed(long_model: fastgpt_c.Model, sessions: list[Any]) -> None:
    patching.act_patch(long_model, [1, 2, 3], [1, 5, 3], lambda logits: logits[0], progress=False)
    assert sessions and all(made() is None or repr(made()) == "Session(closed)" for made in sessions)


# ---- Metrics --------------------------------------------------------------------------------------------


def test_metrics(long_model: fastgpt_c.Model) -> None:
    """Each by its formula; those of the text itself are baselines."""
    tokens = [5, 9, 9, 1, 30]
    with long_model.session() as session:
        logits = session.prefill(tokens, all_logits=True).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = -np.mean([log_p[i - 1, tokens[i]] for i in range(2, 5)])
    for metric, expected in (
        (patching.logit_difference(long_model, 4, 6), logits[-1, 4] - logits[-1, 6]),
        (patching.log_probability(long_model, 4), log_p[-1, 4]),
        (patching.kl_divergence(logits[-1]), 0),
        (patching.kl_divergence(logits[0]), (np.exp(log_p[0]) * (log_p[0] - log_p[-1])).sum()),
        (patching.mean_loss(tokens, 2), loss),
        (lambda row: row[8], logits[-1, 8]),
    ):
        with patching.Sweep(long_model, tokens, metric, progress=False) as sweep:
            assert sweep.baseline == pytest.approx(expected, abs=1e-4)
            assert sweep.run([[], [Edit(1, "z", "scale", 1.0)]]) == pytest.approx([expected] * 2, abs=1e-3)


# ---- Ablation -------------------------------------------------------------------------------------------


def test_ablations(long_model: fastgpt_c.Model) -> None:
    """Zero, the mean over all positions of all texts, and another text's values: as plain edits."""
    tokens, data = [5, 9, 2, 1], [[3, 4, 5, 6], [7, 8, 9, 10, 11]]
    metric = patching.log_probability(long_model, 7)
    values = []
    for text in data:
        with long_model.session() as session:
            values.append(session.inspect(text, sites=["z"])["z"])
    mean = np.concatenate(values, axis=1).mean(axis=1)
    zero, by_mean, resampled = (
        patching.ablate(long_model, tokens, metric, "z", method, [] if method == "zero" else data, progress=False)
        for method in ("zero", "mean", "resample")
    )
    for layer, head in np.ndindex(zero.shape):
        for found, edits in (
            (zero, [Edit(layer, "z", "zero", head=head)]),
            (by_mean, [Edit(layer, "z", "mean", mean[layer, head], head)]),
        ):
            with long_model.session() as session:
                assert found[layer, head] == pytest.approx(metric(session.prefill(tokens, edits=edits)), abs=1e-3)
        candidates = []
        for text in values:
            with long_model.session() as session:
                edit = Edit(layer, "z", "set", text[layer, :4, head], head)
                candidates.append(metric(session.prefill(tokens, edits=[edit])))
        assert np.abs(resampled[layer, head] - candidates).min() < 1e-3
    assert patching.ablate(long_model, tokens, metric, "ff_out", progress=False).shape == (long_model.n_layer,)


# ---- Refusals -------------------------------------------------------------------------------------------


def test_what_cannot_be_patched(long_model: fastgpt_c.Model) -> None:
    """Each mistake is named before anything runs."""
    metric = patching.log_probability(long_model, 1)
    a, b = [1, 2, 3], [1, 2, 4]

    def refused(match: str, function: Any, *args: Any, error: type[Exception] = UsageError, **kwargs: Any) -> None:
        with pytest.raises(error, match=match):
            function(long_model, *args, **kwargs)

    refused("3 tokens, the corrupted one 2", patching.act_patch, a, [1, 2], metric)
    refused("corrupted text is empty", patching.act_patch, a, [], metric)
    refused("n_ctx of", patching.act_patch, [1] * 1101, b, metric, error=ContextFullError)
    refused("did you mean resid_pre", patching.act_patch, a, b, metric, "residpre")
    refused("embed has no layers", patching.act_patch, a, b, metric, "embed")
    refused("'head' out", patching.act_patch, a, b, metric, "resid_pre", ("layer", "head"))
    refused("'source' out", patching.act_patch, a, b, metric, "z", ("layer", "position", "source"))
    refused("needs 'layer'", patching.act_patch, a, b, metric, "z", ("head",))
    refused("by has 'layers'", patching.act_patch, a, b, metric, "z", ("layers",))
    refused("metric is 'loss'", patching.act_patch, a, b, "loss")
    refused("if their axes differ", patching.act_patch, a, b, metric, ["z", "resid_pre"])
    refused("component is 'z'", patching.path_patch, a, b, metric, (0, 0), "z")
    refused("sender's head is 9", patching.path_patch, a, b, metric, (0, 9))
    refused("sender is 3", patching.path_patch, a, b, metric, 3)
    refused("method is 'none'", patching.ablate, a, metric, method="none")
    refused("mean needs data", patching.ablate, a, metric, method="mean")
    refused("data is for", patching.ablate, a, metric, data=[a])
    refused("has 2 tokens; resample needs 3", patching.ablate, a, metric, method="resample", data=[[1, 2]])
    refused("pattern cannot be switched off", patching.ablate, a, metric, "pattern")
    refused("max_tokens_in_flight is 0", patching.act_patch, a, b, metric, max_tokens_in_flight=0)
