"""The adapter for lm-evaluation-harness answers as the harness's own HFLM does for the same checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from checkpoints import CONFIG, random_tensors, write_checkpoint, write_json

from fastgpt_c.errors import FastGPTError

REASON = "the harness and what its HFLM needs are not installed:  pip install 'lm_eval[hf]'"
HFLM = pytest.importorskip("lm_eval.models.huggingface", reason=REASON).HFLM
Instance = pytest.importorskip("lm_eval.api.instance").Instance
FastGPTLM = importlib.import_module("fastgpt_c.lm_eval_adapter").FastGPTLM

N_CTX = 32


@pytest.fixture(scope="module", params=[1, 2])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The adapter and HFLM on a checkpoint of random weights, all of whose tokens have a text."""
    folder = tmp_path_factory.mktemp("lm_eval") / "checkpoint"
    config = CONFIG | {"n_positions": N_CTX, "vocab_size": 260}
    rng = np.random.default_rng(request.param)
    tensors = {
        name: (rng.normal(0, 1, array.shape) * (0.3 if array.ndim == 1 or "w" in name[:2] else 0.2)).astype(np.float32)
        + np.float32("ln_" in name and name.endswith("weight"))
        for name, array in random_tensors(config).items()
    }
    write_checkpoint(folder, config, tensors)
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
    })  # fmt: skip
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)
    yield FastGPTLM(model=str(folder)), theirs


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    return [Instance(kind, {}, argument, i) for i, argument in enumerate(arguments)]


LONG = "the quick brown fox jumps over the lazy dog. " * 4

PAIRS = [
    ("the", " end"), ("the ", "end"), ("the \n", "a"), ("", "the end"), ("a", "b"), ("a", "c"), ("a", "cd"),
    ("é→", "😀"), (LONG, " the"), (LONG, LONG[:20]), ("a", LONG[:20]), ("the", "the<|endoftext|>a"),
    ("<|endoftext|>", "the"), ("", "<|endoftext|>the"), ("q" * (N_CTX - 1), "xy"), ("q" * N_CTX, "x"),
    ("q", "x" * N_CTX),
]  # fmt: skip


def test_loglikelihood(both: tuple[Any, Any]) -> None:
    """Of pairs short and long, with spaces and special tokens, and of none: sums within 1e-3, the same greedy flags."""
    ours, theirs = (lm.loglikelihood(instances("loglikelihood", PAIRS), disable_tqdm=True) for lm in both)
    for (our_sum, our_greedy), (their_sum, their_greedy), pair in zip(ours, theirs, PAIRS, strict=True):
        assert our_sum == pytest.approx(their_sum, abs=1e-3), pair
        assert our_greedy == their_greedy, pair
    assert both[0].loglikelihood([]) == []


def test_greedy_continuations(both: tuple[Any, Any]) -> None:
    """What the model itself would say is told to be greedy, by both."""
    lm = both[0]
    text = lm.generate_until(instances("generate_until", [("the", {"max_gen_toks": 4, "until": []})]))[0]
    tokens = lm.tok_encode("the" + text)
    requests = [(None, tokens[:1], tokens[1:]), (None, tokens[:1], [*tokens[1:-1], (tokens[-1] + 1) % 259])]
    answers = [[greedy for _, greedy in each._loglikelihood_tokens(requests, disable_tqdm=True)] for each in both]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("n", [1, 2, N_CTX - 1, N_CTX, N_CTX + 1, 2 * N_CTX, 3 * N_CTX + 5])
def test_loglikelihood_rolling(both: tuple[Any, Any], n: int) -> None:
    """Of texts shorter and longer than n_ctx, each token predicted once."""
    texts = [("x" * n,), ((LONG * 2)[:n],)]
    ours, theirs = (
        lm.loglikelihood_rolling(instances("loglikelihood_rolling", texts), disable_tqdm=True) for lm in both
    )
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_generate_until(both: tuple[Any, Any]) -> None:
    """Greedy texts up to a stop string or a number of tokens; a prompt that is too long loses its beginning."""
    first = both[1].generate_until(instances("generate_until", [("the", {"max_gen_toks": 20})]), disable_tqdm=True)[0]
    assert len(first) > 5
    requests = [
        (prompt, {"until": until, "max_gen_toks": n, **more})
        for prompt in ("the", "a b ", LONG)
        for until, n, more in (
            ([], 20, {}), ([first[3:5]], 20, {}), (["zzz", first[2]], 12, {"do_sample": False}), (first[1], 5, {}),
            ([], 9, {"temperature": 0.0}),
        )
    ]  # fmt: skip
    ours, theirs = (lm.generate_until(instances("generate_until", requests), disable_tqdm=True) for lm in both)
    assert ours == theirs
    assert len(set(ours)) > 4


def test_what_is_refused(both: tuple[Any, Any]) -> None:
    """What it can't do as HFLM does it, by name; HFLM stops with an assertion where there is no room."""
    lm = both[0]
    for options in ({"num_beams": 4}, {"max_gen_toks": N_CTX}, {"stopping_criteria": 1}):
        with pytest.raises(FastGPTError, match=next(iter(options))):
            lm.generate_until(instances("generate_until", [("the", {"until": [], "max_gen_toks": 5, **options})]))
    with pytest.raises(FastGPTError, match="n_ctx"):
        lm.loglikelihood(instances("loglikelihood", [("a", "x" * (N_CTX + 1))]))


def test_it_is_registered() -> None:
    """Under the name that the command line gives, and made of its strings; the demo model if none is named."""
    get_model = importlib.import_module("lm_eval.api.registry").get_model
    lm = get_model("fastgpt-c").create_from_arg_string("n_threads=1,kv_type=f16", {"batch_size": 8, "device": "cpu"})
    assert isinstance(lm, FastGPTLM)
    assert lm.max_length == 512
    (answer,) = lm.loglikelihood(instances("loglikelihood", [("Once upon a", " time")]), disable_tqdm=True)
    assert answer[1] and answer[0] > -0.01
