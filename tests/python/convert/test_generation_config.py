"""Laws of generation_config.json: every token that it names ends a text, and its defaults are offered, not applied."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import CONFIG, vocabulary, write_checkpoint, write_json
from command import FAILURE, WRONG_USAGE, output_of, run
from conversions import keys_of, read_value
from gguf import GGUFReader
from scripted import write_scripted_model

import fastgpt_c
from fastgpt_c.convert import convert, quantize
from fastgpt_c.errors import ModelFileError

IDS = vocabulary()
END = CONFIG["eos_token_id"]
MANY = [END, IDS["x"], IDS["y"], IDS["z"], IDS["d"]]
KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
LIST = "fastgpt.eos_token_ids"


@pytest.fixture(scope="module")
def reciter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """A model that recites the alphabet, and whose fifth end token is "d"."""
    path = write_scripted_model(tmp_path_factory.mktemp("ends") / "alphabet.gguf", "abcdefghijkl")
    write_json(path.with_suffix("") / "generation_config.json", {"eos_token_id": MANY})
    convert(path.with_suffix(""), path)
    with fastgpt_c.load(path) as model:
        yield model


def converted(tmp_path: Path, generation: dict[str, Any], **config: Any) -> Path:
    folder = write_checkpoint(tmp_path / "hf", {**CONFIG, **config})
    write_json(folder / "generation_config.json", generation)
    convert(folder, tmp_path / "x.gguf")
    return tmp_path / "x.gguf"


# ---- Tokens that end a text ------------------------------------------------------------------------------


GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 20}
WAYS: dict[str, Callable[[fastgpt_c.Model], tuple[str, str]]] = {
    "generate": lambda model: ended(model.generate("a", **GREEDY)),
    "prompt_lookup": lambda model: ended(model.generate("abcdab", **GREEDY, prompt_lookup=3), 1),
    "draft": lambda model: ended(model.generate("a", **GREEDY, draft=model)),
    "contrastive": lambda model: ended(model.generate("a", penalty_alpha=0.5, top_k=2, max_new_tokens=20)),
    "batch": lambda model: ended(*model.generate_batch(["a"], **GREEDY)),
    "beams": lambda model: ended(model.beam_search("a", num_beams=2, max_new_tokens=20)[0]),
}


def ended(completion: Any, n_missing: int = 0) -> tuple[str, str]:
    """The text, behind what a prompt had of it, and what ended it."""
    return "b" * n_missing + completion.text, completion.finish_reason


@pytest.mark.parametrize("way", WAYS)
def test_every_end_token_ends_a_text(reciter: fastgpt_c.Model, way: str):
    assert WAYS[way](reciter) == ("bc", "eos")


def test_min_new_tokens_bans_every_end_token(reciter: fastgpt_c.Model):
    """With "d" banned, the model has no favourite: whatever comes is none of the ends."""
    for text in (reciter.generate("c", min_new_tokens=5, max_new_tokens=5, temperature=5.0, seed=i) for i in range(9)):
        assert len(text.tokens) == 5
        assert not set(text.tokens) & set(MANY)
    (text,) = reciter.generate_batch(["c"], min_new_tokens=5, max_new_tokens=5, temperature=5.0, seed=1)
    assert len(text.tokens) == 5


def test_end_tokens_are_no_text_of_a_constraint(reciter: fastgpt_c.Model):
    """Inside what must match none of them can come; where the text may end, each of them may."""
    pytest.importorskip("llguidance")
    inside = reciter.generate("a", regex="[a-z]{6}", **GREEDY)
    assert (len(inside.tokens), inside.finish_reason) == (6, "stop")
    assert not set(inside.tokens) & set(MANY)
    free = reciter.generate("a", regex="[a-z]*", **GREEDY)
    assert (free.text, free.finish_reason) == ("bc", "eos")


@pytest.mark.parametrize("n", range(1, 6))
def test_end_tokens_stand_under_llama_cpp_s_keys(tmp_path: Path, n: int):
    """Three of them; more stand in a list of ours.  Converting again (quantize) keeps them."""
    path = converted(tmp_path, {"eos_token_id": MANY[:n] if n > 1 else END})
    reader = GGUFReader(path)
    assert [read_value(reader, key) for key in KEYS if key in keys_of(reader)] == MANY[: min(n, 3)]
    assert (read_value(reader, LIST) if LIST in keys_of(reader) else []) == (MANY[:n] if n > 3 else [])
    quantize(path, tmp_path / "y.gguf", type="f16")
    for file in (path, tmp_path / "y.gguf"):
        with fastgpt_c.load(file) as model:
            assert model.eos_tokens == tuple(MANY[:n])
            assert model.eos_token == END


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": 7}, 5, (7,)),
        ({"eos_token_id": [7, 5, 7]}, 5, (7, 5)),
        ({"eos_token_id": [7, 50256]}, 5, (7,)),
        ({"eos_token_id": None}, [5, 6], (5, 6)),
        ({}, 5, (5,)),
        ({}, None, ()),
    ],
)
def test_generation_config_wins(tmp_path: Path, generation: Any, config: Any, expected: tuple[int, ...]):
    """As in transformers' generate; a token that the vocabulary has not can never come."""
    with fastgpt_c.load(converted(tmp_path, generation, eos_token_id=config)) as model:
        assert model.eos_tokens == expected
        assert model.eos_token == (expected[0] if expected else None)


# ---- Defaults --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"do_sample": True}, {"temperature": 1.0, "top_k": 50, "top_p": 1.0}),
        (
            {"do_sample": True, "temperature": 0.7, "top_k": 9, "top_p": 0.9, "repetition_penalty": 1.2},
            {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "repetition_penalty": 1.2},
        ),
        ({"temperature": 0.7, "max_new_tokens": 3}, {"temperature": 0.0, "max_new_tokens": 3}),
        ({"do_sample": False, "top_p": None}, {"temperature": 0.0}),
        ({"eos_token_id": END, "transformers_version": "5"}, {}),
    ],
)
def test_defaults_are_those_of_transformers_generate(tmp_path: Path, named: Any, expected: Any):
    """It draws only where the file says do_sample, and then has values of its own for what the file leaves out."""
    with fastgpt_c.load(converted(tmp_path, named)) as model:
        assert model.default_options() == fastgpt_c.Options(**expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eos_token_id", "x"),
        ("eos_token_id", [1, True]),
        ("eos_token_id", list(range(65))),
        ("do_sample", 1),
        ("temperature", "hot"),
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_k", 2.5),
        ("top_p", 1.5),
        ("repetition_penalty", 0),
        ("max_new_tokens", True),
    ],
)
def test_values_that_are_none_are_refused_by_name(tmp_path: Path, key: str, value: Any):
    with pytest.raises(ModelFileError, match=f"generation_config.json: {key} "):
        converted(tmp_path, {key: value})


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b'{"max_new_tokens": -1}', b'{"kv_cache": false}', b'{"unknown": 1}', b"\xff"]
)
def test_defaults_of_a_stranger_s_file_are_checked(reciter: fastgpt_c.Model, monkeypatch: Any, text: bytes):
    monkeypatch.setattr(type(reciter), "metadata", lambda *_: text)
    with pytest.raises(ModelFileError, match=r"fastgpt\.generation\.defaults cannot be used"):
        reciter.default_options()


def test_the_command_offers_defaults_and_does_not_apply_them(tmp_path: Path):
    path = converted(tmp_path, {"max_new_tokens": 2, "temperature": 0.7}, n_positions=128)

    def n_new(*arguments: str) -> int:
        return len(json.loads(output_of("generate", "a", "--json", "-m", path, *arguments))["tokens"])

    assert n_new("--logit-bias", f"{END}=-inf") == 100
    assert n_new("--logit-bias", f"{END}=-inf", "--model-defaults") == 2
    assert n_new("--logit-bias", f"{END}=-inf", "--model-defaults", "-n", "5") == 5
    texts = {output_of("generate", "a", "-m", path, "--model-defaults") for _ in range(3)}
    assert len(texts) == 1, "greedy, as the file says"


def test_defaults_that_are_not_there_are_missed(tmp_path: Path):
    result = run("generate", "a", "-m", converted(tmp_path, {}), "--model-defaults")
    assert result.returncode in (FAILURE, WRONG_USAGE)
    assert b"has no defaults of its own" in result.stderr
