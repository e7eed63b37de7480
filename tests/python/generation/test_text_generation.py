"""The laws of generation: what ends it, what fits, and that streaming and caching change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scripted import EOS, N_VOCAB, greedy, logits_after, write_scripted_model

import fastgpt_c
from fastgpt_c.errors import ContextFullError, UsageError
from fastgpt_c.native.arguments import OVERFLOW_MODES


@pytest.fixture(scope="module")
def short_text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """Recites "abcd" and ends it."""
    path = write_scripted_model(tmp_path_factory.mktemp("scripted") / "short.gguf", "abcd<|endoftext|>")
    with fastgpt_c.load(path) as model:
        yield model


@pytest.fixture(scope="module")
def wide_characters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """Recites characters of two, three and four bytes, a token a byte."""
    path = write_scripted_model(tmp_path_factory.mktemp("scripted") / "wide.gguf", "é€😀")
    with fastgpt_c.load(path) as model:
        yield model


# ---- Text and tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["a", "the other day", "", "é", [7, 8, 259, 7]], ids=repr)
@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"seed": 1, "temperature": 2.0}, {"temperature": 0, "logit_bias": {130: 1e6}}],
    ids=["greedy", "sampled", "invalid UTF-8"],
)
def test_three_ways_to_the_same_text(random_model: fastgpt_c.Model, prompt: Any, options: dict[str, Any]) -> None:
    """The pieces of stream, joined, are generate().text, which is what its tokens decode to."""
    pieces = list(random_model.stream(prompt, max_new_tokens=9, **options))
    completion = random_model.generate(prompt, max_new_tokens=9, **options)
    assert "".join(pieces) == completion.text == random_model.decode(completion.tokens)
    assert all(pieces)
    assert (completion.finish_reason, len(completion.tokens)) == ("length", 9)


def test_greedy_takes_the_likeliest(random_model: fastgpt_c.Model) -> None:
    """Each token is the argmax of the logits after all before it, computed from scratch."""
    prompt = random_model.encode("some other day")
    tokens = list(prompt)
    for _ in range(9):
        tokens.append(int(logits_after(random_model, tokens).argmax()))
    assert len(set(tokens[-9:])) > 4, "the model is too dull to show anything"
    assert greedy(random_model, "some other day", 9) == tokens[-9:]


def test_the_cache_changes_nothing(random_model: fastgpt_c.Model) -> None:
    """kv_cache=False computes everything anew and gives the same greedy tokens."""
    assert greedy(random_model, "the day", 15, kv_cache=False) == greedy(random_model, "the day", 15)


def test_seed(random_model: fastgpt_c.Model) -> None:
    """The same seed draws the same text; a fresh one differs each time, is told, and reproduces its text."""
    first, second = (random_model.generate("a", max_new_tokens=20, temperature=2.0) for _ in range(2))
    assert first.seed != second.seed
    assert first.tokens != second.tokens
    for completion in (first, second):
        again = random_model.generate("a", max_new_tokens=20, temperature=2.0, seed=completion.seed)
        assert (again.tokens, again.text, again.seed) == (completion.tokens, completion.text, completion.seed)


@pytest.mark.parametrize("make", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_a_prompt_of_token_ids(random_model: fastgpt_c.Model, make: Any) -> None:
    """Token ids continue as the text does that they stand for."""
    ids = random_model.encode("the other")
    by_ids, by_text = (random_model.generate(p, max_new_tokens=9, temperature=0) for p in (make(ids), "the other"))
    assert (by_ids.tokens, by_ids.text, by_ids.n_prompt) == (by_text.tokens, by_text.text, len(ids))


@pytest.mark.parametrize("prompt", ["", []], ids=["text", "ids"])
def test_an_empty_prompt_begins_a_text(random_model: fastgpt_c.Model, prompt: Any) -> None:
    """It is the end-of-text token alone, after which a new text begins."""
    assert greedy(random_model, prompt) == greedy(random_model, [EOS])


def test_no_new_tokens(random_model: fastgpt_c.Model) -> None:
    """max_new_tokens=0 is allowed and gives nothing, even behind a prompt that fills the context."""
    completion = random_model.generate([1] * random_model.n_ctx, max_new_tokens=0)
    assert (completion.text, completion.tokens, completion.finish_reason) == ("", [], "length")
    assert list(random_model.stream("a", max_new_tokens=0)) == []


def test_a_model_without_tokenizer(long_model: fastgpt_c.Model) -> None:
    """Token ids in, token ids out; text is refused with a reason, and so is an empty prompt, as it has no eos."""
    completion = long_model.generate([1, 2, 3], max_new_tokens=5, temperature=0)
    assert completion.tokens[0] == int(logits_after(long_model, [1, 2, 3]).argmax())
    assert (len(completion.tokens), completion.text) == (5, "")
    assert list(long_model.stream([1, 2, 3], max_new_tokens=5)) == []
    with pytest.raises(fastgpt_c.ModelFileError, match="no tokenizer"):
        long_model.generate("a")
    with pytest.raises(UsageError, match="empty"):
        long_model.generate([])


@pytest.mark.parametrize("n", range(1, 20))
def test_characters_are_never_halved(wide_characters: fastgpt_c.Model, n: int) -> None:
    """Every piece is whole characters; only where the tokens end within one, the last piece is U+FFFD."""
    text = ("€😀é" * 3).encode()[:n].decode(errors="replace")
    pieces = list(wide_characters.stream("é", max_new_tokens=n))
    assert pieces == list(text)
    assert "\ufffd" not in pieces[:-1]


# ---- What ends it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (("fgh",), "bcde"),
        ("fgh", "bcde"),
        (("f", "fgh"), "bcde"),
        (("fgh", "f"), "bcde"),
        (("efgX", "fg"), "bcde"),
        (("ghi", "fghijk"), "bcdef"),
        (("fgh", "gh"), "bcde"),
        (("b",), ""),
        (("bcdef",), ""),
        (("yza",), "bcdefghijklmnopqrstuvwx"),
    ],
)
def test_stop_strings(alphabet_model: fastgpt_c.Model, stop: Any, text: str) -> None:
    """The text ends before the stop string that is complete first, and nothing of that is ever shown."""
    stream = alphabet_model.stream("a", max_new_tokens=40, stop=stop)
    assert "".join(stream) == text
    completion = stream.completion
    assert completion is not None
    assert (completion.text, completion.finish_reason) == (text, "stop")
    seen = alphabet_model.decode(completion.tokens)
    assert any(seen == text + one for one in ([stop] if isinstance(stop, str) else stop)), "read on after the stop"


@pytest.mark.parametrize("stop", [("fgX",), ("cdefghX", "ghX"), ("a",), ("h1",)])
def test_no_stop_string_holds_nothing_back(alphabet_model: fastgpt_c.Model, stop: tuple[str, ...]) -> None:
    """What only began like a stop string is shown after all, also when the last token ends in the middle of it."""
    stream = alphabet_model.stream("a", max_new_tokens=7, stop=stop)
    assert "".join(stream) == "bcdefgh"
    assert stream.finish().finish_reason == "length"


def test_a_stop_string_in_what_is_left(wide_characters: fastgpt_c.Model) -> None:
    """U+FFFD for half a character comes when the tokens have ended; it, too, can be a stop string."""
    completion = wide_characters.generate("é", max_new_tokens=4, stop="\ufffd")
    assert (completion.text, completion.finish_reason) == ("€", "stop")


@pytest.mark.parametrize(("n", "reason"), [(2, "length"), (3, "length"), (4, "eos"), (50, "eos")])
def test_end_of_text(short_text: fastgpt_c.Model, n: int, reason: str) -> None:
    """The end-of-text token ends it and is no part of it; what might have become a stop string is shown."""
    completion = short_text.generate("a", max_new_tokens=n, stop="dX")
    assert (completion.text, completion.finish_reason) == ("bcd"[:n], reason)
    assert completion.tokens == short_text.encode("bcd"[:n])


def test_end_of_text_at_once(short_text: fastgpt_c.Model) -> None:
    """It may be the very first token."""
    completion = short_text.generate("d", max_new_tokens=50)
    assert (completion.text, completion.tokens, completion.finish_reason) == ("", [], "eos")


# ---- Logits ------------------------------------------------------------------------------------------------


def test_logit_bias_forbids_and_forces(random_model: fastgpt_c.Model) -> None:
    """-inf bans the likeliest token, so the second comes; a large bias makes one token the likeliest each time."""
    likeliest, second = np.argsort(-logits_after(random_model, [5, 6]))[:2].tolist()
    assert greedy(random_model, [5, 6], 1) == [likeliest]
    assert greedy(random_model, [5, 6], 1, logit_bias={likeliest: -np.inf}) == [second]
    assert likeliest not in random_model.generate([5, 6], max_new_tokens=20, logit_bias={likeliest: -np.inf}).tokens
    assert random_model.generate([5, 6], max_new_tokens=6, logit_bias={42: 1e6}).tokens == [42] * 6


def test_repetition_penalty_counts_the_prompt(random_model: fastgpt_c.Model) -> None:
    """Every token of the prompt and of the text so far is less likely: logits / 2 above zero, logits * 2 below."""
    prompt = [int(logits_after(random_model, [5, 6]).argmax()), 5, 6]
    tokens, differs = list(prompt), False
    for _ in range(12):
        logits = logits_after(random_model, tokens)
        seen = np.unique(tokens)
        penalised = logits.copy()
        penalised[seen] = np.where(logits[seen] > 0, logits[seen] / 2, logits[seen] * 2)
        differs |= bool(logits.argmax() in prompt and penalised.argmax() != logits.argmax())
        tokens.append(int(penalised.argmax()))
    assert differs, "the prompt never mattered"
    assert greedy(random_model, prompt, 12, repetition_penalty=2.0) == tokens[len(prompt) :]


# ---- Overflow ----------------------------------------------------------------------------------------------


def test_what_fits_is_not_overflow(random_model: fastgpt_c.Model) -> None:
    """Up to n_ctx in all, the three ways are one."""
    prompt = list(range(10))
    one, two, three = (greedy(random_model, prompt, random_model.n_ctx - 10, on_overflow=m) for m in OVERFLOW_MODES)
    assert len(one) == random_model.n_ctx - 10
    assert one == two == three


@pytest.mark.parametrize("n_prompt", [10, 23, 30])
def test_overflow_error(random_model: fastgpt_c.Model, sessions: list[Any], n_prompt: int) -> None:
    """One token too many is refused before anything is computed, with all three numbers."""
    n_new = max(random_model.n_ctx - n_prompt + 1, 1)
    with pytest.raises(ContextFullError, match=rf"{n_prompt} .* {n_new} .* {random_model.n_ctx}"):
        random_model.stream([1] * n_prompt, max_new_tokens=n_new)
    assert not sessions


@pytest.mark.parametrize("n_prompt", [18, 23, 40])
def test_overflow_truncate(random_model: fastgpt_c.Model, n_prompt: int) -> None:
    """As if the prompt had only its newest tokens, as many as leave room for max_new_tokens."""
    prompt = np.random.default_rng(n_prompt).integers(0, EOS, n_prompt).tolist()
    completion = random_model.generate(prompt, max_new_tokens=8, temperature=0, on_overflow="truncate")
    assert completion.tokens == greedy(random_model, prompt[-15:], 8)
    assert (completion.n_prompt, len(completion.tokens)) == (15, 8)


@pytest.mark.parametrize("n_new", [23, 24, 1000])
def test_truncate_leaves_something_of_the_prompt(random_model: fastgpt_c.Model, n_new: int) -> None:
    """max_new_tokens alone fill the context: no prompt is short enough."""
    with pytest.raises(ContextFullError):
        random_model.stream([1, 2], max_new_tokens=n_new, on_overflow="truncate")


@pytest.mark.parametrize("n_prompt", [1, 22, 23, 24, 60])
@pytest.mark.parametrize("kv_cache", [True, False])
def test_overflow_slide(random_model: fastgpt_c.Model, n_prompt: int, kv_cache: bool) -> None:
    """More tokens than n_ctx: each is the likeliest after a window that, when full, loses its older half."""
    n_ctx, n_new = random_model.n_ctx, 60
    prompt = np.random.default_rng(n_prompt).integers(0, EOS, n_prompt).tolist()
    window, expected = list(prompt), []
    for _ in range(n_new):
        if len(window) > n_ctx:
            window = window[-(n_ctx // 2) :]
        logits = logits_after(random_model, window)
        logits[EOS] = -np.inf
        expected.append(int(logits.argmax()))
        window.append(expected[-1])
    options: dict[str, Any] = {"on_overflow": "slide", "logit_bias": {EOS: -np.inf}, "kv_cache": kv_cache}
    assert greedy(random_model, prompt, n_new, **options) == expected


# ---- Wrong usage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"on_overflow": "wrap"}, "on_overflow is 'wrap'.*error, truncate, slide"),
        ({"stop": ""}, "stop string is empty"),
        ({"stop": ("a", "")}, "stop string is empty"),
        ({"temperature": -0.5}, r"^temperature is -0.5, not a number in \[0, 1e6\]$"),
        ({"temperature": float("nan")}, "^temperature is nan, not"),
        ({"temperature": "hot"}, "^temperature is 'hot', not a number"),
        ({"top_k": -1}, r"^top_k is -1, not an integer in \[0, 2\^31\)$"),
        ({"top_k": 2**31}, f"^top_k is {2**31}, not"),
        ({"top_k": 0.5, "min_p": 0.5}, "^top_k is 0.5, not an integer"),
        ({"top_p": 1.5}, r"^top_p is 1.5, not a number in \[0, 1\]$"),
        ({"min_p": -0.1}, r"^min_p is -0.1, not a number in \[0, 1\]$"),
        ({"repetition_penalty": -1.5}, r"^repetition_penalty is -1.5, not a number in \[0, 1e6\]$"),
        ({"repetition_penalty": 2e6}, "^repetition_penalty is 2000000.0, not"),
        ({"seed": -1}, r"^seed is -1, not an integer in \[0, 2\^64\), or None$"),
        ({"seed": 2**64}, f"^seed is {2**64}, not"),
        ({"n_threads": -1}, r"^n_threads is -1, not an integer in \[0, 1024\], or None$"),
        ({"n_threads": 2**40}, f"^n_threads is {2**40}, not"),
        ({"n_threads": "all"}, "^n_threads is 'all', not an integer"),
        ({"logit_bias": {N_VOCAB: 1.0}}, rf"logit_bias 1.0 of token {N_VOCAB}"),
        ({"logit_bias": {0: float("inf")}}, "logit_bias inf of token 0"),
    ],
    ids=repr,
)
def test_bad_options_are_named(random_model: fastgpt_c.Model, options: dict[str, Any], named: str) -> None:
    """A UsageError that names the one option, its value and what it may be, before any work."""
    with pytest.raises(UsageError, match=named):
        random_model.stream("a", **{"max_new_tokens": 1} | options)


def test_unknown_options_are_refused(random_model: fastgpt_c.Model) -> None:
    """A misspelt keyword is an error, not a default."""
    with pytest.raises(UsageError, match="temprature is no option of Options: did you mean temperature"):
        random_model.stream("a", temprature=0)


@pytest.mark.parametrize("prompt", [[N_VOCAB], [-1], [[1, 2]], [0.5], 7], ids=repr)
def test_bad_prompts_are_refused(random_model: fastgpt_c.Model, prompt: Any) -> None:
    """Token ids out of range, or no row of token ids."""
    with pytest.raises(UsageError):
        random_model.stream(prompt, max_new_tokens=1)
