"""The laws of generation: what ends it, what fits, and that streaming, caching and interrupting change nothing."""

from __future__ import annotations

import gc
import signal
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import CONFIG, MERGES, random_tensors, source_shapes, vocabulary, write_checkpoint

import fastgpt_c
from fastgpt_c.convert import convert
from fastgpt_c.errors import ContextFullError, UsageError
from fastgpt_c.generation import OVERFLOW_MODES, Reader, StopFinder, TextGeneration

N_VOCAB, EOS = CONFIG["vocab_size"], CONFIG["eos_token_id"]
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def write_scripted_model(path: Path, script: str, *, n_ctx: int = 64, n_layer: int = 1, n_embd: int = 272) -> Path:
    """A GGUF file of a model that recites: after each token comes the one that follows it in script, whatever else
    went before, and after all others script's first one.  A token may stand in script only once.

    The layers add nothing, each token has an embedding of its own, and the head is the table of followers.
    """
    config = CONFIG | {"n_positions": n_ctx, "n_layer": n_layer, "n_embd": n_embd, "n_head": 4}
    tensors: dict[str, np.ndarray] = {
        name: np.zeros(shape, np.float32) for name, shape in source_shapes(config).items()
    }
    tensors["wte.weight"] += np.eye(N_VOCAB, n_embd, dtype=np.float32)
    tensors["ln_f.weight"] += 1
    followers = dict.fromkeys(range(N_VOCAB), script_tokens(script)[0])
    followers |= dict(zip(script_tokens(script), script_tokens(script)[1:], strict=False))
    tensors["lm_head.weight"] = np.zeros((N_VOCAB, n_embd), np.float32)
    for token, follower in followers.items():
        tensors["lm_head.weight"][follower, token] = 40  # any sampling parameters draw this one
    folder = write_checkpoint(path.with_suffix(""), config | {"tie_word_embeddings": False}, tensors)
    convert(folder, path)
    return path


def script_tokens(script: str) -> list[int]:
    tokens = fastgpt_c.Tokenizer(list(vocabulary()), MERGES, [1] * EOS + [3], EOS).encode(script)
    assert len(set(tokens)) == len(tokens), "a token stands in the script twice"
    return tokens


def write_random_model(path: Path, *, n_ctx: int) -> Path:
    """A GGUF file of a model with random weights, whose greedy text is varied."""
    config = CONFIG | {"n_positions": n_ctx}
    tensors = random_tensors(config)
    for name in tensors:
        if ".c_" in name or name.startswith("wpe"):
            tensors[name] *= 5  # else every token would just repeat itself
        elif "ln_" in name and name.endswith("weight"):
            tensors[name] += 1
    convert(write_checkpoint(path.with_suffix(""), config, tensors), path)
    return path


@pytest.fixture(scope="module")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """Recites the alphabet, again and again; n_ctx 64."""
    path = write_scripted_model(tmp_path_factory.mktemp("scripted") / "alphabet.gguf", ALPHABET)
    with fastgpt_c.load(path) as model:
        yield model


@pytest.fixture(scope="module")
def short_text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """Recites "abcd" and ends it."""
    path = write_scripted_model(tmp_path_factory.mktemp("scripted") / "short.gguf", "abcd<|endoftext|>")
    with fastgpt_c.load(path) as model:
        yield model


@pytest.fixture(scope="module")
def wide_characters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """Recites characters of two, three and four bytes, a token a byte."""
    path = write_scripted_model(tmp_path_factory.mktemp("scripted") / "wide.gguf", "é€😀")
    with fastgpt_c.load(path) as model:
        yield model


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """Nonsense of an odd n_ctx that depends on every token before."""
    with fastgpt_c.load(write_random_model(tmp_path_factory.mktemp("random") / "nonsense.gguf", n_ctx=23)) as model:
        yield model


def logits_after(model: fastgpt_c.Model, tokens: Sequence[int]) -> np.ndarray:
    """[n_vocab], from scratch."""
    with model.session() as session:
        return session.prefill(tokens)


def greedy(model: fastgpt_c.Model, prompt: fastgpt_c.generation.Prompt, n: int = 10, **options: Any) -> list[int]:
    return model.generate(prompt, max_new_tokens=n, temperature=0, **options).tokens


# ---- Text and tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["a", "the other day", "", "é", [7, 8, 259, 7]], ids=repr)
@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"seed": 1, "temperature": 2.0}, {"temperature": 0, "logit_bias": {130: 1e6}}],
    ids=["greedy", "sampled", "invalid UTF-8"],
)
def test_three_ways_to_the_same_text(random_model: fastgpt_c.Model, prompt: Any, options: dict[str, Any]) -> None:
    """The pieces of stream, joined, are generate().text, which is what its tokens decode to."""
    pieces = list(random_model.stream(prompt, max_new_tokens=9, **options))
    completion = random_model.generate(prompt, max_new_tokens=9, **options)
    assert "".join(pieces) == completion.text == random_model.decode(completion.tokens)
    assert all(pieces)
    assert (completion.finish_reason, len(completion.tokens)) == ("length", 9)


def test_greedy_takes_the_likeliest(random_model: fastgpt_c.Model) -> None:
    """Each token is the argmax of the logits after all before it, computed from scratch."""
    prompt = random_model.encode("some other day")
    tokens = list(prompt)
    for _ in range(9):
        tokens.append(int(logits_after(random_model, tokens).argmax()))
    assert len(set(tokens[-9:])) > 4, "the model is too dull to show anything"
    assert greedy(random_model, "some other day", 9) == tokens[-9:]


def test_the_cache_changes_nothing(random_model: fastgpt_c.Model) -> None:
    """kv_cache=False computes everything anew and gives the same greedy tokens."""
    assert greedy(random_model, "the day", 15, kv_cache=False) == greedy(random_model, "the day", 15)


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


def test_seed(random_model: fastgpt_c.Model) -> None:
    """The same seed draws the same text; a fresh one differs each time, is told, and reproduces its text."""
    first, second = (random_model.generate("a", max_new_tokens=20, temperature=2.0) for _ in range(2))
    assert first.seed != second.seed
    assert first.tokens != second.tokens
    for completion in (first, second):
        again = random_model.generate("a", max_new_tokens=20, temperature=2.0, seed=completion.seed)
        assert (again.tokens, again.text, again.seed) == (completion.tokens, completion.text, completion.seed)


@pytest.mark.parametrize("make", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_a_prompt_of_token_ids(random_model: fastgpt_c.Model, make: Any) -> None:
    """Token ids continue as the text does that they stand for."""
    ids = random_model.encode("the other")
    by_ids, by_text = (random_model.generate(p, max_new_tokens=9, temperature=0) for p in (make(ids), "the other"))
    assert (by_ids.tokens, by_ids.text, by_ids.n_prompt) == (by_text.tokens, by_text.text, len(ids))


@pytest.mark.parametrize("prompt", ["", []], ids=["text", "ids"])
def test_an_empty_prompt_begins_a_text(random_model: fastgpt_c.Model, prompt: Any) -> None:
    """It is the end-of-text token alone, after which a new text begins."""
    assert greedy(random_model, prompt) == greedy(random_model, [EOS])


def test_no_new_tokens(random_model: fastgpt_c.Model) -> None:
    """max_new_tokens=0 is allowed and gives nothing, even behind a prompt that fills the context."""
    completion = random_model.generate([1] * random_model.n_ctx, max_new_tokens=0)
    assert (completion.text, completion.tokens, completion.finish_reason) == ("", [], "length")
    assert list(random_model.stream("a", max_new_tokens=0)) == []


def test_a_model_without_tokenizer(long_model: fastgpt_c.Model) -> None:
    """Token ids in, token ids out; text is refused with a reason, and so is an empty prompt, as it has no eos."""
    completion = long_model.generate([1, 2, 3], max_new_tokens=5, temperature=0)
    assert completion.tokens[0] == int(logits_after(long_model, [1, 2, 3]).argmax())
    assert (len(completion.tokens), completion.text) == (5, "")
    assert list(long_model.stream([1, 2, 3], max_new_tokens=5)) == []
    with pytest.raises(fastgpt_c.ModelFileError, match="no tokenizer"):
        long_model.generate("a")
    with pytest.raises(UsageError, match="empty"):
        long_model.generate([])


@pytest.mark.parametrize("n", range(1, 20))
def test_characters_are_never_halved(wide_characters: fastgpt_c.Model, n: int) -> None:
    """Every piece is whole characters; only where the tokens end within one, the last piece is U+FFFD."""
    text = ("€😀é" * 3).encode()[:n].decode(errors="replace")
    pieces = list(wide_characters.stream("é", max_new_tokens=n))
    assert pieces == list(text)
    assert "\ufffd" not in pieces[:-1]


# ---- What ends it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (("fgh",), "bcde"),
        ("fgh", "bcde"),
        (("f", "fgh"), "bcde"),
        (("fgh", "f"), "bcde"),
        (("efgX", "fg"), "bcde"),
        (("ghi", "fghijk"), "bcdef"),
        (("fgh", "gh"), "bcde"),
        (("b",), ""),
        (("bcdef",), ""),
        (("yza",), "bcdefghijklmnopqrstuvwx"),
    ],
)
def test_stop_strings(alphabet: fastgpt_c.Model, stop: Any, text: str) -> None:
    """The text ends before the stop string that is complete first, and nothing of that is ever shown."""
    stream = alphabet.stream("a", max_new_tokens=40, stop=stop)
    assert "".join(stream) == text
    completion = stream.completion
    assert completion is not None
    assert (completion.text, completion.finish_reason) == (text, "stop")
    seen = alphabet.decode(completion.tokens)
    assert any(seen == text + one for one in ([stop] if isinstance(stop, str) else stop)), "read on after the stop"


@pytest.mark.parametrize("stop", [("fgX",), ("cdefghX", "ghX"), ("a",), ("h1",)])
def test_no_stop_string_holds_nothing_back(alphabet: fastgpt_c.Model, stop: tuple[str, ...]) -> None:
    """What only began like a stop string is shown after all, also when the last token ends in the middle of it."""
    stream = alphabet.stream("a", max_new_tokens=7, stop=stop)
    assert "".join(stream) == "bcdefgh"
    assert stream.finish().finish_reason == "length"


def test_a_stop_string_in_what_is_left(wide_characters: fastgpt_c.Model) -> None:
    """U+FFFD for half a character comes when the tokens have ended; it, too, can be a stop string."""
    completion = wide_characters.generate("é", max_new_tokens=4, stop="\ufffd")
    assert (completion.text, completion.finish_reason) == ("€", "stop")


@pytest.mark.parametrize("seed", range(200))
def test_stop_finder_does_not_see_pieces(seed: int) -> None:
    """However the text is cut, it ends where it would, read letter by letter, before the longest stop string that
    ends first; and nothing shown is ever taken back."""
    rng = np.random.default_rng(seed)

    def word(n_most: int) -> str:
        return "".join(rng.choice(list("ab"), rng.integers(1, n_most + 1)))

    text, stop = word(30), [word(6) for _ in range(rng.integers(1, 4))]
    heads = (text[:end] for end in range(len(text) + 1))
    first = next((head for head in heads if head.endswith(tuple(stop))), None)
    expected = text if first is None else first[: -max(len(one) for one in stop if first.endswith(one))]

    cuts = sorted(rng.integers(0, len(text) + 1, 5))
    finder, shown = StopFinder(stop), ""
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        shown += finder.push(text[begin:end])
        assert expected.startswith(shown)
        if finder.found:
            break
    assert (shown + finder.finish(), finder.found) == (expected, first is not None)


@pytest.mark.parametrize(("n", "reason"), [(2, "length"), (3, "length"), (4, "eos"), (50, "eos")])
def test_end_of_text(short_text: fastgpt_c.Model, n: int, reason: str) -> None:
    """The end-of-text token ends it and is no part of it; what might have become a stop string is shown."""
    completion = short_text.generate("a", max_new_tokens=n, stop="dX")
    assert (completion.text, completion.finish_reason) == ("bcd"[:n], reason)
    assert completion.tokens == short_text.encode("bcd"[:n])


def test_end_of_text_at_once(short_text: fastgpt_c.Model) -> None:
    """It may be the very first token."""
    completion = short_text.generate("d", max_new_tokens=50)
    assert (completion.text, completion.tokens, completion.finish_reason) == ("", [], "eos")


# ---- Logits ------------------------------------------------------------------------------------------------


def test_logit_bias_forbids_and_forces(random_model: fastgpt_c.Model) -> None:
    """-inf bans the likeliest token, so the second comes; a large bias makes one token the likeliest each time."""
    likeliest, second = np.argsort(-logits_after(random_model, [5, 6]))[:2].tolist()
    assert greedy(random_model, [5, 6], 1) == [likeliest]
    assert greedy(random_model, [5, 6], 1, logit_bias={likeliest: -np.inf}) == [second]
    assert likeliest not in random_model.generate([5, 6], max_new_tokens=20, logit_bias={likeliest: -np.inf}).tokens
    assert random_model.generate([5, 6], max_new_tokens=6, logit_bias={42: 1e6}).tokens == [42] * 6


def test_repetition_penalty_counts_the_prompt(random_model: fastgpt_c.Model) -> None:
    """Every token of the prompt and of the text so far is less likely: logits / 2 above zero, logits * 2 below."""
    prompt = [int(logits_after(random_model, [5, 6]).argmax()), 5, 6]
    tokens, differs = list(prompt), False
    for _ in range(12):
        logits = logits_after(random_model, tokens)
        seen = np.unique(tokens)
        penalised = logits.copy()
        penalised[seen] = np.where(logits[seen] > 0, logits[seen] / 2, logits[seen] * 2)
        differs |= bool(logits.argmax() in prompt and penalised.argmax() != logits.argmax())
        tokens.append(int(penalised.argmax()))
    assert differs, "the prompt never mattered"
    assert greedy(random_model, prompt, 12, repetition_penalty=2.0) == tokens[len(prompt) :]


# ---- Overflow ----------------------------------------------------------------------------------------------


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[fastgpt_c.Session]]:
    """Every session that models make from now on."""
    made: list[weakref.ref[fastgpt_c.Session]] = []
    make = fastgpt_c.Model.session

    def session(self: fastgpt_c.Model, *args: Any, **kwargs: Any) -> fastgpt_c.Session:
        new = make(self, *args, **kwargs)
        made.append(weakref.ref(new))
        return new

    monkeypatch.setattr(fastgpt_c.Model, "session", session)
    return made


def test_what_fits_is_not_overflow(random_model: fastgpt_c.Model) -> None:
    """Up to n_ctx in all, the three ways are one."""
    prompt = list(range(10))
    one, two, three = (greedy(random_model, prompt, random_model.n_ctx - 10, on_overflow=m) for m in OVERFLOW_MODES)
    assert len(one) == random_model.n_ctx - 10
    assert one == two == three


@pytest.mark.parametrize("n_prompt", [10, 23, 30])
def test_overflow_error(random_model: fastgpt_c.Model, sessions: list[Any], n_prompt: int) -> None:
    """One token too many is refused before anything is computed, with all three numbers."""
    n_new = max(random_model.n_ctx - n_prompt + 1, 1)
    with pytest.raises(ContextFullError, match=rf"{n_prompt} .* {n_new} .* {random_model.n_ctx}"):
        random_model.stream([1] * n_prompt, max_new_tokens=n_new)
    assert not sessions


@pytest.mark.parametrize("n_prompt", [18, 23, 40])
def test_overflow_truncate(random_model: fastgpt_c.Model, n_prompt: int) -> None:
    """As if the prompt had only its newest tokens, as many as leave room for max_new_tokens."""
    prompt = np.random.default_rng(n_prompt).integers(0, EOS, n_prompt).tolist()
    completion = random_model.generate(prompt, max_new_tokens=8, temperature=0, on_overflow="truncate")
    assert completion.tokens == greedy(random_model, prompt[-15:], 8)
    assert (completion.n_prompt, len(completion.tokens)) == (15, 8)


@pytest.mark.parametrize("n_new", [23, 24, 1000])
def test_truncate_leaves_something_of_the_prompt(random_model: fastgpt_c.Model, n_new: int) -> None:
    """max_new_tokens alone fill the context: no prompt is short enough."""
    with pytest.raises(ContextFullError):
        random_model.stream([1, 2], max_new_tokens=n_new, on_overflow="truncate")


@pytest.mark.parametrize("n_prompt", [1, 22, 23, 24, 60])
@pytest.mark.parametrize("kv_cache", [True, False])
def test_overflow_slide(random_model: fastgpt_c.Model, n_prompt: int, kv_cache: bool) -> None:
    """More tokens than n_ctx: each is the likeliest after a window that, when full, loses its older half."""
    n_ctx, n_new = random_model.n_ctx, 60
    prompt = np.random.default_rng(n_prompt).integers(0, EOS, n_prompt).tolist()
    window, expected = list(prompt), []
    for _ in range(n_new):
        if len(window) > n_ctx:
            window = window[-(n_ctx // 2) :]
        logits = logits_after(random_model, window)
        logits[EOS] = -np.inf
        expected.append(int(logits.argmax()))
        window.append(expected[-1])
    options: dict[str, Any] = {"on_overflow": "slide", "logit_bias": {EOS: -np.inf}, "kv_cache": kv_cache}
    assert greedy(random_model, prompt, n_new, **options) == expected


# ---- Reading, interrupting, walking away -------------------------------------------------------------------


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


def test_ctrl_c_at_any_moment(random_model: fastgpt_c.Model, keyboard: None) -> None:
    """Wherever it strikes, the session is neither stuck nor lost: it goes on with the right text, and closes."""
    expected, rng = greedy(random_model, "the day", 15), np.random.default_rng(0)
    endless = fastgpt_c.Options(max_new_tokens=10**9, on_overflow="slide", logit_bias={EOS: -np.inf})
    short = fastgpt_c.Options(max_new_tokens=15, temperature=0)
    with random_model.session() as session:
        reader = Reader(session)
        for _ in range(1000):
            with pytest.raises(KeyboardInterrupt):
                press_ctrl_c_in(rng.uniform(1e-5, 2e-3), again_after=0.2)
                TextGeneration(random_model, "a", endless, reader).finish()
            press_ctrl_c_in(0)
            assert TextGeneration(random_model, "the day", short, reader).finish().tokens == expected


def test_a_piece_comes_as_soon_as_it_is_known(alphabet: fastgpt_c.Model, sessions: list[Any]) -> None:
    """The first one is there when nothing but the prompt has been read."""
    stream = alphabet.stream("xyz", max_new_tokens=50)
    assert not sessions, "work began before anybody asked"
    assert next(stream) == "a"
    assert sessions[0]().n_past == 3


def test_finish_goes_on_where_iteration_stopped(alphabet: fastgpt_c.Model) -> None:
    """Some pieces by hand, the rest at once: the completion has all."""
    stream = alphabet.stream("a", max_new_tokens=5)
    assert [next(stream), next(stream)] == ["b", "c"]
    assert stream.completion is None
    assert stream.finish().text == "bcdef"
    assert list(stream) == []


def test_walking_away_frees_the_session(alphabet: fastgpt_c.Model, sessions: list[Any]) -> None:
    """A stream that nobody holds any more gives its cache back at once, without the garbage collector."""
    gc.disable()
    try:
        for piece in alphabet.stream("a", max_new_tokens=50):
            assert piece == "b"
            break
        stream = alphabet.stream("a", max_new_tokens=50)
        next(stream)
        assert sessions[1]() is not None
        del stream
        alphabet.generate("a", max_new_tokens=5)
        assert [session() for session in sessions] == [None] * 3
    finally:
        gc.enable()


def test_an_interrupted_generation_has_no_completion(
    alphabet: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a step comes out of the stream, which then has ended, and finish says so."""
    stream = alphabet.stream("a", max_new_tokens=50)
    next(stream)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fastgpt_c.Session, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    with pytest.raises(UsageError, match="interrupted"):
        stream.finish()


# ---- Wrong usage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"on_overflow": "wrap"}, "on_overflow is 'wrap'.*error, truncate, slide"),
        ({"stop": ""}, "stop string is empty"),
        ({"stop": ("a", "")}, "stop string is empty"),
        ({"temperature": -0.5}, "temperature.*-0.5"),
        ({"temperature": float("nan")}, "temperature.*nan"),
        ({"temperature": "hot"}, "temperature.*hot"),
        ({"top_k": -1}, "top_k.*-1"),
        ({"top_p": 1.5}, "top_p.*1.5"),
        ({"min_p": -0.1}, "min_p.*-0.1"),
        ({"repetition_penalty": -1.5}, "repetition_penalty.*-1.5"),
        ({"seed": -1}, "seed.*-1"),
        ({"seed": 2**64}, "seed"),
        ({"logit_bias": {N_VOCAB: 1.0}}, rf"logit_bias 1.0 of token {N_VOCAB}"),
        ({"logit_bias": {0: float("inf")}}, "logit_bias inf of token 0"),
    ],
    ids=repr,
)
def test_bad_options_are_named(random_model: fastgpt_c.Model, options: dict[str, Any], named: str) -> None:
    """A UsageError that names the option and its value, before any work."""
    with pytest.raises(UsageError, match=named):
        random_model.stream("a", **{"max_new_tokens": 1} | options)


def test_unknown_options_are_refused(random_model: fastgpt_c.Model) -> None:
    """A misspelt keyword is an error, not a default."""
    with pytest.raises(TypeError, match="temprature"):
        random_model.stream("a", temprature=0)


@pytest.mark.parametrize("prompt", [[N_VOCAB], [-1], [[1, 2]], [0.5], 7], ids=repr)
def test_bad_prompts_are_refused(random_model: fastgpt_c.Model, prompt: Any) -> None:
    """Token ids out of range, or no row of token ids."""
    with pytest.raises(UsageError):
        random_model.stream(prompt, max_new_tokens=1)
