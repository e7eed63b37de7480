"""The laws of a batch: each prompt gets its own text, nothing is padded, memory is bounded, errors stay in place."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scripted import EOS

import fastgpt_c
from fastgpt_c import Request
from fastgpt_c.batching import ragged_step, scheduler
from fastgpt_c.batching.ragged_step import N_TOKENS_A_STEP, RaggedStep
from fastgpt_c.batching.scheduler import Scheduler
from fastgpt_c.errors import BatchError, ContextFullError, FastGPTError, UsageError
from fastgpt_c.native.lib import lib

N_PROMPTS = int(os.environ.get("FASTGPT_TEST_PROMPTS", "24"))

CONTENT = ("text", "tokens", "finish_reason", "n_prompt", "seed")


def content(completion: Any) -> tuple[Any, ...]:
    """All but the times."""
    assert isinstance(completion, fastgpt_c.Completion), completion
    return tuple(getattr(completion, name) for name in CONTENT)


def random_requests(rng: np.random.Generator, n: int, n_vocab: int, n_ctx: int) -> list[Request]:
    """Prompts of token ids, many with a common beginning, each with its own parameters; now and then one that slides
    beyond n_ctx."""
    stems = rng.integers(0, n_vocab, (2, n_ctx))

    def request() -> Request:
        stem = stems[rng.integers(0, 2), : rng.integers(0, n_ctx // 2)].tolist()
        prompt = stem + rng.integers(0, n_vocab, rng.integers(1, n_ctx // 2)).tolist()
        slides = rng.random() < 0.3
        return Request(
            prompt,
            max_new_tokens=int(rng.integers(0, n_ctx if slides else n_ctx - len(prompt) + 1)),
            on_overflow="slide" if slides else "error",
            temperature=float(rng.choice([0, 1, 2])),
            top_k=int(rng.choice([0, 5])),
            repetition_penalty=float(rng.choice([1, 1.3])),
            frequency_penalty=float(rng.choice([0, 0.5])),
            min_new_tokens=int(rng.integers(0, 9)),
            stop=[" t", "q"][: rng.integers(0, 3)],
            seed=int(rng.integers(0, 2**40)),
        )

    return [request() for _ in range(n)]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, tokens) of every step of batches from now on."""
    taken: list[tuple[int, int]] = []
    run = RaggedStep.run

    def noted(self: RaggedStep, n_rows: int, n_tokens: int, *others: Any) -> list[int]:
        taken.append((n_rows, n_tokens))
        return run(self, n_rows, n_tokens, *others)

    monkeypatch.setattr(RaggedStep, "run", noted)
    return taken


# ---- Each prompt gets its own text ---------------------------------------------------------------------------


@pytest.fixture
def logits(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[bytes]]:
    """By index of the prompt, a digest of the logits that each of its tokens was drawn from, in batches from now on."""
    seen: dict[int, list[bytes]] = {}
    ends = Scheduler._ends

    def noted(self: Scheduler, row: int, slot: Any, token: int) -> bool:
        digest = hashlib.sha256(self._step.logits(row).tobytes()).digest()
        seen.setdefault(slot.request.tag, []).append(digest)
        return ends(self, row, slot, token)

    monkeypatch.setattr(Scheduler, "_ends", noted)
    return seen


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_change_nothing(random_model: fastgpt_c.Model, logits: dict[int, list[bytes]], seed: int) -> None:
    """In deterministic mode a prompt gets what it gets alone, logits to the bit, whatever the batch size, the order,
    the room, the number of threads, and what the caches held before."""
    rng = np.random.default_rng(seed)
    requests = random_requests(rng, N_PROMPTS, EOS, random_model.n_ctx)

    def lone_run(one: Request) -> tuple[Any, list[bytes] | None]:
        logits.clear()
        return content(*random_model.generate_batch([one], deterministic=True, n_threads=1)), logits.get(0)

    alone = [lone_run(one) for one in requests]
    for _ in range(3):
        logits.clear()
        order = rng.permutation(N_PROMPTS)
        together = random_model.generate_batch(
            [requests[i] for i in order],
            deterministic=True,
            max_batch=int(rng.integers(1, 65)),
            max_tokens_in_flight=int(rng.integers(random_model.n_ctx, 300)),
            n_threads=int(rng.integers(1, 5)),
        )
        found = [(content(one), logits.get(index)) for index, one in enumerate(together)]
        assert found == [alone[i] for i in order]


def test_a_batch_of_one_is_generate(random_model: fastgpt_c.Model) -> None:
    """Alone in a fast batch a prompt runs the steps of generate, so it gets the same text, however it ends."""
    for one in random_requests(np.random.default_rng(9), N_PROMPTS, EOS, random_model.n_ctx):
        batch = random_model.generate_batch([one], max_batch=1)
        assert content(batch[0]) == content(random_model.generate(one.prompt, **one.changes))


def test_a_long_prompt_is_read_in_chunks(long_model: fastgpt_c.Model, steps: list[tuple[int, int]]) -> None:
    """No step has more tokens than it may; those of a deterministic one are the same bits, so its texts the same."""
    rng = np.random.default_rng(3)
    prompts = [rng.integers(0, 97, n).tolist() for n in (1000, 3, 700, 1)]
    together = long_model.generate_batch(prompts, max_new_tokens=20, seed=1, deterministic=True)
    assert max(n_tokens for _, n_tokens in steps) == N_TOKENS_A_STEP
    alone = [long_model.generate_batch([one], max_new_tokens=20, seed=1, deterministic=True)[0] for one in prompts]
    assert [content(one) for one in together] == [content(one) for one in alone]


@pytest.mark.parametrize(
    ("changes", "text", "reason"),
    [
        ({}, "bcdefghi", "length"),
        ({"max_new_tokens": 0}, "", "length"),
        ({"max_new_tokens": 3}, "bcd", "length"),
        ({"stop": "fg"}, "bcde", "stop"),
        ({"stop": "iX"}, "bcdefghi", "length"),
        ({"stop": "i"}, "bcdefgh", "stop"),
        ({"logit_bias": {EOS: 1e6}}, "", "eos"),
    ],
    ids=repr,
)
def test_each_ends_for_its_own_reason(
    alphabet_model: fastgpt_c.Model, changes: dict[str, Any], text: str, reason: str
) -> None:
    """Length, stop strings, bias and the end-of-text token of one prompt are not those of its neighbours."""
    first, middle, last = alphabet_model.generate_batch(["a", Request("a", **changes), "b"], max_new_tokens=8)
    assert (middle.text, middle.finish_reason) == (text, reason)
    assert (first.text, last.text) == ("bcdefghi", "cdefghij")


def test_tokens_without_a_tokenizer(long_model: fastgpt_c.Model) -> None:
    """Token ids in, token ids out."""
    completions = long_model.generate_batch([[1, 2], [3]], max_new_tokens=5)
    assert [(len(one.tokens), one.text) for one in completions] == [(5, ""), (5, "")]


# ---- What a step is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_batch", [1, 3, 8, 100])
def test_nothing_is_computed_in_vain(
    alphabet_model: fastgpt_c.Model, steps: list[tuple[int, int]], max_batch: int
) -> None:
    """No padding: steps read what no cache has of each prompt, and each new token but the last, in no more rows than
    allowed."""
    lengths = [(1 + i % 7, 1 + i * i % 23) for i in range(40)]
    prompts = [Request("a" * n_prompt, max_new_tokens=n_new) for n_prompt, n_new in lengths]
    completions = alphabet_model.generate_batch(prompts, max_batch=max_batch)
    n_reused = sum(one.n_reused for one in completions)
    assert sum(n_tokens for _, n_tokens in steps) == sum(n_prompt + n_new - 1 for n_prompt, n_new in lengths) - n_reused
    assert max(n_rows for n_rows, _ in steps) == min(max_batch, 40)


def test_a_common_beginning_is_read_once(random_model: fastgpt_c.Model, steps: list[tuple[int, int]]) -> None:
    """One after the other, prompts read what comes after the longest beginning that an earlier one left in a cache, at
    least one token; their texts are those of lone runs."""
    stem = [5, 6, 7, 8, 9, 10, 11, 12]
    prompts = [[*stem, 1, 1], [*stem, 2, 3], stem, stem[:4], [*stem, 4]]
    settings: dict[str, Any] = {"max_new_tokens": 3, "temperature": 0, "deterministic": True, "max_batch": 1}
    completions = random_model.generate_batch(prompts, **settings)
    assert [one.n_reused for one in completions] == [0, 8, 7, 3, 4]
    assert [n_tokens for _, n_tokens in steps] == [10, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 5, 1, 1]
    assert [one.tokens for one in completions] == [
        random_model.generate_batch([prompt], **settings)[0].tokens for prompt in prompts
    ]


@pytest.mark.parametrize("max_batch", [2, 3, 12])
def test_a_common_beginning_is_stored_once(
    long_model: fastgpt_c.Model, logits: dict[int, list[bytes]], steps: list[tuple[int, int]], max_batch: int
) -> None:
    """Prompts that begin alike wait until the first of them has read that, and then share it: nobody reads it again;
    and their logits are those of lone runs, to the bit."""
    rng = np.random.default_rng(max_batch)
    stem = rng.integers(0, 97, 600).tolist()
    prompts = [stem + rng.integers(0, 97, 1 + i % 5).tolist() for i in range(12)]
    settings: dict[str, Any] = {"max_new_tokens": 4, "seed": 1, "deterministic": True}
    together = long_model.generate_batch(prompts, max_batch=max_batch, max_tokens_in_flight=10**5, **settings)
    n_read = sum(n_tokens for _, n_tokens in steps) - 12 * 3  # of the new tokens, the last is not read
    # The stem is read once, and, as it is shared up to a multiple of 16, its last 8 tokens by those that share it.
    assert 600 < n_read <= 600 + sum(len(prompt) - 592 for prompt in prompts)
    found = dict(logits)
    for i, prompt in enumerate(prompts):
        logits.clear()
        assert content(long_model.generate_batch([prompt], **settings)[0]) == content(together[i])
        assert logits[0] == found[i]


@pytest.mark.parametrize("chunk", [1, 7, 64, 2000])
def test_prompts_do_not_delay_texts(long_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """While texts grow a step reads at most prefill_chunk tokens of prompts, and those of the prompt that waits longest
    first; while none grows, as many as ever.  The texts are the same."""
    taken: list[tuple[bool, int]] = []  # whether texts grow, and tokens of prompts that are read
    advance = Scheduler.advance

    def noted(self: Scheduler) -> Any:
        grows, n_before = any(not slot.n_unread for slot in self._slots), self.counts.tokens_in
        begun = [slot for slot in self._slots if slot.n_past > 0 and slot.n_unread]
        assert len(begun) <= 1
        drawn = advance(self)
        taken.append((grows, self.counts.tokens_in - n_before))
        return drawn

    monkeypatch.setattr(Scheduler, "advance", noted)
    rng = np.random.default_rng(chunk)
    prompts = [rng.integers(0, 97, n).tolist() for n in (3, 300, 30, 600, 1, 200)]
    settings: dict[str, Any] = {"max_new_tokens": 40, "seed": 1, "deterministic": True, "max_tokens_in_flight": 10**5}
    chunked = long_model.generate_batch(prompts, prefill_chunk=chunk, **settings)
    while_growing = [n_tokens for grows, n_tokens in taken if grows]
    assert max(while_growing) == min(chunk, N_TOKENS_A_STEP - 1) or chunk > 64
    assert max(while_growing) <= chunk
    assert [content(one) for one in chunked] == [content(one) for one in long_model.generate_batch(prompts, **settings)]


def test_a_free_slot_is_taken_at_once(alphabet_model: fastgpt_c.Model, steps: list[tuple[int, int]]) -> None:
    """Continuous batching: one long text and many short ones beside it take as many steps as the long one."""
    prompts = [Request("a", max_new_tokens=40)] + [Request("a", max_new_tokens=4)] * 10
    order = [index for index, _ in alphabet_model.stream_batch(prompts, max_batch=2)]
    assert order == [*range(1, 10), 0, 10]
    assert [n_rows for n_rows, _ in steps] == [2] * 40


def test_prompts_are_asked_for_when_there_is_room(alphabet_model: fastgpt_c.Model) -> None:
    """Endless prompts are fine: when one has ended, at most one more than max_batch others were taken."""
    asked = itertools.count()
    results = alphabet_model.stream_batch(("a" for _ in asked), max_new_tokens=3, max_batch=5)
    for _ in itertools.islice(results, 100):
        pass
    assert next(asked) <= 106


# ---- Errors --------------------------------------------------------------------------------------------------

BAD: list[tuple[Any, type[Exception], str]] = [
    ("a" * 65, ContextFullError, "n_ctx of 64"),
    ([1, 10**6], UsageError, "outside"),
    ([[1]], UsageError, "row of integers"),
    (Request("a", temperature=-1), UsageError, "temperature is -1"),
    (Request("a", max_new_tokens=-1), UsageError, "max_new_tokens is -1"),
    (Request("a", logit_bias=dict.fromkeys(range(265), -np.inf)), UsageError, "every token is banned by logit_bias"),
    (Request("a", max_new_tokens=40), UsageError, "max_tokens_in_flight is 20"),
]


@pytest.mark.parametrize(("prompt", "kind", "words"), BAD, ids=[words for _, _, words in BAD])
def test_an_error_stays_where_it_is(
    alphabet_model: fastgpt_c.Model, prompt: Any, kind: type[Exception], words: str
) -> None:
    """A prompt that fails gives its error in its place; the others go on, and generate_batch tells both at the end."""
    settings: dict[str, Any] = {"max_new_tokens": 5, "max_tokens_in_flight": 20}
    results = dict(alphabet_model.stream_batch(["a", prompt, "b"], **settings))
    assert isinstance(results[1], kind) and words in str(results[1])
    assert [content(results[i])[0] for i in (0, 2)] == ["bcdef", "cdefg"]
    with pytest.raises(BatchError, match=r"1 of 3 prompts failed.*prompt 1") as error_info:
        alphabet_model.generate_batch(["a", prompt, "b"], **settings)
    assert isinstance(error_info.value.results[1], kind)
    assert content(error_info.value.results[2])[0] == "cdefg"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"max_batch": 0}, "max_batch is 0"),
        ({"max_batch": 10**6}, "max_batch is 1000000"),
        ({"max_tokens_in_flight": 0}, "max_tokens_in_flight is 0"),
        ({"kv_cache": False}, "kv_cache"),
        ({"n_threads": -1}, "n_threads is -1"),
    ],
    ids=repr,
)
def test_what_no_prompt_could_use_is_refused(
    alphabet_model: fastgpt_c.Model, settings: dict[str, Any], words: str
) -> None:
    """At the call, before the first prompt is asked for."""

    def unasked() -> Iterator[str]:
        raise AssertionError("a prompt was asked for")
        yield

    with pytest.raises(UsageError, match=words):
        alphabet_model.stream_batch(unasked(), **settings)


@pytest.mark.parametrize("name", ["n_threads", "kv_type", "kv_cache", "temprature"])
def test_a_request_has_options_of_its_own_alone(name: str) -> None:
    """What the whole batch has in common, and what is no option, is refused by name."""
    with pytest.raises(UsageError, match=f"{name} is no option of a single prompt"):
        Request("a", **{name: 1})


@pytest.mark.parametrize("options", [{"prompt_lookup": 3}, {"penalty_alpha": 0.5, "top_k": 2}], ids=str)
def test_what_needs_a_text_of_its_own_is_refused(alphabet_model: fastgpt_c.Model, options: dict[str, Any]) -> None:
    """By name, for the whole batch and for one prompt, beside which the others go on."""
    named = f"^{next(iter(options))} works for one text at a time"
    with pytest.raises(UsageError, match=named):
        alphabet_model.stream_batch(["a"], **options)
    results = dict(alphabet_model.stream_batch(["a", Request("a", **options)], max_new_tokens=2))
    assert content(results[0])[0] == "bc"
    with pytest.raises(UsageError, match=named):
        raise results[1]  # type: ignore[misc]


def test_ignore_eos(alphabet_model: fastgpt_c.Model) -> None:
    """The text goes on after an end-of-text token, alone and in a batch; a constraint has its own end."""
    options: dict[str, Any] = {"max_new_tokens": 3, "logit_bias": {EOS: 1e6}}
    plain, ignoring = alphabet_model.generate_batch(["a", Request("a", ignore_eos=True)], **options)
    assert (plain.tokens, plain.finish_reason) == ([], "eos")
    assert (ignoring.tokens, ignoring.finish_reason) == ([EOS] * 3, "length")
    assert content(ignoring) == content(alphabet_model.generate("a", ignore_eos=True, seed=ignoring.seed, **options))
    with pytest.raises(UsageError, match="ignore_eos"):
        fastgpt_c.Options(ignore_eos=True, regex="a")


def test_no_prompts(alphabet_model: fastgpt_c.Model) -> None:
    """Nothing in, nothing out."""
    assert alphabet_model.generate_batch([]) == []


def test_an_error_of_the_prompts_comes_through(alphabet_model: fastgpt_c.Model) -> None:
    """What the iterable of prompts raises is the caller's own."""

    def prompts() -> Iterator[str]:
        yield "a"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(alphabet_model.stream_batch(prompts(), max_new_tokens=3))


def test_a_closed_model(alphabet: Any) -> None:
    """Says so, to a batch that is under way and to a new one."""
    model = fastgpt_c.load(alphabet)
    results = model.stream_batch(["a", "b"], max_new_tokens=5, max_batch=1)
    assert content(next(results)[1])[0] == "bcdef"
    model.close()
    with pytest.raises(UsageError, match="closed"):
        list(results)
    with pytest.raises(UsageError, match="closed"):
        model.generate_batch(["a"])


def test_ctrl_c_stops_a_long_step(slow_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyboardInterrupt comes in the middle of a step, which leaves its caches empty, and not after it."""
    for module in (scheduler, ragged_step):
        monkeypatch.setattr(module, "N_TOKENS_A_STEP", 8192)  # a second's work
    caches: list[Any] = []
    read = RaggedStep.read

    def noted(self: RaggedStep, row: int, kv: Any, *rest: Any) -> None:
        if not caches:
            timer.start()
        caches.append(kv)
        read(self, row, kv, *rest)

    monkeypatch.setattr(RaggedStep, "read", noted)
    main_thread = threading.get_ident()
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main_thread, signal.SIGINT))
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            slow_model.generate_batch([[i] * 1365 for i in range(6)], max_new_tokens=1, max_tokens_in_flight=10**5)
    finally:
        signal.signal(signal.SIGINT, usual)
        timer.join()
    assert [lib.fastgpt_kv_cache_n_past(kv) for kv in caches] == [0] * 6
    assert isinstance(slow_model.generate_batch([[1]], max_new_tokens=1)[0], fastgpt_c.Completion)


def test_results_are_errors_or_completions(alphabet_model: fastgpt_c.Model) -> None:
    """Every index comes once, also when errors and prompts without a slot are among them."""
    prompts = [["a", Request("a", max_new_tokens=0), "a" * 99][i % 3] for i in range(60)]
    results = list(alphabet_model.stream_batch(prompts, max_new_tokens=2, max_batch=4))
    assert sorted(index for index, _ in results) == list(range(60))
    assert all(isinstance(result, FastGPTError) == (index % 3 == 2) for index, result in results)
