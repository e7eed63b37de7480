"""Saved and copied sessions, and the prompt cache: what was read once goes on to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command import FAILURE, WRONG_USAGE, assert_complains, output_of, run

import fastgpt_c
from fastgpt_c.errors import ContextFullError, ModelFileError, UsageError
from fastgpt_c.generation.prompt_cache import prompt_cache

if TYPE_CHECKING:
    from models import Tiny

PROMPT = "Once upon a time there was a king who had"


def go_on(session: fastgpt_c.Session, tokens: np.ndarray) -> np.ndarray:
    return np.stack([session.prefill(tokens[:-1]), session.decode(int(tokens[-1]))])


@pytest.mark.parametrize("kv_type", ["f32", "f16", "bf16"])
def test_saved_and_copied_sessions_go_on(tiny: Tiny, tmp_path: Path, kv_type: str) -> None:
    """What follows is the same to the bit for a session, its copy, and what was saved of it."""
    tokens = tiny.golden["tokens"]
    for n_past in (0, 1, len(tokens) // 2, len(tokens) - 2):
        with tiny.model.session(kv_type=kv_type) as session:
            if n_past:
                session.prefill(tokens[:n_past])
            session.save(tmp_path / "saved")
            others = [session.copy(), tiny.model.load_session(tmp_path / "saved")]
            expected = go_on(session, tokens[n_past:])
        for other in others:
            np.testing.assert_array_equal(other.tokens, tokens[:n_past])
            assert (other.kv_type, other.n_ctx) == (kv_type, tiny.model.n_ctx)
            np.testing.assert_array_equal(go_on(other, tokens[n_past:]), expected)
            np.testing.assert_array_equal(other.tokens, tokens)


def test_deterministic_session_forgets_other_numbers(random_model: fastgpt_c.Model, tmp_path: Path) -> None:
    """load_session(deterministic=True) keeps the positions up to the first that a fast step computed."""
    with random_model.session(deterministic=True) as session, random_model.session() as fast:
        session.prefill([1, 2, 3])
        session.save(tmp_path / "exact")
        fast.prefill([1, 2, 3])
        fast.save(tmp_path / "fast")
    assert random_model.load_session(tmp_path / "exact", deterministic=True).n_past == 3
    assert random_model.load_session(tmp_path / "fast", deterministic=True).n_past == 0
    assert random_model.load_session(tmp_path / "fast").n_past == 3


def test_refusals_name_the_file(random_model: fastgpt_c.Model, alphabet_model: fastgpt_c.Model, tmp_path: Path) -> None:
    """Another model's file, a damaged one, none, one that does not fit, and a folder in the way."""
    path = tmp_path / "saved"
    with random_model.session() as session:
        session.prefill([1, 2, 3])
        session.save(path)
        with pytest.raises(ModelFileError, match="cannot be written"):
            session.save(tmp_path)
    with pytest.raises(UsageError, match="saved: was saved with another model"):
        alphabet_model.load_session(path)
    with pytest.raises(ContextFullError, match="3 positions, n_ctx is 2"):
        random_model.load_session(path, n_ctx=2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="saved: damaged"):
        random_model.load_session(path)
    with pytest.raises(ModelFileError, match="No such file"):
        random_model.load_session(tmp_path / "none")
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]


def test_closed_session(random_model: fastgpt_c.Model, tmp_path: Path) -> None:
    """Nothing is saved or copied of a session that is closed."""
    session = random_model.session()
    session.close()
    for call in (session.copy, lambda: session.save(tmp_path / "x"), lambda: session.tokens):
        with pytest.raises(UsageError, match="closed"):
            call()


# ---- Forks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("kv_type", ["f32", "f16", "bf16"])
def test_forks_go_on_as_copies(tiny: Tiny, kv_type: str, deterministic: bool) -> None:
    """Forks at every place, in one step: logits, keys, values and tokens of sessions that share nothing, to the bit."""
    tokens = tiny.golden["tokens"]
    base = tiny.model.session(kv_type=kv_type, deterministic=deterministic)
    base.prefill(tokens[:-3])
    places = sorted([*range(len(tokens) - 3), len(tokens) // 2, 1], reverse=True)
    apart = [base.copy() for _ in places]
    for session, n in zip(apart, places, strict=True):
        session.truncate(n)
    shared = [base.fork(n) for n in places]
    for count in (1, 2):
        pieces = [tokens[n : n + count] for n in places]
        expected = fastgpt_c.step(list(zip(apart, pieces, strict=True)))
        np.testing.assert_array_equal(fastgpt_c.step(list(zip(shared, pieces, strict=True))), expected)
    for fork, session in zip(shared, apart, strict=True):
        np.testing.assert_array_equal(fork.tokens, session.tokens)
        for layer in range(tiny.model.n_layer):
            np.testing.assert_array_equal(fork.keys(layer), session.keys(layer))
            np.testing.assert_array_equal(fork.values(layer), session.values(layer))


def test_a_prefix_is_stored_once(random_model: fastgpt_c.Model) -> None:
    """Forks take the memory of their tails alone; the prefix outlives the session that it came from."""
    base = random_model.session()
    base.prefill(list(range(10)))
    n_before, n_prefix = base.n_bytes, 8
    forks = [base.fork(n_prefix) for _ in range(4)]
    assert {fork.n_bytes for fork in forks} == {base.n_bytes} and forks[0].n_prefix == base.n_prefix == n_prefix
    position = (n_before - base.n_bytes) // n_prefix
    assert n_prefix * position <= base.n_shared_bytes < n_prefix * position + 100
    with random_model.session() as other:
        other.prefill(list(range(10)))
        other.truncate(n_prefix)
        base.close()
        np.testing.assert_array_equal(forks[0].decode(3), other.decode(3))


def test_fork_arguments(random_model: fastgpt_c.Model) -> None:
    """A place that is not there, and room that is too small or too large."""
    session = random_model.session()
    session.prefill([1, 2, 3])
    for arguments in ((4,), (-1,), (3, 2), (3, random_model.n_ctx + 1)):
        with pytest.raises(UsageError):
            session.fork(*arguments)
    assert (session.fork(2, 5).n_ctx, session.fork().n_past) == (5, 3)


# ---- The prompt cache -------------------------------------------------------------------------------


def test_prompt_cache_keeps_what_an_error_leaves(random_model: fastgpt_c.Model, tmp_path: Path) -> None:
    """The tokens read so far are saved whatever ends the block; a run that reads nothing leaves the file alone."""
    path = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt), prompt_cache(random_model, path) as reader:
        reader.logits_after([1, 2, 3])
        raise KeyboardInterrupt
    before = path.stat()
    with prompt_cache(random_model, path) as reader:
        assert reader.session.tokens.tolist() == [1, 2, 3]
    assert path.stat() == before
    with prompt_cache(random_model, path) as reader:
        reader.logits_after([1, 2, 4, 5])
        assert reader.n_kept == 2
    assert random_model.load_session(path).tokens.tolist() == [1, 2, 4, 5]


def test_prompt_cache_of_the_command(tmp_path: Path) -> None:
    """The second run reads only what is new, and says so."""
    arguments = ["generate", "--temperature", "0", "-n", "5", "--prompt-cache", tmp_path / "cache", "--json"]
    first = json.loads(output_of(*arguments, PROMPT))
    assert first["n_reused"] == 0
    second = json.loads(output_of(*arguments, PROMPT + first["text"]))
    assert second["n_reused"] >= first["n_prompt"] + 3
    result = run(*arguments[:-1], "-v", PROMPT)
    assert f"{first['n_prompt'] - 1} of them from the prompt cache" in result.stderr.decode()


def test_prompt_cache_of_a_chat(tmp_path: Path) -> None:
    """A conversation with the same beginning finds it in the file, and goes on."""
    arguments = ["chat", "--temperature", "0", "-n", "5", "--prompt-cache", tmp_path / "cache"]
    first = output_of(*arguments, stdin=b"Hello!\n")
    before = (tmp_path / "cache").read_bytes()
    assert output_of(*arguments, stdin=b"Hello!\nWho are you?\n").startswith(first)
    assert len((tmp_path / "cache").read_bytes()) > len(before)


def test_prompt_cache_refusals(tmp_path: Path) -> None:
    """A file that is something else stays as it is; a folder that is not there is told before the work."""
    file = tmp_path / "prompt.txt"
    file.write_text("Once upon a time")
    assert_complains(run("generate", PROMPT, "--prompt-cache", file), FAILURE, "prompt.txt: is not a saved KV cache")
    assert file.read_text() == "Once upon a time"
    output_of("generate", PROMPT, "-n", "1", "--prompt-cache", tmp_path / "cache")
    result = run("generate", PROMPT, "--prompt-cache", tmp_path / "cache", "--kv-type", "f32")
    assert_complains(result, WRONG_USAGE, "numbers of f16, not f32")
    result = run("generate", PROMPT, "--prompt-cache", tmp_path / "none" / "cache")
    assert_complains(result, WRONG_USAGE, "no such folder")
