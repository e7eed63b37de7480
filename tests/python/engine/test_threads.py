"""Threads decide who computes, never what: any number of them, after a fork, and after an interruption."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import fastgpt_c
from fastgpt_c.checkpoints import resolve
from fastgpt_c.convert import quantize
from fastgpt_c.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from models import Tiny

N_THREADS = (1, 2, 3, 4)


def run(model: fastgpt_c.Model, tokens: np.ndarray, n_threads: int) -> np.ndarray:
    """A prefill of all but the last 3 tokens, then decodes -> logits [n_tokens][n_vocab]."""
    with model.session(n_threads=n_threads) as session:
        rows = [session.prefill(tokens[:-3], all_logits=True)]
        rows += [session.decode(int(token))[None] for token in tokens[-3:]]
    return np.concatenate(rows)


@pytest.mark.parametrize("n_threads", N_THREADS[1:])
def test_same_bits_for_any_number_of_threads(tiny: Tiny, n_threads: int) -> None:
    """Prefill and decode of odd sizes, which no number of threads divides."""
    tokens = tiny.golden["tokens"]
    np.testing.assert_array_equal(run(tiny.model, tokens, n_threads), run(tiny.model, tokens, 1))


@pytest.mark.parametrize("n_threads", N_THREADS[1:])
def test_same_bits_for_long_spans(long_model: fastgpt_c.Model, slow_model: fastgpt_c.Model, n_threads: int) -> None:
    """Spans of more than one slice, and a model large enough that every thread gets work."""
    for model, n_tokens in ((long_model, 1100), (slow_model, 70)):
        tokens = np.random.default_rng(0).integers(0, model.n_vocab, n_tokens)
        np.testing.assert_array_equal(run(model, tokens, n_threads), run(model, tokens, 1))


@pytest.mark.parametrize("n_threads", N_THREADS[1:])
def test_same_bits_for_ragged_batches(long_model: fastgpt_c.Model, n_threads: int) -> None:
    """Several sequences in one step."""
    rng = np.random.default_rng(1)
    spans = [rng.integers(0, long_model.n_vocab, n) for n in (1, 40, 600, 7)]

    def batch(n: int) -> np.ndarray:
        return fastgpt_c.step([(long_model.session(n_threads=n), span) for span in spans], all_logits=True)

    np.testing.assert_array_equal(batch(n_threads), batch(1))


@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0", "q4_0"])
def test_same_bits_for_every_type(tmp_path: Path, type: str) -> None:
    """Weights of every type, caches of every type, few tokens and many, one sequence and several."""
    path = tmp_path / f"{type}.gguf"
    quantize(resolve.resolve(None), path, type=type)
    with fastgpt_c.load(path) as model:
        assert model.type == type.upper()
        tokens = np.random.default_rng(2).integers(0, model.n_vocab, 100)

        def everything(n_threads: int) -> np.ndarray:
            sessions = [model.session(n_threads=n_threads, kv_type=kv_type) for kv_type in ("f32", "f16", "bf16")]
            rows = [session.prefill(tokens, all_logits=True) for session in sessions]
            for n in (1, 2, 5, 20):
                rows.append(fastgpt_c.step([(session, tokens[:n]) for session in sessions]))
            return np.concatenate(rows)

        expected = everything(1)
        for n_threads in N_THREADS[1:]:
            np.testing.assert_array_equal(everything(n_threads), expected)


@pytest.mark.parametrize("n_threads", [-1, 1025])
def test_number_of_threads_out_of_range(tiny: Tiny, n_threads: int) -> None:
    """1 to 1024, or 0 and None for the usable cores; a model with another number is not even looked for."""
    with pytest.raises(UsageError, match=rf"^n_threads is {n_threads}, not an integer in \[0, 1024\], or None$"):
        tiny.model.session(n_threads=n_threads)
    with pytest.raises(UsageError, match="n_threads"):
        fastgpt_c.load("no such model", n_threads=n_threads)


def in_child(work: object, timeout: float = 60.0) -> bytes:
    """Forks, runs work() -> bytes in the child and hands back what it gave; fails if the child hangs or dies."""
    assert callable(work)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with os.fdopen(write_end, "wb") as pipe:
                pipe.write(work())
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        if not select.select([pipe], [], [], timeout)[0]:
            os.kill(child, signal.SIGKILL)
        data = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the child hung or died"
    return data


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("n_threads", [1, 3])
def test_both_sides_of_a_fork_go_on(tiny: Tiny, n_threads: int) -> None:
    """A session that has run goes on in the child, whose threads are gone, and in the parent; so does a grandchild."""
    tokens = tiny.golden["tokens"]
    with tiny.model.session(n_threads=n_threads) as session:

        def go_on() -> bytes:
            return session.prefill(tokens[3:], all_logits=True).tobytes()

        def fork_again() -> bytes:
            logits = go_on()
            session.truncate(3)
            assert in_child(go_on, timeout=30.0) == logits
            return logits

        session.prefill(tokens[:3])
        child = in_child(fork_again)
        assert session.n_past == 3
        assert go_on() == child
    np.testing.assert_allclose(
        np.frombuffer(child, np.float32).reshape(-1, tiny.model.n_vocab), tiny.golden["logits"][3:], rtol=0, atol=1e-4
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_while_another_thread_works(slow_model: fastgpt_c.Model) -> None:
    """The parent's threads are in the middle of a step: the child's own session is not held up by them."""
    tokens = np.arange(slow_model.n_ctx) % slow_model.n_vocab
    with slow_model.session(n_threads=2) as busy, slow_model.session(n_threads=2) as own:
        expected = own.prefill(tokens[:20])
        own.truncate(0)
        worker = threading.Thread(target=busy.prefill, args=(tokens,))
        worker.start()
        time.sleep(0.02)
        assert in_child(lambda: own.prefill(tokens[:20]).tobytes()) == expected.tobytes()
        worker.join()
        assert busy.n_past == len(tokens)


def press_ctrl_c(times: int) -> None:
    """As an impatient user does."""
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)


def interrupted_prefill(session: fastgpt_c.Session, tokens: np.ndarray, delay: float, n_presses: int) -> None:
    """Prefills while Ctrl-C is pressed; fails unless KeyboardInterrupt comes out."""
    listening = True

    def on_ctrl_c(*_: object) -> None:
        if listening:  # a late press must not end the test run
            raise KeyboardInterrupt

    usual = signal.signal(signal.SIGINT, on_ctrl_c)
    timer = threading.Timer(delay, press_ctrl_c, (n_presses,))
    timer.start()
    try:
        try:
            session.prefill(tokens)
        except KeyboardInterrupt:
            listening = False
    except KeyboardInterrupt:  # the second press, before the line above was done
        listening = False
    finally:
        timer.join()
        signal.signal(signal.SIGINT, usual)
    assert not listening, "the prefill was not interrupted"


@pytest.mark.parametrize(("n_threads", "n_presses", "when"), [(1, 1, 1 / 8), (2, 1, 5 / 8), (2, 2, 1 / 8)])
def test_interrupt_during_a_long_prefill(
    slow_model: fastgpt_c.Model, n_threads: int, n_presses: int, when: float
) -> None:
    """Ctrl-C, also pressed again and again, gives KeyboardInterrupt and undoes the step; the session still works."""
    tokens = np.arange(slow_model.n_ctx) % slow_model.n_vocab
    with slow_model.session(n_threads=n_threads) as session, slow_model.session(n_threads=n_threads) as fresh:
        begin = time.perf_counter()
        expected = fresh.prefill(tokens)
        whole_step = time.perf_counter() - begin
        session.prefill(tokens[:5])
        interrupted_prefill(session, tokens[5:], whole_step * when, n_presses)
        assert session.n_past == 5
        assert_same_as_uninterrupted(session, tokens[5:], expected)


@pytest.mark.parametrize("n_done", [0, 512])
def test_cancel_from_another_thread(slow_model: fastgpt_c.Model, n_done: int) -> None:
    """cancel makes the running step raise Cancelled and undo itself in all its sessions, in the first slice of tokens
    and when a slice is done already."""
    tokens = np.arange(slow_model.n_ctx) % slow_model.n_vocab
    spans = [tokens[:700], tokens[5:1300]]
    first, second = slow_model.session(), slow_model.session()
    batch = list(zip((first, second), spans, strict=True))
    second.prefill(tokens[:5])
    expected = fastgpt_c.step(batch)
    first.truncate(0)
    second.truncate(5)

    def cancel_when_done() -> None:
        while first.n_past < n_done:
            time.sleep(1e-4)
        first.cancel()

    canceller = threading.Thread(target=cancel_when_done)
    canceller.start()
    with pytest.raises(Cancelled):
        fastgpt_c.step(batch)
    canceller.join()
    assert (first.n_past, second.n_past) == (0, 5)
    np.testing.assert_array_equal(fastgpt_c.step(batch), expected)


def test_cancel_before_a_step(tiny: Tiny) -> None:
    """With no step running, cancel stops the next one, and only that."""
    tokens = tiny.golden["tokens"]
    with tiny.model.session() as session:
        session.prefill(tokens[:2])
        session.cancel()
        with pytest.raises(Cancelled):
            session.decode(int(tokens[2]))
        assert session.n_past == 2
        assert_same_as_uninterrupted(session, tokens[2:], tiny.golden["logits"][-1])


def assert_same_as_uninterrupted(session: fastgpt_c.Session, rest: np.ndarray, expected: np.ndarray) -> None:
    """What was interrupted, done again, gives what it gives without an interruption."""
    np.testing.assert_allclose(session.prefill(rest), expected, rtol=1e-5, atol=1e-4)
