"""The laws of a generation that is read piece by piece, interrupted, or left in the middle."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from scripted import EOS, greedy, logits_after

import fastgpt_c
from fastgpt_c.engine.reader import Reader
from fastgpt_c.errors import UsageError
from fastgpt_c.generation.text_generation import TextGeneration

PATIENCE = 10.0  # seconds, for what takes milliseconds: a machine may be busy


class CountingSession:
    """A session that counts the tokens it reads, and on demand is interrupted in, before or after, one call."""

    def __init__(self, session: fastgpt_c.Session) -> None:
        self._session = session
        self.n_read = 0
        self.interrupt: tuple[str, str] | None = None

    @property
    def n_past(self) -> int:
        return self._session.n_past

    def prefill(self, tokens: list[int]) -> np.ndarray:
        self.n_read += len(tokens)
        return self._interruptibly("prefill", tokens)

    def decode(self, token: int) -> np.ndarray:
        self.n_read += 1
        return self._interruptibly("decode", token)

    def truncate(self, n_past: int) -> None:
        self._interruptibly("truncate", n_past)

    def sample(self, sampler: fastgpt_c.Sampler, logits: np.ndarray) -> int:
        return self._session.sample(sampler, logits)

    def _interruptibly(self, name: str, argument: Any) -> Any:
        when = {f"{name} {when}" for when in ("before", "after")} & {" ".join(self.interrupt or ())}
        if when == {f"{name} before"}:
            raise KeyboardInterrupt
        result = getattr(self._session, name)(argument)
        if when:
            raise KeyboardInterrupt
        return result


def edited(tokens: list[int], rng: np.random.Generator) -> list[int]:
    """Some of the beginning, and up to three other tokens; never empty, never beyond n_ctx."""
    kept = tokens[: rng.integers(0, len(tokens) + 1)]
    return (kept + rng.integers(0, EOS, rng.integers(0, 4)).tolist())[:23] or [1]


def test_without_the_cache_everything_is_read_anew(
    random_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt of 3 and 5 tokens: 3 + 4 are read with the cache, 3 + 4 + 5 + 6 + 7 without."""
    for kv_cache, n_read in ((True, 7), (False, 25)):
        session = CountingSession(random_model.session())
        reader = Reader(session)  # type: ignore[arg-type]
        options = fastgpt_c.Options(max_new_tokens=5, temperature=0, kv_cache=kv_cache)
        TextGeneration(random_model, [1, 2, 3], options, reader).finish()
        assert session.n_read == n_read


@pytest.mark.parametrize("seed", range(10))
def test_reader_reads_only_what_is_new(random_model: fastgpt_c.Model, seed: int) -> None:
    """Rows that share a beginning: only what differs is read, at least one token, and the logits are those from
    scratch."""
    rng = np.random.default_rng(seed)
    with random_model.session() as real:
        session = CountingSession(real)
        reader = Reader(session)  # type: ignore[arg-type]
        before: list[int] = []
        for _ in range(30):
            tokens, n_read = edited(before, rng), session.n_read
            logits = reader.logits_after(tokens)
            np.testing.assert_allclose(logits, logits_after(random_model, tokens), rtol=1e-5, atol=1e-4)
            n_common = next((i for i, (a, b) in enumerate(zip(before, tokens, strict=False)) if a != b), None)
            n_common = min(len(before), len(tokens)) if n_common is None else n_common
            assert session.n_read - n_read == len(tokens) - min(n_common, len(tokens) - 1)
            before = tokens


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("call", "tokens"),
    [("decode", [1, 2, 3, 4, 5]), ("prefill", [1, 2, 3, 4, 5, 6]), ("truncate", [1, 2, 9, 9]), ("decode", [1, 2, 9])],
)
def test_reader_survives_ctrl_c(random_model: fastgpt_c.Model, call: str, tokens: list[int], when: str) -> None:
    """Interrupted just before or just after any step, it still knows what the session holds."""
    with random_model.session() as real:
        session = CountingSession(real)
        reader = Reader(session)  # type: ignore[arg-type]
        reader.logits_after([1, 2, 3, 4])
        session.interrupt = (call, when)
        with pytest.raises(KeyboardInterrupt):
            reader.logits_after(tokens)
        session.interrupt = None
        for again in (tokens, [1, 2, 3, 4, 5], [7]):
            logits = reader.logits_after(again)
            assert session.n_past == len(again)
            np.testing.assert_allclose(logits, logits_after(random_model, again), rtol=1e-5, atol=1e-4)


def press_ctrl_c_in(seconds: float, again_after: float = 0.0) -> None:
    """Ctrl-C, once that time has passed, and pressed again by a user who sees no effect; 0 = never."""
    signal.setitimer(signal.ITIMER_REAL, seconds, again_after)


@pytest.fixture
def keyboard() -> Iterator[None]:
    """Lets press_ctrl_c_in work, also where Ctrl-C is ignored."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    usual_alarm = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    yield
    press_ctrl_c_in(0)
    signal.signal(signal.SIGALRM, usual_alarm)
    signal.signal(signal.SIGINT, usual)


@contextmanager
def at_once() -> Iterator[None]:
    """Fails instead of waiting for ever, say for a lock that nobody gives back."""
    press_ctrl_c_in(PATIENCE)
    try:
        yield
    except KeyboardInterrupt:
        pytest.fail(f"stuck for {PATIENCE} s")
    finally:
        press_ctrl_c_in(0)


def test_ctrl_c_at_any_moment(random_model: fastgpt_c.Model, keyboard: None) -> None:
    """Wherever it strikes, the session is neither stuck nor lost: it goes on with the right text, and closes."""
    expected, rng = greedy(random_model, "the day", 15), np.random.default_rng(0)
    endless = fastgpt_c.Options(max_new_tokens=10**9, on_overflow="slide", logit_bias={EOS: -np.inf})
    short = fastgpt_c.Options(max_new_tokens=15, temperature=0)
    session = random_model.session()
    reader = Reader(session)
    try:
        for _ in range(1000):
            with pytest.raises(KeyboardInterrupt):
                press_ctrl_c_in(rng.uniform(1e-5, 2e-3), again_after=0.2)
                TextGeneration(random_model, "a", endless, reader).finish()
            with at_once():
                assert TextGeneration(random_model, "the day", short, reader).finish().tokens == expected
    finally:
        with at_once():
            session.close()


def test_a_piece_comes_as_soon_as_it_is_known(alphabet_model: fastgpt_c.Model, sessions: list[Any]) -> None:
    """The first one is there when nothing but the prompt has been read."""
    stream = alphabet_model.stream("xyz", max_new_tokens=50)
    assert not sessions, "work began before anybody asked"
    assert next(stream) == "a"
    assert sessions[0]().n_past == 3


def test_finish_goes_on_where_iteration_stopped(alphabet_model: fastgpt_c.Model) -> None:
    """Some pieces by hand, the rest at once: the completion has all."""
    stream = alphabet_model.stream("a", max_new_tokens=5)
    assert [next(stream), next(stream)] == ["b", "c"]
    assert stream.completion is None
    assert stream.finish().text == "bcdef"
    assert list(stream) == []


def test_walking_away_frees_the_session(alphabet_model: fastgpt_c.Model, sessions: list[Any]) -> None:
    """A stream that nobody holds any more gives its cache back at once, without the garbage collector."""
    gc.disable()
    try:
        for piece in alphabet_model.stream("a", max_new_tokens=50):
            assert piece == "b"
            break
        stream = alphabet_model.stream("a", max_new_tokens=50)
        next(stream)
        assert sessions[1]() is not None
        del stream
        alphabet_model.generate("a", max_new_tokens=5)
        assert [session() for session in sessions] == [None] * 3
    finally:
        gc.enable()


def test_an_interrupted_generation_has_no_completion(
    alphabet_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a step comes out of the stream, which then has ended, and finish says so."""
    stream = alphabet_model.stream("a", max_new_tokens=50)
    next(stream)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fastgpt_c.Session, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    with pytest.raises(UsageError, match="interrupted"):
        stream.finish()
