"""Every site has the values that TransformerLens 4 has at the hook point of its name (tools/make_site_vectors.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from paths import VECTORS

import fastgpt_c
from fastgpt_c import SITES
from fastgpt_c.convert import convert


@pytest.mark.parametrize("folder", sorted(VECTORS.glob("*/sites.npz")), ids=lambda path: path.parent.name)
def test_sites_are_those_of_transformer_lens(folder: Path, tmp_path: Path) -> None:
    """Within 1e-4; of scores, what a token does not see is the lowest number there and -infinity here."""
    convert(folder.parent, tmp_path / "model.gguf")
    with np.load(folder) as golden, fastgpt_c.load(tmp_path / "model.gguf") as model, model.session() as session:
        seen = session.inspect(golden["tokens"], sites=list(SITES))
        points = set(golden) - {"tokens"}
        for site in SITES.values():
            for layer in range(model.n_layer if site.has_layers else 1):
                point = site.transformer_lens.format(layer=layer)
                points.remove(point)
                expected, found = golden[point], seen[site.name][layer] if site.has_layers else seen[site.name]
                if site.name == "scores":
                    np.testing.assert_array_equal(np.isneginf(found), expected == np.finfo(np.float32).min)
                    expected = np.where(np.isneginf(found), -np.inf, expected)
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=point)
        assert not points
