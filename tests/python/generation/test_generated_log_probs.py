"""Log-probabilities of generated tokens are what Model.score says of the same text, however they were selected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import fastgpt_c
from fastgpt_c import Completion, Request, UsageError
from fastgpt_c.batching.openai_format import completion_record, parse

PROMPT = [5, 17, 3, 250, 5, 17]
TOLERANCE = 2e-5  # of a float32 sum in another order


def spoil(tokens: Sequence[int], logits: np.ndarray) -> None:
    """In place, as a processor may."""
    logits[::2] = -50.0


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "drawn": {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "seed": 3},
    "adjusted": {"repetition_penalty": 1.5, "logit_bias": {7: 5.0, 5: float("-inf")}, "no_repeat_ngram_size": 2},
    "processed": {"logits_processor": spoil, "seed": 5},
    "guessed": {"prompt_lookup": 3, "temperature": 0},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "without cache": {"kv_cache": False, "temperature": 0, "max_new_tokens": 4},
}


def assert_scored(model: fastgpt_c.Model, prompt: Sequence[int], completion: Completion, k: int) -> None:
    assert completion.logprobs is not None
    assert [one.token for one in completion.logprobs] == completion.tokens
    scores = model.score([*prompt, *completion.tokens], top_k=k)[len(prompt) :]
    np.testing.assert_allclose([one.logprob for one in completion.logprobs], scores.logprobs, atol=TOLERANCE)
    assert [one.rank for one in completion.logprobs] == scores.ranks.tolist()
    assert [[token for token, _ in one.top] for one in completion.logprobs] == scores.top_tokens.tolist()
    values = [[value for _, value in one.top] for one in completion.logprobs]
    np.testing.assert_allclose(np.reshape(values, scores.top_logprobs.shape), scores.top_logprobs, atol=TOLERANCE)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("k", [0, 3])
def test_they_are_the_scores_of_the_text(random_model: fastgpt_c.Model, way: str, k: int) -> None:
    """Before processors, bias, penalties, temperature and filters."""
    options = {"max_new_tokens": 12} | WAYS[way]
    completion = random_model.generate(PROMPT, logprobs=k, **options)
    assert_scored(random_model, PROMPT, completion, k)
    plain = random_model.generate(PROMPT, seed=completion.seed, **{k: v for k, v in options.items() if k != "seed"})
    assert plain.tokens == completion.tokens
    assert plain.logprobs is None


def test_a_stream_has_those_of_the_tokens_so_far(random_model: fastgpt_c.Model) -> None:
    stream = random_model.stream(PROMPT, max_new_tokens=5, logprobs=1, temperature=0)
    assert stream.logprobs == ()
    completion = stream.finish()
    assert stream.logprobs == completion.logprobs
    assert len(completion.logprobs or ()) == 5


def test_a_batch_has_the_same(random_model: fastgpt_c.Model) -> None:
    """For the prompts that ask, whatever stands beside them."""
    prompts = [Request(PROMPT, logprobs=2), PROMPT, Request([9, 9, 8], logprobs=0, temperature=0), Request([4, 2], n=2)]
    found = random_model.generate_batch(prompts, max_new_tokens=8, seed=1, max_batch=3)
    assert_scored(random_model, PROMPT, found[0], 2)
    assert found[1].logprobs is None
    assert found[0].tokens == found[1].tokens
    assert_scored(random_model, [9, 9, 8], found[2], 0)
    assert found[3].logprobs is found[4].logprobs is None


def test_the_end_of_text_token_has_none(alphabet_model: fastgpt_c.Model) -> None:
    """As it is none of the tokens."""
    eos = alphabet_model.eos_token
    assert eos is not None
    options: dict[str, Any] = {"max_new_tokens": 9, "min_new_tokens": 2, "logprobs": 1, "temperature": 0}
    for completion in (
        alphabet_model.generate("a", **options, logit_bias={eos: 1e6}),
        *alphabet_model.generate_batch(["a"], **options, logit_bias={eos: 1e6}),
    ):
        assert completion.finish_reason == "eos"
        assert len(completion.logprobs or ()) == len(completion.tokens) == 2


def test_more_than_the_vocabulary_has_is_refused(random_model: fastgpt_c.Model) -> None:
    n_vocab = random_model.n_vocab
    assert len((random_model.generate([1], max_new_tokens=1, logprobs=n_vocab).logprobs or ())[0].top) == n_vocab
    for call in (random_model.generate, lambda prompt, **given: random_model.generate_batch([prompt], **given)):
        with pytest.raises(UsageError, match="logprobs is"):
            call([1], max_new_tokens=1, logprobs=n_vocab + 1)
        with pytest.raises(UsageError, match="logprobs is -1, not"):
            call([1], max_new_tokens=1, logprobs=-1)


# ---- Samples of one prompt -----------------------------------------------------------------------------------


def test_samples_of_a_prompt_stand_side_by_side(random_model: fastgpt_c.Model) -> None:
    """The first is that of n=1, the others draw from seeds made of its seed: the same ones every time."""
    alone = random_model.generate_batch([PROMPT, [4, 2]], max_new_tokens=6, seed=7)
    found = random_model.generate_batch([PROMPT, Request([4, 2], n=2)], n=3, max_new_tokens=6, seed=7)
    assert [one.n_prompt for one in found] == [len(PROMPT)] * 3 + [2] * 2
    assert [found[0].tokens, found[3].tokens] == [one.tokens for one in alone]
    assert len({one.seed for one in found[:3]}) == 3
    assert found[4].seed == found[1].seed
    again = random_model.generate_batch([PROMPT], n=3, max_new_tokens=6, seed=7, max_batch=1)
    assert [one.tokens for one in again] == [one.tokens for one in found[:3]]
    fresh = random_model.generate_batch([PROMPT], n=3, max_new_tokens=1)
    assert len({one.seed for one in fresh}) == 3


def test_a_stream_of_samples_tells_the_prompt(random_model: fastgpt_c.Model) -> None:
    found = random_model.stream_batch([PROMPT, Request([1], n=1), [2]], n=2, max_new_tokens=3)
    assert sorted(index for index, _ in found) == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("n", [0, -1, 129, 1.5, "2", True])
def test_a_wrong_number_of_samples_is_refused(random_model: fastgpt_c.Model, n: Any) -> None:
    for call in (lambda: Request([1], n=n), lambda: random_model.generate_batch([[1]], n=n)):
        with pytest.raises(UsageError, match="n is "):
            call()


# ---- Lines of a batch ----------------------------------------------------------------------------------------


def choices(model: fastgpt_c.Model, **body: Any) -> list[dict[str, Any]]:
    """Of the record of a line."""
    line = parse(json.dumps(body).encode(), 1)
    completions = model.generate_batch([Request(line.prompt, n=line.n, **line.changes)], seed=1)
    return json.loads(completion_record(line, model, completions))["response"]["body"]["choices"]  # type: ignore[no-any-return]


def test_a_record_has_them_as_openai_writes_them() -> None:
    """Four lists with an element a token; the likeliest by text, likeliest first, and the token itself among them."""
    with fastgpt_c.load() as model:
        for choice in choices(model, prompt="Once upon a time", max_tokens=9, logprobs=2, n=2, temperature=1.5):
            found, n_tokens = choice["logprobs"], 9
            assert {name: len(row) for name, row in found.items()} == dict.fromkeys(
                ("tokens", "token_logprobs", "top_logprobs", "text_offset"), n_tokens
            )
            assert "".join(found["tokens"]) == choice["text"]
            for token, logprob, top, offset in zip(*found.values(), strict=True):
                assert choice["text"][offset:].startswith(token)
                assert top[token] == logprob
                assert 2 <= len(top) <= 3
                assert list(top.values())[:2] == sorted(top.values(), reverse=True)[:2]
        assert choices(model, prompt="Once", max_tokens=1)[0]["logprobs"] is None


def test_parts_of_characters_are_written_as_bytes(alphabet_model: fastgpt_c.Model) -> None:
    """And offsets count whole characters."""
    first, second = alphabet_model.encode("é")
    seen = []
    for token in (first, second):
        bias = {str(token): 1e6}
        choice = choices(alphabet_model, prompt="a", max_tokens=2, logprobs=0, temperature=0, logit_bias=bias)[0]
        seen.append((choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"]))
    assert seen == [(["bytes:\\xc3"] * 2, [0, 0]), (["bytes:\\xa9"] * 2, [0, 1])]


def test_tokens_without_text_are_written_as_ids(long_model: fastgpt_c.Model) -> None:
    choice = choices(long_model, prompt=[1, 2], max_tokens=2, logprobs=1, temperature=0)[0]
    assert choice["text"] == ""
    assert all(token.startswith("token_id:") for token in choice["logprobs"]["tokens"])
    assert choice["logprobs"]["text_offset"] == [0, 0]
