"""The promise of deterministic sessions: bits depend on the tokens alone, not on the company that they are read in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import output_of
from models import write_random_gguf

import fastgpt_c
from fastgpt_c.generation.options import Options

N_PROMPTS = int(os.environ.get("FASTGPT_TEST_PROMPTS", "12"))
N_NEW = 4


@pytest.fixture(scope="module", params=["f32", "f16", "bf16", "q8_0", "q4_0", "q6_k"])
def model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """A random model with matrices of each type."""
    path = tmp_path_factory.mktemp("types") / f"{request.param}.gguf"
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 256, "n_ctx": 96, "n_vocab": 97}
    with fastgpt_c.load(write_random_gguf(path, **shape, type=request.param)) as model:
        yield model


class Sequence:
    """A prompt on its way through a batch; greedy after the prompt."""

    def __init__(self, model: fastgpt_c.Model, prompt: list[int], n_threads: int = 1) -> None:
        self.session = model.session(n_threads=n_threads, deterministic=True)
        self.unread = list(prompt)
        self.logits: list[np.ndarray] = []

    def take(self, n: int) -> list[int]:
        taken, self.unread = self.unread[:n], self.unread[n:]
        return taken

    def note(self, logits: np.ndarray) -> None:
        """The next logits count once the prompt has been read."""
        if not self.unread:
            self.logits.append(logits)
            self.unread = [int(logits.argmax())]

    @property
    def done(self) -> bool:
        return len(self.logits) > N_NEW


def alone(model: fastgpt_c.Model, prompt: list[int]) -> np.ndarray:
    """[N_NEW + 1][n_vocab]: everything is computed anew for each token, without a cache, by one thread."""
    tokens, rows = list(prompt), []
    for _ in range(N_NEW + 1):
        with model.session(n_threads=1, deterministic=True) as session:
            rows.append(session.prefill(tokens))
        tokens.append(int(rows[-1].argmax()))
    return np.array(rows)


def in_company(
    model: fastgpt_c.Model, prompts: list[list[int]], n_slots: int, n_threads: int, rng: np.random.Generator
) -> dict[int, np.ndarray]:
    """Prompts are admitted in random order to n_slots slots, and read in pieces of random length beside decodes."""
    waiting, running, finished = list(rng.permutation(len(prompts))), {}, {}
    while waiting or running:
        while waiting and len(running) < n_slots:
            i = int(waiting.pop())
            running[i] = Sequence(model, prompts[i], n_threads)
        batch = [running[i] for i in rng.permutation(list(running)) if rng.random() < 0.8] or list(running.values())
        rows = fastgpt_c.step([(s.session, s.take(int(rng.integers(1, len(s.unread) + 1)))) for s in batch])
        for sequence, logits in zip(batch, rows, strict=True):
            sequence.note(logits)
        for i in [i for i, sequence in running.items() if sequence.done]:
            finished[i] = np.array(running.pop(i).logits)
    return finished


def test_company_does_not_matter(model: fastgpt_c.Model) -> None:
    """Random prompts in batches of 1 to 64, random orders and cuts, 1 to 4 threads: each as if it were alone."""
    rng = np.random.default_rng(N_PROMPTS)
    prompts = [rng.integers(0, model.n_vocab, rng.integers(1, 80)).tolist() for _ in range(N_PROMPTS)]
    expected = [alone(model, prompt) for prompt in prompts]
    for n_slots, n_threads in zip([1, 2, 3, 7, 16, 33, 64], [2, 3, 4, 1, 2, 3, 4], strict=True):
        for i, logits in in_company(model, prompts, n_slots, n_threads, rng).items():
            np.testing.assert_array_equal(logits, expected[i], f"prompt {i}, {n_slots} slots, {n_threads} threads")


def test_one_deterministic_session_makes_the_step_so(model: fastgpt_c.Model) -> None:
    """Neighbours that do not ask for it do not take the promise away."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, model.n_vocab, 40)
    with model.session(deterministic=True) as asks, model.session() as other, model.session(deterministic=True) as lone:
        rows = fastgpt_c.step([(other, tokens[:30]), (asks, tokens)])
        np.testing.assert_array_equal(rows[1], lone.prefill(tokens))
        np.testing.assert_array_equal(asks.decode(3), lone.decode(3))


@pytest.mark.parametrize("changes", [{}, {"kv_cache": False}, {"n_threads": 3}])
def test_generate(changes: dict[str, Any]) -> None:
    """Sampled text is the same with and without the cache, by any number of threads."""
    with fastgpt_c.load() as model, model.session(n_threads=1, deterministic=True) as session:
        prompt = model.encode("The wolf said to the little girl: I am so hungry that I")
        options = Options(max_new_tokens=30, temperature=1.5, seed=3, deterministic=True)
        sampler = options.sampler(model.n_vocab, model.eos_tokens)
        tokens, logits = [], session.prefill(prompt)
        for _ in range(30):
            tokens.append(sampler.sample(logits))
            logits = session.decode(tokens[-1])
        completion = model.generate(prompt, options, **changes)
    assert completion.tokens == tokens


def test_the_command(tmp_path: Path) -> None:
    """--deterministic: a prompt cache of a shorter prompt, or none, and the file's type do not change the text."""
    begin = ["generate", "--seed", "5", "--temperature", "1.5", "-n", "25", "--no-prompt"]
    cache, prompt = tmp_path / "cache", "Once upon a time there was a king who had three daughters"
    expected = output_of(*begin, prompt, "--deterministic", "--no-kv-cache")
    output_of(*begin, "Once upon a time there was a king", "--prompt-cache", cache, "--deterministic")
    for more in ([], ["--threads", "3"], ["--prompt-cache", cache], ["--prompt-cache", cache]):
        assert output_of(*begin, prompt, "--deterministic", *more) == expected
