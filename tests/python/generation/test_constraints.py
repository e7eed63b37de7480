"""Text under a regular expression, a JSON schema, a grammar or a logits processor: what comes out always matches."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import output_here
from scripted import EOS, N_VOCAB, greedy, logits_after

import fastgpt_c
from fastgpt_c.cli.__main__ import main
from fastgpt_c.errors import MissingExtraError, UsageError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 1, "maximum": 20},
        "likes": {"type": "array", "items": {"enum": ["bones", "naps"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def demo() -> fastgpt_c.Model:
    return fastgpt_c.load()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "regex", [r" [A-Z][a-z]{1,9}\.", r"[0-9]{3}-[a-z]{2,5}!", "(the (cat|dog), ){2,3}and a bird", "é{2}|ü€{2}|", r"\d?"]
)
def test_text_matches_a_regex(demo: fastgpt_c.Model, regex: str, seed: int) -> None:
    """At a temperature that knows no sense, and whatever tokens its bytes are cut into."""
    completion = demo.generate("Once upon a time", regex=regex, temperature=5.0, top_p=1.0, seed=seed)
    assert re.fullmatch(regex, completion.text), completion
    assert completion.finish_reason in ("stop", "eos")


@pytest.mark.parametrize("seed", range(10))
def test_text_matches_a_json_schema(demo: fastgpt_c.Model, seed: int) -> None:
    """It is JSON of that shape, written as json.dumps writes it; the schema may be text or a dict."""
    schema = json.dumps(SCHEMA) if seed % 2 else SCHEMA
    text = demo.generate("A dog:", json_schema=schema, temperature=2.0, top_p=1.0, seed=seed, max_new_tokens=200).text
    dog = json.loads(text)
    assert json.dumps(dog, ensure_ascii=False) == text or "\\" in text
    assert set(dog) == {"name", "age", "likes"}
    assert 1 <= dog["age"] <= 20 and len(dog["name"]) <= 12
    assert 1 <= len(dog["likes"]) <= 3 and set(dog["likes"]) <= {"bones", "naps"}


@pytest.mark.parametrize("seed", range(5))
def test_text_matches_a_grammar(demo: fastgpt_c.Model, seed: int) -> None:
    """Nested brackets, which no regular expression knows."""
    text = demo.generate("a", grammar='start: "(" start? ")" | "[" start "]"', seed=seed, max_new_tokens=400).text
    while (shorter := text.replace("()", "", 1).replace("[]", "", 1)) != text:
        text = shorter
    assert text == ""


def test_a_constraint_takes_the_likeliest_that_is_allowed(random_model: fastgpt_c.Model) -> None:
    """Greedy: the largest logit among the tokens of letters; a text that was cut is the beginning of a match."""
    texts = [random_model.tokenizer.decode_bytes([token]) for token in range(N_VOCAB)]
    letters = [token for token, text in enumerate(texts) if re.fullmatch(b"[a-h]+", text)]
    tokens = [5, 6]
    for _ in range(7):
        logits = logits_after(random_model, tokens)
        tokens.append(max(letters, key=lambda token: logits[token]))
    completion = random_model.generate([5, 6], regex="[a-h]{90}", temperature=0, max_new_tokens=7)
    assert (completion.tokens, completion.finish_reason) == (tokens[2:], "length")


def test_the_text_may_end_where_it_matches(random_model: fastgpt_c.Model) -> None:
    """The end-of-text token is allowed there, and nowhere else."""
    wants_end = {EOS: 1e6}
    completion = random_model.generate("a", regex="(ab)*c?", max_new_tokens=9, temperature=0, logit_bias=wants_end)
    assert (completion.text, completion.finish_reason) == ("", "eos")
    completion = random_model.generate("a", regex="abc(d|efg)*", max_new_tokens=9, temperature=0, logit_bias=wants_end)
    assert (completion.text, completion.finish_reason) == ("abc", "eos")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"regex": "(a"}, "^regex: .*unclosed"),
        ({"json_schema": "{nope"}, "^json_schema is not JSON"),
        ({"json_schema": {"a": {1, 2}}}, "^json_schema is not JSON"),
        ({"json_schema": "[" * 100_000}, "^json_schema is not JSON"),
        ({"json_schema": {"type": "nope"}}, "^json_schema: .*nope"),
        ({"json_schema": "[]"}, "^json_schema is not an object"),
        ({"json_schema": "3"}, "^json_schema is not an object"),
        ({"grammar": "start: nowhere"}, "^grammar: .*nowhere"),
        ({"regex": "a", "grammar": "b"}, "one of regex and grammar"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_constraints_are_named(random_model: fastgpt_c.Model, options: dict[str, Any], named: str) -> None:
    """Before any work, by a UsageError that says what is wrong with it."""
    with pytest.raises(UsageError, match=f"(?s){named}"):
        random_model.stream("a", max_new_tokens=9, **options)


def test_a_missing_library_is_named(random_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it; nobody else needs it."""
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fastgpt-c\[constraints\]'"):
        random_model.generate("a", regex="a", max_new_tokens=9)
    assert random_model.generate("a", max_new_tokens=2).tokens


def test_the_command_takes_constraints(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A regex, a schema as text or file, and a grammar as file."""
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text('{"enum": ["yes", "no"]}')
    grammar.write_text('start: "yes" | "no"')
    for options in (["--regex", '"yes"|"no"'], ["--json-schema", schema.read_text()], ["--json-schema", str(schema)]):
        assert json.loads(output_here(capfd, "generate", "Is it?", "--no-prompt", *options)) in ("yes", "no")
    assert output_here(capfd, "generate", "Is it?", "--no-prompt", "--grammar", str(grammar)) in ("yes\n", "no\n")


def test_the_command_tells_of_a_cut_text(alphabet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What -n cuts is no match yet; the text is shown all the same."""
    assert main(["generate", "-m", str(alphabet), "a", "-n", "3", "--regex", "[a-z]{9}"]) == 0
    shown = capfd.readouterr()
    assert (shown.out, "3 tokens were too few for a match" in shown.err) == ("abcd\n", True)


# ---- Logits processors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_place", [True, False])
def test_a_processor_decides(random_model: fastgpt_c.Model, in_place: bool) -> None:
    """It sees all tokens and the model's own logits, and what it makes of them is what is drawn from."""
    seen: list[list[int]] = []

    def least_likely(tokens: Sequence[int], logits: np.ndarray) -> np.ndarray | None:
        np.testing.assert_allclose(logits, logits_after(random_model, list(tokens)), atol=1e-4)
        seen.append(list(tokens))
        if not in_place:
            return -logits
        logits *= -1
        return None

    prompt, expected = [5, 6], [5, 6]
    for _ in range(6):
        expected.append(int(logits_after(random_model, expected).argmin()))
    assert greedy(random_model, prompt, 6, logits_processor=least_likely) == expected[2:]
    assert seen == [expected[: 2 + i] for i in range(6)]


def test_what_a_processor_returns_is_checked(random_model: fastgpt_c.Model) -> None:
    """Another shape or NaN is refused; its own exception comes out as it is."""
    for wrong in (np.zeros(3), np.full(N_VOCAB, np.nan)):
        with pytest.raises(UsageError, match=r"logits"):
            random_model.generate("a", max_new_tokens=1, logits_processor=lambda tokens, logits, wrong=wrong: wrong)
    with pytest.raises(ZeroDivisionError):
        random_model.generate("a", max_new_tokens=1, logits_processor=lambda tokens, logits: 1 / 0)
