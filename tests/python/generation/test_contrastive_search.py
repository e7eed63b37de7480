"""Contrastive search: the tokens of transformers, and what penalty_alpha means."""

from __future__ import annotations

import json
import weakref
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from command import output_here
from models import Tiny
from paths import VECTORS
from scripted import EOS, ends_of, greedy

import fastgpt_c
from fastgpt_c.engine import step
from fastgpt_c.engine.reader import Reader
from fastgpt_c.errors import ContextFullError, UsageError

CASES_FILE = VECTORS / "contrastive.json"
CASES: list[dict[str, Any]] = json.loads(CASES_FILE.read_text(encoding="utf-8"))
FIELDS = ("penalty_alpha", "top_k", "max_new_tokens")


def contrastive(
    model: fastgpt_c.Model, prompt: list[int], n: int, alpha: float = 0.6, top_k: int = 4, **options: Any
) -> list[int]:
    return model.generate(prompt, max_new_tokens=n, penalty_alpha=alpha, top_k=top_k, **options).tokens


# ---- The tokens -----------------------------------------------------------------------------------------


def options_of(case: dict[str, Any]) -> dict[str, Any]:
    """The options of a golden case."""
    bias = {int(token): value for token, value in case["adjustments"].get("logit_bias", {}).items()}
    return {name: case[name] for name in FIELDS} | case["adjustments"] | {"logit_bias": bias}


def test_tokens_equal_transformers(tiny: Tiny, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every golden case; few of them are what greedy decoding says."""
    cases = [case for case in CASES if case["checkpoint"] == checkpoint.name]
    n_greedy = 0
    for case in cases:
        monkeypatch.setattr(tiny.model, "eos_tokens", ends_of(case))
        completion = tiny.model.generate(case["prompt"], **options_of(case))
        end = [case["eos_token_id"]] * (completion.finish_reason == "eos")
        assert completion.tokens + end == case["tokens"], case
        plain = options_of(case) | {"penalty_alpha": None, "top_k": 0, "temperature": 0}
        n_greedy += tiny.model.generate(case["prompt"], **plain).tokens == completion.tokens
    assert len(cases) >= 30 >= 3 * n_greedy


def units(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def reference_scores(gpt2: reference.GPT2, text: list[int], alpha: float, top_k: int) -> dict[int, float]:
    """The paper's score of each candidate, in float64 and without a cache."""
    p = reference.softmax(gpt2.logits(text)[-1])
    seen = units(gpt2.hidden(text)[0])
    scores = {}
    for token in np.argsort(-p, kind="stable")[:top_k].tolist():
        cosines = seen @ units(gpt2.hidden([*text, token])[0][-1])
        scores[token] = (1 - alpha) * p[token] - alpha * cosines.max()
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_tokens_equal_a_reference_in_float64(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Token by token, up to where rounding would decide; a prompt of one token, too, and a full context."""
    monkeypatch.setattr(tiny.model, "eos_tokens", ())
    gpt2, rng = reference.load_gguf(tiny.path), np.random.default_rng(seed)
    prompt = rng.integers(0, tiny.model.n_vocab, (1, 2, 4)[seed]).tolist()
    alpha, top_k = float(rng.uniform(0.1, 0.9)), int(rng.integers(2, 7))
    found = contrastive(tiny.model, prompt, min(12, tiny.model.n_ctx - len(prompt)), alpha, top_k)
    for i, token in enumerate(found):
        scores = reference_scores(gpt2, prompt + found[:i], alpha, top_k)
        best, second = sorted(scores.values(), reverse=True)[:2]
        if best - second < 1e-4:
            assert i > 0, "nothing was compared"
            break
        assert scores[token] == best


# ---- Laws -----------------------------------------------------------------------------------------------

ADJUSTED = ({}, {"repetition_penalty": 1.3, "no_repeat_ngram_size": 1, "logit_bias": {EOS: 5.0}, "min_new_tokens": 4})


@pytest.mark.parametrize("options", ADJUSTED, ids=str)
@pytest.mark.parametrize(("alpha", "top_k"), [(0.0, 5), (0.0, 1), (0.9, 1), (1.0, 1)])
def test_no_penalty_or_no_choice_is_greedy(
    random_model: fastgpt_c.Model, alpha: float, top_k: int, options: dict[str, Any]
) -> None:
    """To the token, in sessions whose bits do not depend on how many tokens share a step."""
    found = contrastive(random_model, [5, 6], 15, alpha, top_k, deterministic=True, **options)
    assert found == greedy(random_model, [5, 6], 15, deterministic=True, **options)
    assert found != contrastive(random_model, [5, 6], 15, 0.6, 5, deterministic=True, **options)


def test_the_same_for_any_number_of_threads(random_model: fastgpt_c.Model) -> None:
    """Since the logits and hidden states are."""
    texts = [
        random_model.generate("the day", max_new_tokens=14, penalty_alpha=0.6, top_k=6, n_threads=n).text
        for n in range(1, 5)
    ]
    assert texts == texts[:1] * 4


@pytest.mark.parametrize("alpha", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kv_type", ["f32", "f16"])
def test_going_on_is_not_having_stopped(long_model: fastgpt_c.Model, kv_type: str, alpha: float) -> None:
    """In deterministic sessions: what was found so far, as a prompt, goes on with the rest, wherever it is cut."""
    prompt = np.random.default_rng(1).integers(0, long_model.n_vocab, 30).tolist()
    options: dict[str, Any] = {"alpha": alpha, "kv_type": kv_type, "deterministic": True}
    whole = contrastive(long_model, prompt, 60, **options)
    for n in (1, 2, 17, 33, 59):
        assert contrastive(long_model, prompt + whole[:n], 60 - n, **options) == whole[n:]


def test_a_step_a_token(random_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt in one step, then one for each token: top_k sessions which share all that was read."""
    steps: list[list[tuple[int, int]]] = []
    run_step = step.run_step

    def counted(batch: Any, arrays: Any, *args: Any, **options: Any) -> None:
        steps.append([(span.session.n_prefix, len(tokens)) for span, tokens in zip(batch, arrays, strict=True)])
        run_step(batch, arrays, *args, **options)

    monkeypatch.setattr("fastgpt_c.engine.inspection.run_step", counted)
    monkeypatch.setattr("fastgpt_c.engine.step.run_step", counted)
    contrastive(random_model, [1, 2, 3], 5, top_k=4, logit_bias={EOS: -np.inf})
    assert steps == [[(0, 3)], *([(n, 1)] * 4 for n in range(3, 8))]


def test_no_session_is_left(random_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at the end nor when nobody asks for the rest; meanwhile there are two, those of prompt and text."""
    made: list[weakref.ref[fastgpt_c.Session]] = []
    begin = fastgpt_c.Session._begin

    def noted(self: fastgpt_c.Session, *args: Any) -> None:
        made.append(weakref.ref(self))
        begin(self, *args)

    def open_sessions() -> int:
        return sum((session := ref()) is not None and session._kv is not None for ref in made)

    monkeypatch.setattr(fastgpt_c.Session, "_begin", noted)
    stream = random_model.stream("abc", max_new_tokens=12, penalty_alpha=0.5, top_k=3, logit_bias={EOS: -np.inf})
    next(stream)
    assert open_sessions() == 2
    del stream
    assert open_sessions() == 0
    contrastive(random_model, [1], 5)
    assert open_sessions() == 0 < len(made)


def test_what_may_come(random_model: fastgpt_c.Model) -> None:
    """A banned token never does, however few are left; processors and constraints are heard, stop strings too."""
    few = dict.fromkeys(range(random_model.n_vocab), -np.inf) | {70: 0.0, 71: 0.0, 72: 0.0}
    assert {70, 71} <= set(contrastive(random_model, [1, 2], 15, 1.0, 8, logit_bias=few)) <= {70, 71, 72}
    matched = random_model.generate("a", max_new_tokens=20, penalty_alpha=0.6, top_k=4, regex="[xyz]{7}")
    assert (matched.finish_reason, len(matched.text), set(matched.text) <= set("xyz")) == ("stop", 7, True)
    stopped = random_model.generate(
        "a", max_new_tokens=20, penalty_alpha=0.6, top_k=4, regex="[xyz]{7}", stop=matched.text[3:5]
    )
    assert matched.text.startswith(stopped.text)
    assert len(stopped.text) < 7

    def only_even(tokens: Any, logits: np.ndarray) -> None:
        logits[1::2] = -np.inf

    assert not any(token % 2 for token in contrastive(random_model, [1, 2], 15, logits_processor=only_even))
    with pytest.raises(UsageError, match="every token is banned"):
        contrastive(random_model, [1], 3, logit_bias=dict.fromkeys(range(random_model.n_vocab), -np.inf))


def test_text_as_it_comes(random_model: fastgpt_c.Model) -> None:
    """The pieces of stream are the text of generate, and a reader may bring any session."""
    options: dict[str, Any] = {"max_new_tokens": 12, "penalty_alpha": 0.6, "top_k": 4}
    expected = random_model.generate("abc", **options)
    assert "".join(random_model.stream("abc", **options)) == expected.text
    with random_model.session() as session:
        session.prefill([9, 9, 9])
        reader = Reader(session, [9, 9, 9])
        for _ in range(2):
            again = random_model.stream("abc", reader=reader, **options).finish()
            assert (again.tokens, again.n_reused) == (expected.tokens, 0)
        assert (
            greedy(random_model, "abc")
            == random_model.stream("abc", reader=reader, max_new_tokens=10, temperature=0).finish().tokens
        )


# ---- Errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"penalty_alpha": -0.1}, r"penalty_alpha is -0.1, not a number in \[0, 1\]"),
        ({"penalty_alpha": 1.1}, "penalty_alpha is 1.1"),
        ({"penalty_alpha": float("nan")}, "penalty_alpha is nan"),
        ({"top_k": 0}, "give top_k too, such as 4"),
        ({"temperature": 0.7}, "leave temperature or penalty_alpha out"),
        ({"top_p": 0.5}, "leave top_p or penalty_alpha out"),
        ({"min_p": 0.1}, "leave min_p or"),
        ({"typical_p": 0.2}, "leave typical_p or"),
        ({"top_n_sigma": 1.0}, "leave top_n_sigma or"),
        ({"mirostat_tau": 3.0}, "leave mirostat_tau or"),
        ({"prompt_lookup": 3}, "leave prompt_lookup and draft, or penalty_alpha, out"),
        ({"kv_cache": False}, "leave kv_cache=False or penalty_alpha out"),
        ({"on_overflow": "slide"}, 'choose "truncate" or "error"'),
        ({"repetition_penalty": -1.0}, "repetition_penalty is -1.0"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_named(random_model: fastgpt_c.Model, fields: dict[str, Any], named: str) -> None:
    """Before any work, with what to do."""
    with pytest.raises(UsageError, match=named):
        random_model.generate("a", **{"max_new_tokens": 2, "penalty_alpha": 0.6, "top_k": 4, **fields})


def test_neutral_values_are_taken(random_model: fastgpt_c.Model) -> None:
    """temperature 0 or 1 and the like draw nothing more than their defaults."""
    plain = contrastive(random_model, [5], 6)
    for temperature, top_p, typical_p in product((0, 1.0), (0, 1.0), (0, 1.0)):
        options = {"temperature": temperature, "top_p": top_p, "typical_p": typical_p}
        assert contrastive(random_model, [5], 6, **options) == plain


def test_no_batch_and_no_room(random_model: fastgpt_c.Model) -> None:
    """A batch refuses it, penalty_alpha 0 included; the context has to hold all of the text."""
    for alpha in (0.0, 0.6):
        with pytest.raises(UsageError, match="penalty_alpha works for one text at a time"):
            random_model.generate_batch(["a"], penalty_alpha=alpha, top_k=4)
    n_ctx = random_model.n_ctx
    assert len(contrastive(random_model, [1, 2], n_ctx - 2, logit_bias={EOS: -np.inf})) == n_ctx - 2
    with pytest.raises(ContextFullError):
        contrastive(random_model, [1, 2], n_ctx - 1)


def test_the_command(random_model: fastgpt_c.Model, capfd: pytest.CaptureFixture[str]) -> None:
    """--penalty-alpha with --top-k says what generate says."""
    arguments = ["generate", "-m", random_model.path, "abc", "-n", "12", "--penalty-alpha", "0.6", "--top-k", "4"]
    expected = random_model.generate("abc", max_new_tokens=12, penalty_alpha=0.6, top_k=4)
    assert output_here(capfd, *arguments) == f"abc{expected.text}\n"
    assert json.loads(output_here(capfd, *arguments, "--json"))["tokens"] == expected.tokens
