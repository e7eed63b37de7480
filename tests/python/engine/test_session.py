"""The laws of a session: how tokens are cut into calls changes nothing, and an error changes nothing either."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reference

import fastgpt_c
from fastgpt_c.errors import ContextFullError, FastGPTError, UsageError

if TYPE_CHECKING:
    from models import Tiny


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """float32 logits of another split of the same tokens: sums were made in another order."""
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


def feed(session: fastgpt_c.Session, pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Prefills the pieces one after the other -> logits [n_tokens][n_vocab] of all of them."""
    return np.concatenate([session.prefill(piece, all_logits=True) for piece in pieces])


@pytest.fixture
def session(tiny: Tiny) -> Iterator[fastgpt_c.Session]:
    """A fresh session of each tiny model."""
    with tiny.model.session() as session:
        yield session


def test_decode_equals_prefill(tiny: Tiny) -> None:
    """For every split: a prompt at once and the rest token by token gives the logits of all at once."""
    tokens, expected = tiny.golden["tokens"], tiny.golden["logits"]
    for n_prompt in range(1, len(tokens)):
        with tiny.model.session() as session:
            assert_close(session.prefill(tokens[:n_prompt]), expected[n_prompt - 1])
            for n_past in range(n_prompt, len(tokens)):
                assert_close(session.decode(int(tokens[n_past])), expected[n_past])


@pytest.mark.parametrize("seed", range(8))
def test_any_split_of_a_prompt(tiny: Tiny, seed: int) -> None:
    """Prefilling random pieces gives, at every position, the logits of one prefill."""
    tokens = tiny.golden["tokens"]
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.choice(np.arange(1, len(tokens)), rng.integers(1, len(tokens)), replace=False))
    with tiny.model.session() as session:
        assert_close(feed(session, np.split(tokens, cuts)), tiny.golden["logits"])


def test_last_logits_are_the_last_row_of_all(tiny: Tiny, session: fastgpt_c.Session) -> None:
    """prefill gives [n_vocab] after the last token; all_logits gives a row for each token, in order."""
    tokens, model = tiny.golden["tokens"], tiny.model
    rows = session.prefill(tokens, all_logits=True)
    assert (rows.shape, rows.dtype) == ((len(tokens), model.n_vocab), np.float32)
    with model.session() as other:
        last = other.prefill(tokens)
    assert (last.shape, last.dtype) == ((model.n_vocab,), np.float32)
    assert_close(last, rows[-1])


def test_logits_are_the_callers_own(tiny: Tiny, session: fastgpt_c.Session) -> None:
    """A later step does not write into what an earlier one returned."""
    first = session.prefill(tiny.golden["tokens"][:2])
    kept = first.copy()
    session.decode(int(tiny.golden["tokens"][2]))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("all_logits", [False, True])
def test_ragged_batch_equals_one_by_one(tiny: Tiny, all_logits: bool) -> None:
    """Sequences of different lengths and pasts in one step: each as if it were alone."""
    tokens, n_ctx = tiny.golden["tokens"], tiny.model.n_ctx
    spans = [(0, n_ctx), (2, 3), (n_ctx - 1, n_ctx), (0, 1), (1, n_ctx // 2)]  # positions [from, to)
    sessions = [tiny.model.session() for _ in spans]
    for session, (start, _) in zip(sessions, spans, strict=True):
        if start:
            session.prefill(tokens[:start])
    batch = [(session, tokens[start:stop]) for session, (start, stop) in zip(sessions, spans, strict=True)]
    logits = fastgpt_c.step(batch, all_logits=all_logits)
    rows = [np.arange(start, stop) if all_logits else np.array([stop - 1]) for start, stop in spans]
    assert_close(logits, tiny.golden["logits"][np.concatenate(rows)])
    assert [session.n_past for session in sessions] == [stop for _, stop in spans]


def test_batch_with_an_error_changes_no_session(tiny: Tiny) -> None:
    """One bad span: the whole step is refused and every n_past stays; so is one session named twice."""
    good, bad = tiny.model.session(), tiny.model.session()
    tokens = tiny.golden["tokens"]
    good.prefill(tokens[:2])
    for batch in ([(good, tokens[:1]), (bad, [tiny.model.n_vocab])], [(good, [1]), (bad, [2]), (good, [3])]):
        with pytest.raises(UsageError):
            fastgpt_c.step(batch)
        assert (good.n_past, bad.n_past) == (2, 0)


def test_truncate_then_replay(tiny: Tiny, session: fastgpt_c.Session) -> None:
    """Going back forgets: the same calls give the same bits again, and another way gives what it always gives."""
    tokens = tiny.golden["tokens"]
    middle = len(tokens) // 2
    session.prefill(tokens[:middle])
    first = session.prefill(tokens[middle:], all_logits=True)
    session.truncate(middle)
    assert session.n_past == middle
    session.prefill(tokens[::-1][: len(tokens) - middle])
    session.truncate(middle)
    np.testing.assert_array_equal(session.prefill(tokens[middle:], all_logits=True), first)
    session.truncate(0)
    assert_close(session.prefill(tokens, all_logits=True), tiny.golden["logits"])


def test_truncate_out_of_range(session: fastgpt_c.Session) -> None:
    """Only positions that exist can be gone back to."""
    session.prefill([1, 2, 3])
    for n_past in (-1, 4):
        with pytest.raises(UsageError):
            session.truncate(n_past)
        assert session.n_past == 3


@pytest.mark.parametrize("n_past", [0, 1, 5])
def test_keys_and_values(tiny: Tiny, session: fastgpt_c.Session, n_past: int) -> None:
    """Every layer's keys and values [n_past][n_embd] are those of the reference."""
    tokens = tiny.golden["tokens"][:n_past]
    if n_past:
        session.prefill(tokens)
    _, cache = reference.load_gguf(tiny.path).run(tokens.astype(int))
    for layer, (keys, values) in enumerate(cache):
        for actual, expected in ((session.keys(layer), keys), (session.values(layer), values)):
            assert (actual.shape, actual.dtype) == ((n_past, tiny.model.n_embd), np.float32)
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)
    for layer in (-1, tiny.model.n_layer):
        with pytest.raises(UsageError):
            session.keys(layer)
        with pytest.raises(UsageError):
            session.values(layer)


def test_full_context_is_refused(tiny: Tiny, session: fastgpt_c.Session) -> None:
    """One token too many: ContextFullError, n_past and the cache as they were, and what still fits goes in."""
    tokens = tiny.golden["tokens"]
    session.prefill(tokens[:-1])
    with pytest.raises(ContextFullError):
        session.prefill(tokens[:2])
    assert session.n_past == len(tokens) - 1
    assert_close(session.decode(int(tokens[-1])), tiny.golden["logits"][-1])
    with pytest.raises(ContextFullError):
        session.decode(0)
    assert session.n_past == len(tokens)


@pytest.mark.parametrize("call", ["prefill", "decode", "step"])
def test_ctrl_c_when_a_step_has_just_ended(tiny: Tiny, session: fastgpt_c.Session, call: str) -> None:
    """The library has done its part, nobody has seen the logits: n_past is as before, and the session goes on."""
    tokens = tiny.golden["tokens"]
    session.prefill(tokens[:2])
    extend: dict[str, Callable[[], object]] = {
        "prefill": lambda: session.prefill(tokens[2:]),
        "decode": lambda: session.decode(int(tokens[2])),
        "step": lambda: fastgpt_c.step([(session, tokens[2:4])]),
    }
    n_past_inside = []

    def interrupted(*_: object) -> None:
        n_past_inside.append(session.n_past)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastgpt_c.engine.session, "check", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extend[call]()
    assert n_past_inside[0] > 2, "the step had not ended"
    assert session.n_past == 2
    assert_close(session.prefill(tokens[2:]), tiny.golden["logits"][-1])


def test_session_with_a_smaller_context(tiny: Tiny) -> None:
    """session(n_ctx) holds that many positions; more than the model has, or a negative number, is refused."""
    tokens = tiny.golden["tokens"]
    with tiny.model.session(n_ctx=3) as small:
        assert small.n_ctx == 3
        assert_close(small.prefill(tokens[:3]), tiny.golden["logits"][2])
        with pytest.raises(ContextFullError):
            small.decode(0)
    assert tiny.model.session().n_ctx == tiny.model.n_ctx
    for n_ctx in (-1, tiny.model.n_ctx + 1):
        with pytest.raises(UsageError):
            tiny.model.session(n_ctx=n_ctx)


@pytest.mark.parametrize(
    "tokens",
    [[], [-1], [0, 10**6], [2**31], [2**40], [0.5], ["a"], [None], "hello", 3, [[1, 2], [3, 4]], np.zeros((2, 2), int),
     np.array([1.0, 2.0]), np.array([], int)],
    ids=repr,
)  # fmt: skip
def test_bad_tokens_are_refused(session: fastgpt_c.Session, tokens: Any) -> None:
    """Empty, out of range, not whole numbers or not one row: refused before anything happens."""
    session.prefill([1, 2])
    with pytest.raises(UsageError):
        session.prefill(tokens)
    assert session.n_past == 2


@pytest.mark.parametrize("token", [-1, 10**6, 2**40, 0.5, "a", None])
def test_bad_token_is_refused(session: fastgpt_c.Session, token: Any) -> None:
    """The same for decode."""
    session.prefill([1, 2])
    with pytest.raises(UsageError):
        session.decode(token)
    assert session.n_past == 2


@pytest.mark.parametrize("make", [list, tuple, np.int32, np.int64, np.uint16, "strided"], ids=str)
def test_tokens_of_any_integer_kind(tiny: Tiny, session: fastgpt_c.Session, make: Any) -> None:
    """Lists, tuples and integer arrays of any width and stride, and NumPy integers in them."""
    tokens = tiny.golden["tokens"]
    given = np.repeat(tokens, 2)[::2] if make == "strided" else make(tokens)
    assert_close(session.prefill(given), tiny.golden["logits"][-1])
    session.truncate(len(tokens) - 1)
    assert_close(session.decode(given[-1]), tiny.golden["logits"][-1])


def test_closed_session_refuses_work(tiny: Tiny) -> None:
    """After close, or the end of a with block, every use raises; closing twice is harmless."""
    with tiny.model.session() as session:
        session.prefill([1, 2])
    session.close()
    for use in (lambda: session.prefill([1]), lambda: session.decode(1), lambda: session.truncate(0)):
        with pytest.raises(UsageError, match="closed"):
            use()
    with pytest.raises(UsageError, match="closed"):
        fastgpt_c.step([(session, [1])])


@pytest.mark.parametrize("n_tokens", [511, 512, 513, 1025])
def test_spans_longer_than_a_batch(long_model: fastgpt_c.Model, n_tokens: int) -> None:
    """Around multiples of the 512 tokens that are computed together: equal to the token-by-token run."""
    tokens = np.random.default_rng(0).integers(0, long_model.n_vocab, n_tokens)
    with long_model.session() as whole, long_model.session() as single:
        rows = whole.prefill(tokens, all_logits=True)
        assert_close(rows, np.stack([single.decode(int(token)) for token in tokens]))
        whole.truncate(0)
        assert_close(whole.prefill(tokens), rows[-1])


def test_long_ragged_batch(long_model: fastgpt_c.Model) -> None:
    """Spans that lie across the borders of slices: each as if it were alone, last rows and all rows."""
    rng = np.random.default_rng(1)
    spans = [rng.integers(0, long_model.n_vocab, n) for n in (500, 1, 30, 1100, 1, 481)]
    alone = []
    for span in spans:
        with long_model.session() as session:
            alone.append(session.prefill(span, all_logits=True))
    last = fastgpt_c.step([(long_model.session(), span) for span in spans])
    assert_close(last, np.stack([rows[-1] for rows in alone]))
    rows = fastgpt_c.step([(long_model.session(), span) for span in spans], all_logits=True)
    assert_close(rows, np.concatenate(alone))


def test_long_model_equals_reference(long_model: fastgpt_c.Model) -> None:
    """A full context of more than a thousand positions, against float64."""
    tokens = np.random.default_rng(2).integers(0, long_model.n_vocab, long_model.n_ctx)
    with long_model.session() as session:
        rows = session.prefill(tokens, all_logits=True)
    np.testing.assert_allclose(rows, reference.load_gguf(long_model.path).logits(tokens), rtol=0, atol=1e-4)


def test_concurrent_use_raises(slow_model: fastgpt_c.Model) -> None:
    """Two threads, one session: one call runs undisturbed, the other raises at once."""
    tokens = np.arange(1000) % slow_model.n_vocab
    results: list[np.ndarray | FastGPTError] = []
    barrier = threading.Barrier(2)

    def use(session: fastgpt_c.Session) -> None:
        barrier.wait()
        try:
            results.append(session.prefill(tokens))
        except FastGPTError as error:
            results.append(error)

    with slow_model.session() as shared, slow_model.session() as alone:
        threads = [threading.Thread(target=use, args=(shared,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused, logits = results
        assert isinstance(refused, UsageError) and "thread" in str(refused)
        assert shared.n_past == len(tokens)
        np.testing.assert_array_equal(logits, alone.prefill(tokens))


def test_sessions_run_in_parallel(tiny: Tiny) -> None:
    """Many threads, a session each, one model: everybody gets the right logits."""
    tokens, wrong = tiny.golden["tokens"], []

    def work() -> None:
        for _ in range(20):
            with tiny.model.session() as session:
                if np.abs(session.prefill(tokens, all_logits=True) - tiny.golden["logits"]).max() > 1e-4:
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(("kv_type", "tolerance"), [("f16", 2e-3), ("bf16", 2e-2)])
def test_half_precision_cache(tiny: Tiny, kv_type: str, tolerance: float) -> None:
    """Keys and values are rounded, no more: logits stay near, also token by token, and caches of several types share a
    step."""
    tokens, largest = tiny.golden["tokens"], np.abs(tiny.golden["logits"]).max()
    with tiny.model.session(kv_type=kv_type) as half, tiny.model.session() as exact:
        logits = half.prefill(tokens, all_logits=True)
        np.testing.assert_allclose(logits, tiny.golden["logits"], rtol=0, atol=tolerance * largest)
        exact.prefill(tokens)
        for layer in range(tiny.model.n_layer):
            np.testing.assert_allclose(half.keys(layer), exact.keys(layer), rtol=0, atol=tolerance * 20)
        assert not np.array_equal(half.values(0), exact.values(0)), "nothing was rounded"
        half.truncate(1)
        one_by_one = np.stack([half.decode(int(token)) for token in tokens[1:]])
        np.testing.assert_allclose(one_by_one, logits[1:], rtol=0, atol=tolerance * largest)
        half.truncate(2)
        exact.truncate(2)
        both = fastgpt_c.step([(half, tokens[2:]), (exact, tokens[2:])])
        np.testing.assert_allclose(both[0], logits[-1], rtol=0, atol=tolerance * largest)
        np.testing.assert_allclose(both[1], tiny.golden["logits"][-1], rtol=0, atol=1e-4)


def test_unknown_cache_types_are_refused(tiny: Tiny) -> None:
    """By name, with what there is."""
    with pytest.raises(UsageError, match="kv_type is 'q4_0', not one of auto, f32, f16, bf16, q8_0"):
        tiny.model.session(kv_type="q4_0")
    with pytest.raises(UsageError, match="kv_type is 'f64'"):
        tiny.model.generate([1], kv_type="f64")
