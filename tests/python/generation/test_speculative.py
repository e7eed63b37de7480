"""Speculative decoding changes nothing but the time: whatever is guessed, the text is that of plain decoding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import output_here
from scripted import ALPHABET, EOS, write_scripted_model

import fastgpt_c
from fastgpt_c.engine.reader import Reader
from fastgpt_c.errors import UsageError
from fastgpt_c.generation.speculative import N_DRAFT, DraftModel, Guess, PromptLookup, SpeculativeReader

FEW = {64: 15.0, 65: 15.0, 66: 15.0, 67: 15.0, EOS: -np.inf}  # these four tokens are likely: so they come again
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "drawn": {"temperature": 1.5, "seed": 3},
    "with a history": {"temperature": 1.0, "seed": 4, "frequency_penalty": 0.5, "mirostat_tau": 4.0},
    "slide": {"temperature": 0, "on_overflow": "slide", "max_new_tokens": 60},
    "constrained": {"temperature": 0, "regex": "[a-z]{1,40}"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_prompt_lookup_changes_nothing(random_model: fastgpt_c.Model, name: str) -> None:
    """The same tokens, and some guesses were made."""
    options = {"max_new_tokens": 15, "logit_bias": FEW, **OPTIONS[name]}
    prompt = random_model.encode("abcabc")
    plain = random_model.generate(prompt, **options)
    guessed = random_model.generate(prompt, prompt_lookup=4, **options)
    assert (guessed.tokens, guessed.text, guessed.finish_reason) == (plain.tokens, plain.text, plain.finish_reason)
    assert guessed.n_guessed >= guessed.n_right >= 0 == plain.n_guessed
    assert guessed.n_guessed > 0


@pytest.mark.parametrize("name", OPTIONS)
def test_a_draft_model_changes_nothing(
    random_model: fastgpt_c.Model, alphabet_model: fastgpt_c.Model, name: str
) -> None:
    """Neither one that is always wrong nor the model itself, which is always right when greedy."""
    options = {"max_new_tokens": 15, "logit_bias": {EOS: -np.inf}, **OPTIONS[name]}
    plain = random_model.generate("abc", **options)
    for draft in (alphabet_model, random_model):
        guessed = random_model.generate("abc", draft=draft, **options)
        assert (guessed.tokens, guessed.text) == (plain.tokens, plain.text)
        assert guessed.n_guessed > 0
    if name == "greedy":
        assert guessed.n_right >= guessed.n_guessed - N_DRAFT, "the last guesses may lie beyond the end"


def guesses_by(rng: np.random.Generator, text: list[int], p_right: float) -> Guess:
    """Guesses what text says next, each time so many tokens, each of them right with a probability."""

    def guess(tokens: list[int]) -> list[int]:
        right = text[len(tokens) : len(tokens) + int(rng.integers(0, 6))]
        return [token if rng.random() < p_right else int(rng.integers(0, 50)) for token in right]

    return guess


@pytest.mark.parametrize("seed", range(20))
def test_any_guesses_give_the_same_logits(random_model: fastgpt_c.Model, seed: int) -> None:
    """A row of tokens that grows, and now and then goes back or elsewhere: always the logits of reading it at once."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, 50, random_model.n_ctx).tolist()
    with random_model.session() as one, random_model.session() as other:
        speculative = SpeculativeReader(one, guesses_by(rng, text, p_right=0.8))
        n = 1
        for _ in range(60):
            tokens = text[:n] if rng.random() < 0.9 else [*text[: n - 1], int(rng.integers(0, 50))]
            expected = Reader(other).logits_after(tokens)
            np.testing.assert_allclose(speculative.logits_after(tokens), expected, atol=1e-4)
            Reader(other).forget()
            if rng.random() < 0.1:
                speculative.forget()
            n = n % random_model.n_ctx + 1 if rng.random() < 0.9 else int(rng.integers(1, n + 1))
        assert 0 < speculative.n_right <= speculative.n_guessed


def test_right_guesses_save_steps(alphabet_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model as its own draft: a step of five tokens for every five."""
    steps: list[int] = []
    prefill = fastgpt_c.Session.prefill

    def counted(self: fastgpt_c.Session, tokens: Any, all_logits: bool = False) -> Any:
        steps.append(len(tokens) if all_logits else 0)
        return prefill(self, tokens, all_logits)

    monkeypatch.setattr(fastgpt_c.Session, "prefill", counted)
    completion = alphabet_model.generate("a", max_new_tokens=41, draft=alphabet_model, temperature=0)
    assert completion.text == (ALPHABET * 3)[1:42]
    assert [n for n in steps if n] == [1 + N_DRAFT] * 9
    assert (completion.n_guessed, completion.n_right) == (36, 36 - 4)


def follows(tokens: list[int], n_most: int) -> list[int]:
    """Prompt lookup, told plainly: after the latest earlier place that ends as tokens do, three alike or else two."""
    for n in (3, 2):
        for at in range(len(tokens) - 1, n - 1, -1):
            if len(tokens) >= n and tokens[at - n : at] == tokens[-n:]:
                return tokens[at : at + n_most]
    return []


@pytest.mark.parametrize("seed", range(10))
def test_prompt_lookup_finds_the_latest_place(seed: int) -> None:
    """As a text grows, and when it becomes shorter."""
    rng = np.random.default_rng(seed)
    lookup, tokens, n_found = PromptLookup(3), rng.integers(0, 4, 5).tolist(), 0
    for i in range(120):
        assert lookup(tokens) == follows(tokens, 3)
        n_found += bool(follows(tokens, 3))
        tokens.append(int(rng.integers(0, 4)))
        if i % 50 == 49:
            tokens = tokens[len(tokens) // 2 :]
    assert n_found > 60


def test_another_vocabulary_is_refused(random_model: fastgpt_c.Model, tmp_path: Path) -> None:
    """A draft model must mean the same by its tokens; both ways at once, and negative numbers, are refused too."""
    with (
        fastgpt_c.load() as demo,
        pytest.raises(UsageError, match="another vocabulary"),
    ):
        random_model.generate("a", max_new_tokens=2, draft=demo)
    with pytest.raises(UsageError, match="prompt_lookup or draft, not both"):
        random_model.generate("a", prompt_lookup=2, draft=random_model)
    with pytest.raises(UsageError, match="prompt_lookup is -1"):
        random_model.generate("a", prompt_lookup=-1)


def test_a_draft_of_a_shorter_context(alphabet_model: fastgpt_c.Model, tmp_path: Path) -> None:
    """It guesses as long as the text fits into it, and the model goes on alone."""
    path = write_scripted_model(tmp_path / "short.gguf", ALPHABET, n_ctx=20)
    with fastgpt_c.load(path) as short:
        guess = DraftModel(short, alphabet_model, None)
        assert [len(guess([64] * n)) for n in (15, 16, 17, 19, 20, 30)] == [4, 4, 3, 1, 0, 0]
        completion = alphabet_model.generate("a", max_new_tokens=50, draft=short, temperature=0)
    assert completion.text == (ALPHABET * 3)[1:51]


@pytest.mark.parametrize("option", ["--draft", "--prompt-lookup"])
def test_the_command(alphabet: Path, capfd: pytest.CaptureFixture[str], option: str) -> None:
    """The same text, and -v tells how many guesses were right."""
    value: Callable[[], str] = {"--draft": lambda: str(alphabet), "--prompt-lookup": lambda: "5"}[option]
    arguments = ["generate", "-m", alphabet, "abcdefabcdef", "-n", "20", "--temperature", "0"]
    plain = output_here(capfd, *arguments)
    assert output_here(capfd, *arguments, option, value()) == plain
    assert json.loads(output_here(capfd, *arguments, option, value(), "--json"))["text"] in plain


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("greedy", [True, False])
def test_deterministic_guesses_change_no_bit(long_model: fastgpt_c.Model, seed: int, greedy: bool) -> None:
    """In deterministic mode the very logits are the same, however many guesses are read along."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, long_model.n_vocab, 60).tolist()
    with long_model.session(deterministic=True) as one, long_model.session(deterministic=True) as other:
        speculative, plain = SpeculativeReader(one, guesses_by(rng, text, p_right=0.7)), Reader(other)
        for n in range(20, 61):
            np.testing.assert_array_equal(speculative.logits_after(text[:n]), plain.logits_after(text[:n]))
        assert 0 < speculative.n_right < speculative.n_guessed
    options: dict[str, Any] = {"deterministic": True, "seed": seed, "temperature": 0.0 if greedy else 1.0}
    options |= {"max_new_tokens": 80, "logit_bias": dict.fromkeys(range(4), 12.0)}
    drawn = long_model.generate(text, **options)
    guessed = long_model.generate(text, prompt_lookup=5, **options)
    assert guessed.tokens == drawn.tokens
    assert guessed.n_guessed > 0
