"""Profiles: what they count equals closed formulas, and what they time is all of a step."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from models import write_random_gguf
from profiles import profiled, write_source

import fastgpt_c
from fastgpt_c.batching.requests import Batch, in_order
from fastgpt_c.convert import quantize
from fastgpt_c.engine.reader import Reader
from fastgpt_c.profiling import report
from fastgpt_c.profiling.profile import Profile

N_BATCH = 512


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("profile"))


# ---- Counts: equal to formulas, to the last byte -----------------------------------------------------------


BLOCKS = {"f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18), "q6_k": (256, 210)}


def row_bytes(kind: str, n: int) -> int:
    """Bytes of n numbers, whole blocks of so many numbers in so many bytes."""
    n_numbers, n_bytes = BLOCKS[kind]
    assert n % n_numbers == 0
    return n // n_numbers * n_bytes


def expected_counts(model: fastgpt_c.Model, types: dict[str, str], kv: str, past: int, n: int) -> dict[str, list[int]]:
    """{op: [bytes, operations]} of one layer, or of the op outside of layers, for one slice: n tokens after past.

    types names the type of wte, wpe and the matrices in layers ("w").
    """
    e, f, v = model.n_embd, model.n_ff, model.n_vocab
    cache_row = row_bytes(kv, e)

    def product(kind: str, n_out: int, n_in: int, rows: int, bias: bool, out_bytes: int) -> list[int]:
        weights = n_out * row_bytes(types[kind], n_in) + (4 * n_out if bias else 0)
        return [weights + 4 * rows * n_in + out_bytes, 2 * rows * n_in * n_out]

    norm, last_norm = [8 * n * e + 8 * e, 7 * n * e], [8 * e + 8 * e, 7 * e]
    pairs = sum(past + t + 1 for t in range(n))
    return {
        "embed": [n * (row_bytes(types["wte"], e) + row_bytes(types["wpe"], e) + 4 * e), n * e],
        "ln_1": norm,
        "qkv": product("w", 3 * e, e, n, True, 4 * n * e + 2 * n * cache_row),
        "attention": [8 * n * e + 2 * (past + n) * cache_row, 4 * e * pairs],
        "attn_proj": product("w", e, e, n, True, 8 * n * e),
        "ln_2": norm,
        "fc": product("w", f, e, n, True, 4 * n * f),
        "gelu": [8 * n * f, 9 * n * f],
        "proj": product("w", e, f, n, True, 8 * n * e),
        "ln_f": last_norm,
        "lm_head": product("wte", v, e, 1, False, 4 * v),
        "sample": [4 * v, 0],
        "other": [0, 0],
    }


def assert_counts(p: Profile, model: fastgpt_c.Model, types: dict[str, str], kv: str, n_prompt: int, n: int) -> None:
    """Every record of a prefill of n_prompt tokens, in slices of N_BATCH, and n decodes is what the formulas say."""
    slices = [("prefill", past, min(N_BATCH, n_prompt - past)) for past in range(0, n_prompt, N_BATCH)]
    last_prefill = slices[-1]
    slices += [("decode", n_prompt + i, 1) for i in range(n)]
    expected: dict[tuple[str, str], np.ndarray] = {}
    for phase, past, n_tokens in slices:
        for op, counts in expected_counts(model, types, kv, past, n_tokens).items():
            has_logits = phase == "decode" or (phase, past, n_tokens) == last_prefill
            if op != "sample" and (has_logits or op not in ("ln_f", "lm_head")):
                expected[phase, op] = expected.get((phase, op), 0) + np.array(counts)
    for phase, n_samples in (("prefill", min(n, 1)), ("decode", n - 1)):
        if n_samples > 0:
            expected[phase, "sample"] = n_samples * np.array([4 * model.n_vocab, 0])
    for r in p.records:
        counted = [int(r["bytes"]), int(r["operations"])]
        assert counted == expected[r["phase"], r["op"]].tolist(), (r["phase"], r["op"])
    assert {(r["phase"], r["op"]) for r in p.records} == set(expected)


@pytest.mark.parametrize("kv", ["f32", "bf16"])
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_counts_equal_the_formulas(source: Path, tmp_path: Path, kind: str, kv: str) -> None:
    """Bytes and operations of a prefill of two slices and of three decodes, by every type of weights."""
    path = source if kind == "f32" else tmp_path / f"{kind}.gguf"
    if path != source:
        quantize(source, path, type=kind)
    types = {"w": kind, "wpe": "f32", "wte": "q8_0" if kind == "q4_0" else kind}
    with fastgpt_c.load(path) as model, model.session(kv_type=kv) as session:
        p = profiled(session, [i % 96 for i in range(550)], 3)
        assert_counts(p, model, types, kv, 550, 3)
    n_ops = Counter((r["phase"], int(r["layer"])) for r in p.records)
    assert n_ops == {(phase, layer): n for phase in ("prefill", "decode") for layer, n in ((-1, 5), (0, 8), (1, 8))}


def test_counts_of_a_model_of_one_type_alone(tmp_path: Path) -> None:
    """The same where the embeddings are in blocks as well: Q6_K, which nothing here writes."""
    path = write_random_gguf(
        tmp_path / "q6_k.gguf", n_layer=2, n_head=4, n_embd=256, n_ctx=600, n_vocab=96, type="q6_k"
    )
    with fastgpt_c.load(path) as model, model.session(kv_type="f16") as session:
        p = profiled(session, [i % 96 for i in range(550)], 3)
        assert_counts(p, model, dict.fromkeys(("w", "wpe", "wte"), "q6_k"), "f16", 550, 3)


def test_a_shared_prefix_counts_once(source: Path) -> None:
    """Neighbours that were forked from one session read its positions together; others read all of theirs."""
    with fastgpt_c.load(source) as model, model.session() as first, model.session() as other:
        first.prefill(range(90))
        other.prefill(range(50))
        with first.fork() as second:
            with first.profile() as p:
                fastgpt_c.step([(first, [1]), (second, [2]), (other, [3])])
            rows = (90 + 1) + 1 + (50 + 1)
            assert (p.phases["decode"]["n_steps"], p.phases["decode"]["n_tokens"]) == (1, 3)
    attention = p.records[p.records["op"] == "attention"]
    assert attention["bytes"].tolist() == [8 * 3 * 64 + 2 * rows * 4 * 64] * 2
    assert attention["operations"].tolist() == [4 * 64 * (91 + 91 + 51)] * 2


@pytest.mark.skipif("FASTGPT_TEST_124M" not in os.environ, reason="FASTGPT_TEST_124M names no Q8_0 file of that shape")
def test_counts_of_a_124m_model() -> None:
    """The same for a Q8_0 model of the 124M shape, after a prefill of more than one slice."""
    with fastgpt_c.load(os.environ["FASTGPT_TEST_124M"]) as model, model.session() as session:
        p = profiled(session, list(range(600)), 2)
        assert_counts(p, model, {"w": "q8_0", "wpe": "f32", "wte": "q8_0"}, "f32", 600, 2)
        decode = p.records[p.records["phase"] == "decode"]
        products = decode[np.isin(decode["op"], report.PRODUCTS)]
    assert products["operations"].sum() == 2 * 2 * (12 * 12 * 768 * 768 + 768 * 50257)


# ---- Times -------------------------------------------------------------------------------------------------


def timed_profile(session: fastgpt_c.Session) -> tuple[Profile, int]:
    """A profile of a prefill and four decodes, and the nanoseconds that a clock around them counts."""
    session.truncate(0)
    with session.profile() as p:
        begin = time.perf_counter_ns()
        session.prefill(list(range(60)) * 10)
        for token in range(4):
            session.decode(token)
        return p, time.perf_counter_ns() - begin


def test_ops_are_all_of_the_time(slow_model: fastgpt_c.Model) -> None:
    """What is not "other" is within 3% of the steps' time, with "other" all of it; the steps are within 3% of what a
    clock around them says, unless somebody else has the core between two steps, each time."""
    seen = []
    with slow_model.session() as session:
        for _ in range(10):
            p, wall = timed_profile(session)
            for phase in p.phases:
                r = p.records[p.records["phase"] == phase]
                assert r["ns"].sum() == p.phases[phase]["ns"]
            steps = p.events[p.events["op"] == "step"]
            total = (steps["end_ns"] - steps["start_ns"]).sum()
            assert total == sum(phase["ns"] for phase in p.phases.values()) <= wall
            other = p.records["ns"][p.records["op"] == "other"].sum()
            seen.append((other / total, total / wall))
            if other < 0.03 * total and total > 0.97 * wall:
                return
    pytest.fail(f"other / steps, steps / wall: {seen}")


def test_a_profile_is_one_block_long(random_model: fastgpt_c.Model) -> None:
    """Steps outside of the block do not count; a second profile begins at zero."""
    with random_model.session() as session:
        session.decode(1)
        p = profiled(session, [1, 2, 3], 1)
        before = p.records.copy()
        session.decode(1)
        assert (p.records == before).all()
        assert (p.phases["decode"]["n_steps"], p.phases["prefill"]["n_tokens"]) == (1, 3)
        again = profiled(session, [4, 5], 0)
        assert again.phases["prefill"] == again.phases["prefill"] | {"n_steps": 1, "n_tokens": 2}


def test_one_profile_at_a_time(random_model: fastgpt_c.Model) -> None:
    """A second one inside of the first is refused, as one of a closed session is; the first goes on, and another may
    follow it."""
    with random_model.session() as session:
        with session.profile() as p:
            session.decode(1)
            with pytest.raises(fastgpt_c.UsageError, match="begun already"), session.profile():
                pass
            session.decode(1)
        assert p.phases["decode"]["n_steps"] == 2
        with session.profile() as p:
            session.decode(1)
        assert p.phases["decode"]["n_steps"] == 1
    with pytest.raises(fastgpt_c.UsageError, match="closed"):
        session.profile()


def test_logits_do_not_change(random_model: fastgpt_c.Model) -> None:
    """The same bits with a profile and without one."""
    with random_model.session() as session:
        plain = session.prefill([1, 2, 3], all_logits=True)
        session.truncate(0)
        with session.profile():
            assert (session.prefill([1, 2, 3], all_logits=True) == plain).all()


# ---- Draws -------------------------------------------------------------------------------------------------


def draws_of(p: Profile) -> tuple[int, int]:
    """Calls and bytes of the draws that the profile counts; each is in a step's events, too."""
    rows = p.records[p.records["op"] == "sample"]
    events = p.events[(p.events["op"] == "sample") & (p.events["thread"] == 0)]
    assert len(events) == rows["calls"].sum() and (rows["ns"] > 0).all()
    return int(rows["calls"].sum()), int(rows["bytes"].sum())


@pytest.mark.parametrize("prompt_lookup", [0, 4], ids=["plain", "speculative"])
def test_generating_counts_its_draws(random_model: fastgpt_c.Model, prompt_lookup: int) -> None:
    """A text that grows in a profiled session has a draw for each of its tokens, whatever was guessed; drawing in the
    session is drawing."""
    options = fastgpt_c.Options(max_new_tokens=12, seed=3, prompt_lookup=prompt_lookup)
    with random_model.session() as session, session.profile() as p:
        text = random_model.stream([1, 2, 3, 1, 2], options, reader=Reader(session)).finish()
    n = len(text.tokens) + (text.finish_reason == "eos")
    assert draws_of(p) == (n, n * 4 * random_model.n_vocab)
    assert text.tokens == random_model.generate([1, 2, 3, 1, 2], options).tokens


def test_a_batch_counts_its_draws(random_model: fastgpt_c.Model) -> None:
    """One call a step, whose bytes are the rows that were drawn: not those of prompts that are still being read."""
    prompts = [[1, 2, 3], [4, 5, 6, 7], [8]]
    options = fastgpt_c.Options(max_new_tokens=5, temperature=0)
    batch = Batch(random_model, options, max_batch=2, max_tokens_in_flight=None)
    with batch.profile() as p:
        texts = in_order(batch, prompts)
    plain = random_model.generate_batch(prompts, options, max_batch=2)
    assert [text.tokens for text in texts] == [text.tokens for text in plain]
    n_steps = sum(phase["n_steps"] for phase in p.phases.values())
    n_drawn = sum(len(text.tokens) + (text.finish_reason == "eos") for text in texts)
    assert draws_of(p) == (n_steps, n_drawn * 4 * random_model.n_vocab)
    assert n_steps < n_drawn
