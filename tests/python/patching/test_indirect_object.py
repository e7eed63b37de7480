"""GPT-2's name movers, as Wang et al. 2022 found them.  Opt in with:  pytest -m pretrained

The model is "124M"; FASTGPT_TEST_124M names a GGUF file or checkpoint folder instead.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import fastgpt_c
from fastgpt_c import patching
from fastgpt_c.analysis import attribution

pytestmark = pytest.mark.pretrained

PAIRS = [("Mary", "John"), ("John", "Mary"), ("Tom", "James"), ("James", "Tom"), ("Sarah", "Dan"), ("Dan", "Sarah")]
TEXT = "When {} and {} went to the store, {} gave a drink to"


def test_name_movers() -> None:
    """9.9, 9.6 and 10.0 add most to the name that is asked for, on average; patching them brings the answer back."""
    with fastgpt_c.load(os.environ.get("FASTGPT_TEST_124M", "124M")) as model:
        heads = np.mean(
            [
                attribution.attribute(model, model.encode(TEXT.format(io, s, s)), f" {io}", f" {s}").heads
                for io, s in PAIRS
            ],
            axis=0,
        )
        best = {divmod(int(i), model.n_head) for i in np.argsort(-heads.ravel())[:5]}
        assert {(9, 9), (9, 6), (10, 0)} <= best
        clean, corrupted = (model.encode(TEXT.format("Mary", "John", name)) for name in ("John", "Mary"))
        metric = patching.logit_difference(model, " Mary", " John")
        values = patching.act_patch(model, clean, corrupted, metric, "resid_pre", progress=False)
        with patching.Sweep(model, clean, metric) as one, patching.Sweep(model, corrupted, metric) as other:
            recovered = (values - other.baseline) / (one.baseline - other.baseline)
        changed = next(t for t in range(len(clean)) if clean[t] != corrupted[t])
        assert recovered[0, changed] > 0.9 and recovered[-1, -1] > 0.9
