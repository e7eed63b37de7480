"""fastgpt-c patch: the table, the JSON and the page say what act_patch found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import opened
from command import WRONG_USAGE, assert_complains, output_here, output_of, run

import fastgpt_c
from fastgpt_c import patching

CLEAN = "Lily had a red ball. Tim had a hat. Tim said to Lily: I like your"
CORRUPTED = CLEAN.replace("ball", "kite")
PAIR = ("--answer", " ball", "--against", " kite")
HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m"


def test_json_and_table(capfd: pytest.CaptureFixture[str]) -> None:
    """Shares of the difference between both texts: by act_patch, in percent in the table, in 80 columns."""
    data = json.loads(output_here(capfd, "patch", CLEAN, CORRUPTED, *PAIR, "--json"))
    with fastgpt_c.load() as model:
        clean, corrupted = model.encode(CLEAN), model.encode(CORRUPTED)
        metric = patching.logit_difference(model, " ball", " kite")
        values = patching.act_patch(model, clean, corrupted, metric, "z", progress=False)
        with model.session() as one, model.session() as other:
            ends = metric(one.prefill(clean)), metric(other.prefill(corrupted))
    assert (data["clean"], data["corrupted"]) == pytest.approx(ends, abs=1e-3)
    np.testing.assert_allclose(data["z"], (values - ends[1]) / (ends[0] - ends[1]), atol=1e-3)
    lines = output_here(capfd, "patch", CLEAN, CORRUPTED, *PAIR).splitlines()
    rows = [line for line in lines if line[:4].strip().isdigit()]
    assert max(map(len, rows)) <= 80 and len(rows) == len(clean) and "ball for" in "".join(rows)
    for line, values_here in zip(rows, np.transpose(data["resid_pre"]), strict=True):
        assert [int(word) for word in line.split()[-model.n_layer :]] == [round(100 * value) for value in values_here]
    best = np.unravel_index(np.abs(data["z"]).argmax(), np.shape(data["z"]))
    assert lines[-1].startswith("heads: {}.{} ".format(*best))


@pytest.mark.parametrize(("width", "dark"), [(380, True), (1280, False)])
def test_page_shows_the_numbers(browser: Any, tmp_path: Path, width: int, dark: bool) -> None:
    """Four maps in whole percents, the words that differ marked, hostile text as text; no wider than the window."""
    path = tmp_path / "patch.html"
    data = json.loads(output_of("patch", HOSTILE + CLEAN, HOSTILE + CORRUPTED, *PAIR, "--json", "--html", path))
    with opened(browser, path, dark=dark, width=width) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        texts = tab.eval_on_selector_all("#clean .token", "nodes => nodes.map(node => node.textContent)")
        assert texts == data["clean_tokens"]
        assert tab.eval_on_selector_all(".changed", "nodes => nodes.map(node => node.textContent)") == [
            token for pair in zip(data["clean_tokens"], data["corrupted_tokens"], strict=True)
            if pair[0] != pair[1] for token in pair[:1]
        ] + [b for a, b in zip(data["clean_tokens"], data["corrupted_tokens"], strict=True) if a != b]  # fmt: skip
        for site in ("resid_pre", "attn_out", "ff_out", "z"):
            shown = tab.eval_on_selector_all(
                f"#{site} tbody tr", "rows => rows.map(row => [...row.querySelectorAll('td')].map(c => c.textContent))"
            )
            numbers = [[float(text.replace("\N{MINUS SIGN}", "-")) for text in row] for row in shown]
            np.testing.assert_allclose(numbers, 100 * np.array(data[site]), atol=0.51)
        cell = tab.locator("#z tbody tr:nth-child(5) td:nth-child(6)")  # after the heading: head 4
        cell.hover()
        assert tab.inner_text("#tooltip").startswith("head 4.4\n")


def test_refusals() -> None:
    """Texts of different lengths, answers of several tokens, nothing to bring back, no answer: one line each."""
    assert_complains(run("patch", "a b", "a b c d", *PAIR), WRONG_USAGE, "equally many")
    assert_complains(
        run("patch", CLEAN, CORRUPTED, "--answer", " ball game", "--against", " a"), WRONG_USAGE, "not one"
    )
    assert_complains(run("patch", CLEAN, CLEAN, *PAIR), WRONG_USAGE, "nothing to bring back")
    assert_complains(run("patch", CLEAN, CORRUPTED, "--answer", " ball"), WRONG_USAGE, "--against")
    assert_complains(run("patch", "a " * 200, "b " * 200, *PAIR), WRONG_USAGE, "128")
    assert_complains(run("patch", "", "", *PAIR), WRONG_USAGE, "empty")
