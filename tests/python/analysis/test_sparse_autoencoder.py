"""Sparse autoencoders of SAELens's layouts, and files that are wrong in one thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import fastgpt_c
from fastgpt_c.analysis import sparse_autoencoder
from fastgpt_c.errors import ModelFileError, UsageError

D_IN, N_FEATURES = 6, 11


def tensors() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    shapes = {"W_enc": (D_IN, N_FEATURES), "b_enc": N_FEATURES, "W_dec": (N_FEATURES, D_IN), "b_dec": D_IN}
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return {**made, "threshold": np.abs(rng.standard_normal(N_FEATURES)).astype(np.float32)}


def saved(folder: Path, config: dict[str, Any], **changes: Any) -> Path:
    weights = {name: array for name, array in {**tensors(), **changes}.items() if array is not None}
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


X = np.random.default_rng(4).standard_normal((2, 3, D_IN)).astype(np.float32)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
@pytest.mark.parametrize("subtract", [True, False])
def test_features_by_the_papers_formulas(tmp_path: Path, architecture: str, subtract: bool) -> None:
    config = {"architecture": architecture, "apply_b_dec_to_input": subtract, "d_in": D_IN, "d_sae": N_FEATURES}
    sae, w = sparse_autoencoder.load(saved(tmp_path, config)), tensors()
    before = (X - w["b_dec"] * subtract) @ w["W_enc"] + w["b_enc"]
    expected = before * (before > (w["threshold"] if architecture == "jumprelu" else 0))
    assert np.allclose(sae.encode(X), expected, atol=1e-5) and 0 < (expected > 0).sum() < expected.size
    assert np.allclose(sae.reconstruct(X), expected @ w["W_dec"] + w["b_dec"], atol=1e-4)
    assert np.array_equal(sae.decode(np.eye(N_FEATURES))[4], sae.direction(4) + w["b_dec"])


def test_normalized_input(tmp_path: Path) -> None:
    """Scale and mean of x do not matter to features, and come back with the reconstruction."""
    sae = sparse_autoencoder.load(saved(tmp_path, {"normalize_activations": "layer_norm"}))
    assert np.allclose(sae.encode(3 * X + 5), sae.encode(X), atol=1e-3)
    assert np.allclose(sae.reconstruct(3 * X + 5), 3 * sae.reconstruct(X) + 5, atol=1e-2)


REFUSED = [
    ({"architecture": "topk"}, {}, "architecture"),
    ({"architecture": "gated"}, {}, "architecture"),
    ({"activation_fn_str": "topk"}, {}, "activation_fn_str"),
    ({"normalize_activations": "constant_norm_rescale"}, {}, "normalize_activations"),
    ({"metadata": {"hook_head_index": 3}}, {}, "metadata.hook_head_index"),
    ({"d_sae": 12}, {}, "d_sae"),
    ({}, {"W_dec": None}, "W_dec is missing"),
    ({"architecture": "jumprelu"}, {"threshold": None}, "threshold is missing"),
    ({}, {"b_dec": np.zeros(D_IN + 1, np.float32)}, "b_dec has the shape"),
    ({}, {"W_enc": np.zeros(3, np.float32)}, "W_enc has 1 dimension"),
    ({}, {"b_enc": np.full(N_FEATURES, np.nan, np.float32)}, "b_enc has numbers"),
    ({}, {"scaling_factor": np.full(N_FEATURES, 2, np.float32)}, "scaling_factor"),
]


@pytest.mark.parametrize(("config", "changes", "culprit"), REFUSED, ids=[culprit for _, _, culprit in REFUSED])
def test_what_is_wrong_is_named(tmp_path: Path, config: dict[str, Any], changes: Any, culprit: str) -> None:
    with pytest.raises(ModelFileError, match=culprit):
        sparse_autoencoder.load(saved(tmp_path, config, **changes))


def test_damaged_files(tmp_path: Path) -> None:
    """A file that is cut anywhere, or absent: an error that names it."""
    folder = saved(tmp_path, {})
    weights = folder / "sae_weights.safetensors"
    content = weights.read_bytes()
    for n in range(0, len(content), 97):
        weights.write_bytes(content[:n])
        with pytest.raises(ModelFileError, match=r"sae_weights\.safetensors"):
            sparse_autoencoder.load(folder)
    weights.unlink()
    with pytest.raises(ModelFileError, match=r"sae_weights\.safetensors"):
        sparse_autoencoder.load(folder)
    (folder / "cfg.json").write_text("[]")
    with pytest.raises(ModelFileError, match=r"cfg\.json"):
        sparse_autoencoder.load(folder)


def test_what_it_reads_in_a_model(tmp_path: Path) -> None:
    """Its hook point, in the old and in the new place of the configuration, is a layer of the residual stream."""
    with fastgpt_c.load() as model:
        tokens = model.encode("The cat sat")
        wide = {
            name: np.resize(array, [model.n_embd if n == D_IN else n for n in array.shape])
            for name, array in tensors().items()
        }
        with model.session() as session:
            seen = session.inspect(tokens, "hidden", "hidden_mid", sites=["z", "ff_out"])
        places = {"hook_resid_pre": seen["hidden"][2], "hook_resid_mid": seen["hidden_mid"][2],
                  "hook_resid_post": seen["hidden"][3], "attn.hook_z": seen["z"][2].reshape(len(tokens), -1),
                  "hook_mlp_out": seen["ff_out"][2]}  # fmt: skip
        for hook, expected in places.items():
            name = {"hook_name": f"blocks.2.{hook}"}
            for config in (name, {"metadata": name}):
                sae = sparse_autoencoder.load(saved(tmp_path, config, **wide))
                assert np.array_equal(sparse_autoencoder.read(model, sae, tokens), expected)
            edit = sparse_autoencoder.feature_edit(model, sae, 4, 2.0, first=1)
            site = {"attn.hook_z": "z", "hook_mlp_out": "ff_out"}.get(hook, hook.removeprefix("hook_"))
            with model.session() as session:
                after = session.inspect(tokens, sites=[site], edits=[edit])[site][2].reshape(len(tokens), -1)
            np.testing.assert_allclose(after[0], expected[0], atol=1e-4)
            np.testing.assert_allclose(after[1:], expected[1:] + 2 * sae.direction(4), atol=1e-4)
        for hook in ("", "blocks.99.hook_resid_pre", "blocks.0.hook_nowhere", "blocks.00000001.hook_resid_pre"):
            sae = sparse_autoencoder.load(saved(tmp_path, {"hook_name": hook}, **wide))
            with pytest.raises(UsageError, match="the autoencoder reads"):
                sparse_autoencoder.read(model, sae, tokens)
