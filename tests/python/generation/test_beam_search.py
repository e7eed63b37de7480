"""Beam search: the beams of transformers, and what the number of beams means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import output_here
from models import Tiny
from paths import VECTORS
from scripted import EOS, ends_of, greedy, logits_after, script_tokens

import fastgpt_c
from fastgpt_c.errors import ContextFullError, UsageError

CASES: list[dict[str, Any]] = json.loads((VECTORS / "beams.json").read_text(encoding="utf-8"))
FIELDS = ("num_beams", "max_new_tokens", "length_penalty", "early_stopping")


def fields_of(case: dict[str, Any]) -> dict[str, Any]:
    """The fields of Beams that a golden case sets."""
    bias = {int(token): value for token, value in case["adjustments"].get("logit_bias", {}).items()}
    return {name: case[name] for name in FIELDS} | case["adjustments"] | {"logit_bias": bias}


def test_beams_equal_transformers(tiny: Tiny, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every golden case: the same beams in the same order, with the same scores."""
    cases = [case for case in CASES if case["checkpoint"] == checkpoint.name]
    assert len(cases) >= 50
    for case in cases:
        monkeypatch.setattr(tiny.model, "eos_tokens", ends_of(case))
        beams = tiny.model.beam_search(case["prompt"], **fields_of(case))
        tokens = [beam.tokens + [case["eos_token_id"]] * (beam.finish_reason == "eos") for beam in beams]
        assert tokens == [expected["tokens"] for expected in case["beams"]], case
        scores = [expected["score"] for expected in case["beams"]]
        np.testing.assert_allclose([beam.score for beam in beams], scores, rtol=1e-4, err_msg=str(case))


def test_one_beam_is_greedy(random_model: fastgpt_c.Model) -> None:
    """The best of one is the likeliest token each time, and its score the mean of the log-probabilities."""
    (beam,) = random_model.beam_search([5, 6], num_beams=1, max_new_tokens=9)
    assert beam.tokens == greedy(random_model, [5, 6], 9)
    assert beam.text == random_model.decode(beam.tokens)
    assert beam.score == pytest.approx(log_probability(random_model, [5, 6], beam.tokens) / 9, rel=1e-4)


@pytest.mark.parametrize(
    "adjustments",
    [{"no_repeat_ngram_size": 1}, {"logit_bias": {EOS: 30.0}, "min_new_tokens": 4}, {"presence_penalty": 3.0},
     {"logit_bias": {65: 9.0, 66: 9.0}, "frequency_penalty": 0.5}],
    ids=str,
)  # fmt: skip
def test_one_beam_is_greedy_with_adjustments(random_model: fastgpt_c.Model, adjustments: dict[str, Any]) -> None:
    """Those that treat log-probabilities as they treat logits."""
    (beam,) = random_model.beam_search([5, 6, 5], num_beams=1, max_new_tokens=12, **adjustments)
    assert beam.tokens == greedy(random_model, [5, 6, 5], 12, **adjustments)
    assert beam.tokens != greedy(random_model, [5, 6, 5], 12), "they matter"


def test_beams_that_cannot_go_on(random_model: fastgpt_c.Model) -> None:
    """They are dropped; where there is no other, an error says so."""
    none = dict.fromkeys(range(random_model.n_vocab), -np.inf)
    with pytest.raises(UsageError, match="leave no token to go on with"):
        random_model.beam_search("a", num_beams=2, max_new_tokens=5, logit_bias=none)
    three = none | {64: 0.0, 65: 0.0, EOS: 0.0}
    beams = random_model.beam_search("b", num_beams=4, max_new_tokens=9, logit_bias=three, no_repeat_ngram_size=1)
    found = {(*beam.tokens, beam.finish_reason) for beam in beams}
    assert found == {("eos",), (64, "eos")}, "b is 65, which may not come again"


def log_probability(model: fastgpt_c.Model, prompt: list[int], new: list[int]) -> float:
    """Of new tokens after a prompt, each computed from scratch."""
    total = 0.0
    for i, token in enumerate(new):
        logits = logits_after(model, prompt + new[:i]).astype(np.float64)
        total += logits[token] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    return total


def test_enough_beams_find_the_best(random_model: fastgpt_c.Model) -> None:
    """With as many beams as first tokens matter, two tokens are the likeliest of all pairs."""
    beams = random_model.beam_search([5, 6], num_beams=100, max_new_tokens=2, length_penalty=0.0)
    first = np.argsort(-logits_after(random_model, [5, 6]))[:8].tolist()
    pairs = [(a, int(b)) for a in first for b in np.argsort(-logits_after(random_model, [5, 6, a]))[:8]]
    best = max((p for p in pairs if p[0] != EOS), key=lambda pair: log_probability(random_model, [5, 6], list(pair)))
    found = next(beam for beam in beams if len(beam.tokens) == 2)
    assert tuple(found.tokens) == best
    assert [beam.score for beam in beams] == sorted((beam.score for beam in beams), reverse=True)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("num_beams", [2, 5])
def test_beams_do_not_depend_on_threads(random_model: fastgpt_c.Model, num_beams: int, n_threads: int) -> None:
    """To the bit, since no step does."""
    one, other = (
        random_model.beam_search("the day", num_beams=num_beams, max_new_tokens=9, n_threads=n) for n in (n_threads, 3)
    )
    assert one == other


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": 500}, "num_beams is 500; n_vocab is"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"length_penalty": 51.0}, r"length_penalty is 51.0, not a number in \[-50, 50\]"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty is inf"),
        ({"logit_bias": {-1: 2.0}}, "logit_bias 2.0 of token -1"),
        ({"early_stopping": "often"}, 'early_stopping is .often., not True, False or "never"'),
    ],
    ids=str,
)
def test_wrong_fields_are_named(random_model: fastgpt_c.Model, fields: dict[str, Any], named: str) -> None:
    """Before any work."""
    with pytest.raises(UsageError, match=named):
        random_model.beam_search("a", **{"max_new_tokens": 2, **fields})


def test_too_long_is_refused(random_model: fastgpt_c.Model) -> None:
    """As when tokens are drawn."""
    with pytest.raises(ContextFullError):
        random_model.beam_search([1] * 10, max_new_tokens=random_model.n_ctx)


def test_the_command(alphabet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """--beams prints the best, --json all of them."""
    arguments = ["generate", "-m", alphabet, "abc", "-n", "5", "--beams", "3"]
    assert output_here(capfd, *arguments) == "abcdefgh\n"
    report = json.loads(output_here(capfd, *arguments, "--json", "--length-penalty", "0.5"))
    assert [report["prompt"], report["beams"][0]["text"], len(report["beams"])] == ["abc", "defgh", 3]
    without_d = output_here(capfd, *arguments, "--logit-bias", f"{script_tokens('d')[0]}=-inf")
    assert without_d.startswith("abc")
    assert "d" not in without_d
