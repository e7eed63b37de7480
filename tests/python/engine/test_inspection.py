"""What inspect shows of a step is what the step computed; embed and unembed are made of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reference
from reference import ACTIVATIONS, linear, softmax

import fastgpt_c
from fastgpt_c.errors import ContextFullError, UsageError

if TYPE_CHECKING:
    from models import Tiny

Arrays = dict[str, np.ndarray]
EVERYTHING = ("hidden", "hidden_mid", "ln_1", "ln_2", "ln_f", "logits")


def heads_of(model: fastgpt_c.Model) -> list[tuple[int, int]]:
    """All of them, layer by layer."""
    return list(product(range(model.n_layer), range(model.n_head)))


def look(model: fastgpt_c.Model, tokens: np.ndarray, n_threads: int | None = None) -> Arrays:
    """All there is to see of tokens, in a fresh session."""
    with model.session(n_threads=n_threads) as session:
        return session.inspect(tokens, *EVERYTHING, heads=heads_of(model))


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


# ---- What it shows --------------------------------------------------------------------------------------


def test_each_array_follows_from_the_one_before(tiny: Tiny) -> None:
    """Embeddings, norms, attention, feed-forward part, output: each op in float64 takes one array to the next."""
    tokens, n_head = tiny.golden["tokens"], tiny.model.n_head
    seen, gpt2 = look(tiny.model, tokens), reference.load_gguf(tiny.path)
    weights, op, norm, activation = gpt2.weights, gpt2._op, gpt2._norm, ACTIVATIONS[gpt2.activation]
    assert_close(
        seen["hidden"][0], (weights["token_embd.weight"][tokens] + weights["position_embd.weight"][: len(tokens)])
    )
    for layer in range(gpt2.n_layer):
        blk, before, middle = f"blk.{layer}.", seen["hidden"][layer], seen["hidden_mid"][layer]
        assert_close(seen["ln_1"][layer], norm(before, blk + "attn_norm"))
        q, k, v = np.split(linear(seen["ln_1"][layer], *op(blk + "attn_qkv")), 3, axis=1)
        attention = seen["attention"][layer * n_head : (layer + 1) * n_head]
        assert_close(attention, probabilities(q, k, n_head))
        heads = np.hstack([p @ values for p, values in zip(attention, np.split(v, n_head, axis=1), strict=True)])
        assert_close(middle, before + linear(heads, *op(blk + "attn_output")))
        assert_close(seen["ln_2"][layer], norm(middle, blk + "ffn_norm"))
        feed_forward = linear(activation(linear(seen["ln_2"][layer], *op(blk + "ffn_up"))), *op(blk + "ffn_down"))
        assert_close(seen["hidden"][layer + 1], middle + feed_forward)
    assert_close(seen["ln_f"], norm(seen["hidden"][-1], "output_norm"))
    assert_close(seen["logits"], seen["ln_f"] @ weights.get("output.weight", weights["token_embd.weight"]).T)


def probabilities(q: np.ndarray, k: np.ndarray, n_head: int) -> np.ndarray:
    """q, k [n][n_embd] -> causal attention [n_head][n][n]."""
    future = np.triu(np.ones((len(q), len(q)), bool), 1)
    pairs = zip(np.split(q, n_head, axis=1), np.split(k, n_head, axis=1), strict=True)
    return np.stack([softmax(np.where(future, -np.inf, a @ b.T / np.sqrt(a.shape[1]))) for a, b in pairs])


def test_attention_rows_sum_to_one_and_see_no_later_token(tiny: Tiny) -> None:
    """For every head, exactly 0 above the diagonal."""
    attention = look(tiny.model, tiny.golden["tokens"])["attention"]
    np.testing.assert_allclose(attention.sum(axis=-1), 1, rtol=0, atol=1e-5)
    assert attention.min() >= 0
    np.testing.assert_array_equal(np.triu(attention, 1), 0)


def test_looking_changes_nothing(tiny: Tiny) -> None:
    """Logits, keys and values are the bits of a step that nobody looks into; nothing is given but what was asked."""
    tokens = tiny.golden["tokens"]
    with tiny.model.session() as seen, tiny.model.session() as plain:
        given = seen.inspect(tokens, "logits", "hidden", heads=heads_of(tiny.model))
        assert list(given) == ["logits", "hidden", "attention"]
        np.testing.assert_array_equal(given["logits"], plain.prefill(tokens, all_logits=True))
        for layer in range(tiny.model.n_layer):
            np.testing.assert_array_equal(seen.keys(layer), plain.keys(layer))
            np.testing.assert_array_equal(seen.values(layer), plain.values(layer))


def test_logits_of_the_last_tokens_alone(tiny: Tiny) -> None:
    """A row for each session, as step gives them; what else is seen has all tokens."""
    parts = np.split(tiny.golden["tokens"], [2, 3])
    look_at, step = ([(tiny.model.session(), part) for part in parts] for _ in range(2))
    given = fastgpt_c.inspect(look_at, "ln_f", "logits", all_logits=False)
    np.testing.assert_array_equal(given["logits"], fastgpt_c.step(step))
    assert given["ln_f"].shape == (len(tiny.golden["tokens"]), tiny.model.n_embd)


@pytest.mark.parametrize("n_threads", [2, 3, 4])
def test_same_bits_for_any_number_of_threads(tiny: Tiny, long_model: fastgpt_c.Model, n_threads: int) -> None:
    """Of every array, also where a prompt is cut into slices."""
    for model, tokens in ((tiny.model, tiny.golden["tokens"]), (long_model, np.arange(600) % long_model.n_vocab)):
        one, many = look(model, tokens, 1), look(model, tokens, n_threads)
        for name in one:
            np.testing.assert_array_equal(many[name], one[name], name)


def test_a_batch_shows_each_sequence_as_if_alone(tiny: Tiny) -> None:
    """Rows in the order of the sessions, attention over each one's own past; columns beyond it are 0."""
    tokens, n_ctx = tiny.golden["tokens"], tiny.model.n_ctx
    spans = [(2, n_ctx), (0, n_ctx // 2), (n_ctx - 1, n_ctx)]  # positions [from, to)
    sessions = [tiny.model.session() for _ in spans]
    for session, (start, _) in zip(sessions, spans, strict=True):
        if start:
            session.prefill(tokens[:start])
    batch = [(session, tokens[start:stop]) for session, (start, stop) in zip(sessions, spans, strict=True)]
    given = fastgpt_c.inspect(batch, *EVERYTHING, heads=heads_of(tiny.model)[::-1])
    alone = look(tiny.model, tokens)
    rows = np.concatenate([np.arange(*span) for span in spans])
    for name in EVERYTHING:
        assert_close(given[name], np.take(alone[name], rows, axis=0 if name in ("ln_f", "logits") else 1))
    assert_close(given["attention"], alone["attention"][::-1, rows])
    assert [session.n_past for session in sessions] == [stop for _, stop in spans]


@pytest.mark.parametrize(
    ("ask", "complaint"),
    [
        (lambda s: s.inspect([1], "hiden"), "'hiden' .* hidden, hidden_mid, embed, pos_embed, resid_pre, ln_1"),
        (lambda s: s.inspect([1], heads=[(0, 0), (99, 0)]), "layer is 99, not in"),
        (lambda s: s.inspect([1], heads=[(0, -1)]), "head is -1, not in"),
        (lambda s: s.inspect([1], heads=[(0, 99)]), "head is 99, not in"),
        (lambda s: s.inspect([], "hidden"), "at least one token"),
        (lambda s: s.unembed(np.zeros((2, 3))), "n_embd"),
        (lambda s: s.unembed(0.0), "n_embd"),
        (lambda s: s.inspect([1], ["hidden"]), r"\['hidden'\] is unknown; it must be one of hidden,"),
        (lambda s: s.inspect([1], heads=(0, 3)), r"heads is \(0, 3\), not pairs of layer and head"),
        (lambda s: s.inspect([1], heads=[(0, 1, 2)]), "not pairs of layer and head"),
    ],
)
def test_what_is_not_there_is_refused(tiny: Tiny, ask: Callable[[fastgpt_c.Session], Any], complaint: str) -> None:
    """An error that says what there is; the session is as it was."""
    with tiny.model.session() as session:
        session.prefill([1, 2])
        with pytest.raises(UsageError, match=complaint):
            ask(session)
        assert session.n_past == 2


# ---- Out of it, and into words --------------------------------------------------------------------------


def test_unembed_gives_the_logits_of_the_step(tiny: Tiny) -> None:
    """The last hidden states unembed to the step's logits; any shape, each row the same bits as alone."""
    with tiny.model.session() as session:
        given = session.inspect(tiny.golden["tokens"], "hidden", "logits")
        logits = session.unembed(given["hidden"])
        assert logits.shape == (tiny.model.n_layer + 1, *given["logits"].shape) and logits.dtype == np.float32
        assert_close(logits[-1], given["logits"])
        for layer, t in product(range(tiny.model.n_layer), (0, -1)):
            np.testing.assert_array_equal(session.unembed(given["hidden"][layer, t]), logits[layer, t])
        assert session.unembed(given["hidden"][:, :0]).shape == (tiny.model.n_layer + 1, 0, tiny.model.n_vocab)


def test_embed_is_the_last_or_the_mean_of_the_final_hidden_state(tiny: Tiny) -> None:
    """After ln_f; float32 [n_embd]."""
    rows = look(tiny.model, tiny.golden["tokens"])["ln_f"]
    for pooling, expected in (("last", rows[-1]), ("mean", rows.mean(axis=0))):
        vector = tiny.model.embed(tiny.golden["tokens"], pooling=pooling)
        assert (vector.shape, vector.dtype) == ((tiny.model.n_embd,), np.float32)
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)


def test_embed_takes_text(alphabet_model: fastgpt_c.Model) -> None:
    """The vector of a text is that of its tokens; no text, too much of it, and another pooling are refused."""
    model = alphabet_model
    np.testing.assert_array_equal(model.embed("abc"), model.embed(model.encode("abc")))
    with pytest.raises(UsageError, match="the prompt is empty: there is nothing to embed"):
        model.embed("")
    with pytest.raises(ContextFullError):
        model.embed("a" * (model.n_ctx + 1))
    with pytest.raises(UsageError, match=r"pooling is 'max'; it must be"):
        model.embed("abc", pooling="max")
