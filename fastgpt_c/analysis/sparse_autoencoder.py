"""Sparse autoencoders that others trained: which features are active at a place of a model (Bricken et al. 2023,
"Towards Monosemanticity"; JumpReLU: Rajamanoharan et al. 2024, arXiv 2407.14435).

    sae = sparse_autoencoder.load("gpt2-small-res-jb/blocks.8.hook_resid_pre")
    with fastgpt_c.load("gpt2") as model:
        active = sae.encode(sparse_autoencoder.read(model, sae, model.encode("The cat sat")))

A folder is as SAELens saves it: cfg.json and sae_weights.safetensors.  Nothing is trained here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastgpt_c.engine.edits import Edit
from fastgpt_c.engine.sites import SITES
from fastgpt_c.errors import ModelFileError, UsageError, missing_extra
from fastgpt_c.io.checked_json import JSON, check_values, read_json, show
from fastgpt_c.native.arguments import Floats, Tokens, as_path, checked_int, float_array

if TYPE_CHECKING:
    from fastgpt_c.engine.model import LoadedModel

SHAPES = {"W_enc": ("d_in", "d_sae"), "b_enc": ("d_sae",), "W_dec": ("d_sae", "d_in"), "b_dec": ("d_in",)}
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

# What of a configuration changes the result, and which values of it are implemented.
IMPLEMENTED = {
    "architecture": ("standard", "jumprelu", None),
    "activation_fn_str": ("relu", None),
    "activation_fn": ("relu", None),
    "normalize_activations": ("none", "layer_norm", None),
    "apply_b_dec_to_input": (True, False, None),
    "finetuning_scaling_factor": (False, None),
    "reshape_activations": ("none", "hook_z", None),
    "hook_head_index": (None,),
    "metadata.hook_head_index": (None,),
}
LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class SparseAutoencoder:
    """hook    the place it reads, in TransformerLens's words, such as "blocks.8.hook_resid_pre"; "" if it does not say
    w_enc, b_enc      float32 [d_in][n_features], [n_features]: features = relu(x W_enc + b_enc)
    w_dec, b_dec      [n_features][d_in], [d_in]: x is about features W_dec + b_dec
    threshold         [n_features] of JumpReLU: below or at it a feature is 0; else None
    normalize         whether x is brought to mean 0 and deviation 1 first, and back afterwards
    subtract_b_dec    whether b_dec is taken off x first
    """

    hook: str
    w_enc: Floats
    b_enc: Floats
    w_dec: Floats
    b_dec: Floats
    threshold: Floats | None
    normalize: bool
    subtract_b_dec: bool

    @property
    def n_features(self) -> int:
        return len(self.b_enc)

    def encode(self, x: npt.ArrayLike) -> Floats:
        """x [..., d_in] -> float32 [..., n_features], how active each feature is; most are 0."""
        rows, _, _ = self._normalized(x)
        before = (rows - self.b_dec if self.subtract_b_dec else rows) @ self.w_enc + self.b_enc
        least = np.float32(0) if self.threshold is None else np.maximum(self.threshold, 0)
        return np.where(before > least, before, np.float32(0)).astype(np.float32)

    def decode(self, features: npt.ArrayLike) -> Floats:
        """features [..., n_features] -> float32 [..., d_in]; of a normalized x, what that was, not x itself."""
        rows = float_array("features", features)
        if rows.shape[-1:] != (self.n_features,):
            raise UsageError(f"features must have {self.n_features} numbers a row, not the shape {rows.shape}")
        return np.asarray(rows @ self.w_dec + self.b_dec, np.float32)

    def reconstruct(self, x: npt.ArrayLike) -> Floats:
        """x [..., d_in] -> the same shape: decode(encode(x)), normalization undone."""
        _, mean, deviation = self._normalized(x)
        return np.asarray(self.decode(self.encode(x)) * deviation + mean, np.float32)

    def direction(self, feature: int) -> Floats:
        """float32 [d_in]: what one unit of a feature adds."""
        row: Floats = self.w_dec[checked_int("feature", feature, 0, self.n_features - 1)]
        return row

    def _normalized(self, x: npt.ArrayLike) -> tuple[Floats, Any, Any]:
        """x, and the mean and deviation that were taken from it."""
        rows = float_array("x", x)
        if rows.shape[-1:] != self.b_dec.shape:
            raise UsageError(f"vectors must have d_in = {len(self.b_dec)} numbers, not the shape {rows.shape}")
        if not self.normalize:
            return rows, np.float32(0), np.float32(1)
        mean = rows.mean(axis=-1, keepdims=True)
        deviation = (rows - mean).std(axis=-1, ddof=1, keepdims=True)
        return (rows - mean) / (deviation + np.float32(LAYER_NORM_EPSILON)), mean, deviation


def load(folder: str | Path) -> SparseAutoencoder:
    """Reads a folder of SAELens's "standard" or "jumprelu" layout.

    Raises ModelFileError, which names the file and what in it is missing, damaged or not implemented (other
    architectures, transcoders, rescaled activations), and MissingExtraError without the package safetensors.
    """
    folder = as_path("folder", folder)
    config = read_json(folder / CONFIG)
    check_values(folder / CONFIG, config, IMPLEMENTED)
    path = folder / WEIGHTS
    tensors = _read_tensors(path)
    jumps = config.get("architecture") == "jumprelu"
    _check_tensors(path, config, tensors, jumps)
    threshold = tensors["threshold"] if jumps else None
    if "scaling_factor" in tensors and not (tensors["scaling_factor"] == 1).all():
        raise ModelFileError(f"{path}: scaling_factor is not implemented, unless all of it is 1")
    return SparseAutoencoder(
        _hook(config), tensors["W_enc"], tensors["b_enc"], tensors["W_dec"], tensors["b_dec"], threshold,
        config.get("normalize_activations") == "layer_norm", config.get("apply_b_dec_to_input") is not False,
    )  # fmt: skip


def _hook(config: JSON) -> str:
    metadata = config.get("metadata")
    found = config.get("hook_name") or (metadata.get("hook_name") if isinstance(metadata, dict) else None)
    return found if isinstance(found, str) else ""


def _read_tensors(path: Path) -> dict[str, Floats]:
    """Every tensor of a safetensors file as float32."""
    try:
        import ml_dtypes  # noqa: F401 - registers bfloat16 with NumPy
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise missing_extra("convert", "reading safetensors") from None
    try:
        return {name: np.ascontiguousarray(array, np.float32) for name, array in load_file(path).items()}
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path}: not a sound safetensors file: {error}") from error


def _check_tensors(path: Path, config: JSON, tensors: dict[str, Floats], jumps: bool) -> None:
    """Raises ModelFileError unless each is there, in the shape that W_enc and the configuration give, and finite."""
    shapes = {**SHAPES, "threshold": ("d_sae",)} if jumps else SHAPES
    if missing := [name for name in shapes if name not in tensors]:
        raise ModelFileError(f"{path}: tensor {missing[0]} is missing")
    if tensors["W_enc"].ndim != 2:
        raise ModelFileError(f"{path}: tensor W_enc has {tensors['W_enc'].ndim} dimensions, not [d_in][d_sae]")
    sizes = dict(zip(shapes["W_enc"], tensors["W_enc"].shape, strict=True))
    for key, size in sizes.items():
        if config.get(key, size) != size:
            raise ModelFileError(f"{path}: tensor W_enc has {key} = {size}, {CONFIG} says {show(config[key])}")
    for name, axes in shapes.items():
        expected = tuple(sizes[axis] for axis in axes)
        if tensors[name].shape != expected:
            raise ModelFileError(f"{path}: tensor {name} has the shape {tensors[name].shape}, not {expected}")
        if not np.isfinite(tensors[name]).all():
            raise ModelFileError(f"{path}: tensor {name} has numbers that are not finite")


# ---- At a place of a model ----


# Names of TransformerLens's hook points -> sites that have one vector for each token.
HOOKS = {
    site.transformer_lens: name for name, site in SITES.items()
    if site.has_layers and site.kind != "keys" and name not in ("ln_1", "ln_2")  # there without weight and bias
}  # fmt: skip


def place(sae: SparseAutoencoder, n_layer: int) -> tuple[int, str]:
    """Layer and site that an autoencoder reads, such as (8, "resid_pre"); raises UsageError for one that names none,
    another kind, or a layer that a model of n_layer has not."""
    match = re.fullmatch(r"blocks\.(\d{1,6})\.([\w.]+)", sae.hook, re.ASCII)
    site = HOOKS.get(f"blocks.{{layer}}.{match[2]}") if match else None
    if not match or site is None or str(int(match[1])) != match[1]:
        raise UsageError(f"the autoencoder reads {sae.hook!r}, not a place such as {', '.join(HOOKS)}")
    if int(match[1]) >= n_layer:
        raise UsageError(f"the autoencoder reads {sae.hook}, but the model has {n_layer} layers, from 0 on")
    return int(match[1]), site


def feature_edit(model: LoadedModel, sae: SparseAutoencoder, feature: int, strength: float, first: int = 0) -> Edit:
    """An edit that adds strength times a feature's direction where the autoencoder reads, at positions from first on:
    for Session.prefill(..., edits=[...]).  Raises UsageError where model and autoencoder do not fit."""
    layer, site = place(sae, model.n_layer)
    value = sae.direction(feature) * np.float32(strength)
    if SITES[site].kind == "heads":
        value = value.reshape(model.n_head, -1)
    return Edit(layer, site, "add", value, first=first)


def read(model: LoadedModel, sae: SparseAutoencoder, tokens: Tokens) -> Floats:
    """float32 [n_tokens][d_in]: what the autoencoder reads, for each token of a text.  Raises as Session.inspect, and
    UsageError where model and autoencoder do not fit."""
    layer, site = place(sae, model.n_layer)
    with model.session() as session:
        found: Floats = session.inspect(tokens, sites=[site])[site][layer]
    return found.reshape(len(found), -1)
