"""Wrong kinds of arguments: a UsageError with the option's name, what was given and what is allowed; nothing else."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import fastgpt_c
from fastgpt_c import (
    BatchError,
    Beams,
    Completion,
    FastGPTError,
    Options,
    Reader,
    Request,
    Sampler,
    Sampling,
    UsageError,
)
from fastgpt_c.native.arguments import OPTIONS, Kind
from fastgpt_c.native.lib import ffi, lib

# Of every kind that somebody might give by mistake; each option takes some of them.
VALUES: list[Any] = [
    None, True, np.True_, 0, 1, -1, 2**31, 2**64, np.int64(1), np.uint8(2), 0.5, np.float32(0.5), float("nan"),
    float("inf"), -float("inf"), 10**400, Decimal("2.5"), Fraction(1, 2), 1j, "", "hot", b"hot", "f32", [], ["a"],
    [1], (None,), {}, {"a": 1}, {0: "b"}, {0: float("nan")}, {True: 1}, {1.5: 1}, object(), int, len, lambda: None,
    np.zeros(3), np.zeros(()), iter(["a"]), range(3), slice(3),
]  # fmt: skip


@pytest.mark.parametrize("name", list(OPTIONS))
def test_any_value_is_kept_or_refused_by_name(name: str) -> None:
    """No other error, no hang; and what is kept is one of a few plain types."""
    cls = Beams if name in ("num_beams", "length_penalty", "early_stopping") else Options
    for value in VALUES:
        try:
            kept = getattr(cls(**{name: value, **({"top_k": 4} if name == "penalty_alpha" else {})}), name)
        except UsageError as error:
            assert name in str(error) or "stop string" in str(error), (value, error)
        else:
            assert kept is None or type(kept) in (int, float, bool, str, tuple, dict) or callable(kept), (value, kept)
            assert not (isinstance(value, bool | np.bool_) and not isinstance(kept, bool)), (value, kept)


def test_every_option_is_in_the_table() -> None:
    for cls in (Options, Beams, Sampling):
        assert {field.name for field in fields(cls)} <= set(OPTIONS)
    assert all(isinstance(kind, Kind) for kind in OPTIONS.values())


def test_the_table_has_the_ranges_of_the_library() -> None:
    """What the table allows at its ends the library takes; what is just outside both refuse."""
    for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "mirostat_tau", "mirostat_eta",
                 "repetition_penalty", "frequency_penalty", "presence_penalty", "no_repeat_ngram_size"):  # fmt: skip
        for value in (-2e6, -1e6, -1, 0, 1, 2, 1e6, 2e6):
            params = ffi.new("fastgpt_sampler_params *", {"struct_size": ffi.sizeof("fastgpt_sampler_params")})
            is_count = isinstance(getattr(params, name), int)
            setattr(params, name, int(value) if is_count else value)
            out = ffi.new("fastgpt_sampler **")
            taken = lib.fastgpt_sampler_create(5, params, out) == lib.FASTGPT_OK
            lib.fastgpt_sampler_free(out[0])
            try:
                Sampling(**{name: int(value) if is_count else value})
            except UsageError:
                assert not taken, (name, value)
            else:
                assert taken, (name, value)


def test_numpy_numbers_are_numbers() -> None:
    options = Options(max_new_tokens=np.int64(3), temperature=np.float32(0.5), top_k=np.uint8(4), seed=np.uint64(2**63))
    assert (options.max_new_tokens, options.temperature, options.top_k, options.seed) == (3, 0.5, 4, 2**63)
    assert {type(options.max_new_tokens), type(options.temperature)} == {int, float}


@pytest.mark.parametrize("stop", [["b"], ("b",), "b", {"b"}, iter(["b"]), map(str.strip, [" b "]), (s for s in "b")])
def test_stop_strings_are_read_once(stop: Any) -> None:
    """Whatever iterable they are in: what checks them does not use them up."""
    assert Options(stop=stop).stop == ("b",)
    assert Options(stop=None).stop == Options().stop == ()


def test_options_may_be_a_dict(alphabet_model: fastgpt_c.Model) -> None:
    plain = alphabet_model.generate("a", max_new_tokens=3, temperature=0)
    assert alphabet_model.generate("a", {"max_new_tokens": 3}, temperature=0).tokens == plain.tokens
    assert alphabet_model.generate("a", options={"max_new_tokens": 3, "temperature": 0}).tokens == plain.tokens


@pytest.mark.parametrize(
    "options",
    [5, "fast", Sampling(), ["max_new_tokens"], {5: 6}, Beams()],
    ids=lambda value: repr(value).partition(" object at ")[0],
)
def test_options_of_another_kind_are_refused(alphabet_model: fastgpt_c.Model, options: Any) -> None:
    for call in (alphabet_model.generate, alphabet_model.stream, alphabet_model.generate_batch):
        with pytest.raises(UsageError, match=r"options is .*, not Options or a dict"):
            call("a", options)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("temprature", "temperature"), ("max_tokens", "max_new_tokens"), ("stops", "stop"), ("topk", "top_k")],
)
def test_the_nearest_name_is_told(alphabet_model: fastgpt_c.Model, wrong: str, right: str) -> None:
    calls: list[Callable[..., object]] = [
        lambda **given: Options(**given),
        lambda **given: alphabet_model.generate("a", **given),
        lambda **given: alphabet_model.generate("a", given),
        lambda **given: alphabet_model.generate_batch(["a"], **given),
        lambda **given: Request("a", **given),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=f"{wrong} is no option of .*: did you mean {right}"):
            call(**{wrong: 1})
    with pytest.raises(UsageError, match="beams is 4, not Beams or a dict"):
        alphabet_model.beam_search("a", beams=4)
    with pytest.raises(UsageError, match="bams is no option of Beams: did you mean num_beams"):
        alphabet_model.beam_search("a", bams=4)


@pytest.mark.parametrize(
    "prompts",
    ["Once", "", b"Once", Request("a"), None, 5, {"a": 1}],
    ids=lambda value: repr(value).partition(" object at ")[0],
)
def test_one_prompt_is_no_batch(alphabet_model: fastgpt_c.Model, prompts: Any) -> None:
    """A text is not run letter by letter."""
    for call in (alphabet_model.generate_batch, alphabet_model.stream_batch):
        with pytest.raises(UsageError, match="not a list of prompts"):
            call(prompts)


@pytest.mark.parametrize(
    "prompt",
    [["a", "b"], None, 5, [[1], [2, 3]], {"a": 1}, [1.5], [True], object()],
    ids=lambda value: repr(value).partition(" object at ")[0],
)
def test_a_prompt_of_another_kind_is_refused(alphabet_model: fastgpt_c.Model, prompt: Any) -> None:
    calls = (alphabet_model.generate, alphabet_model.stream, alphabet_model.beam_search, alphabet_model.score)
    for call in (*calls, alphabet_model.embed):
        with pytest.raises(UsageError, match=r"prompt is .*(more than one text|not text)"):
            call(prompt)


def test_a_bad_request_is_an_error_in_its_place(alphabet_model: fastgpt_c.Model) -> None:
    """The others are not held up, whatever is wrong with it."""
    bad: list[Any] = [
        Request("a", temperature="hot"), Request("a", max_new_tokens=Decimal("2.5")), Request("a", stop=[1]),
        Request("a", max_new_tokens=float("inf"), on_overflow="slide"), Request("a", logit_bias=5), Request(None),
        Request("a", logit_bias={10**9: 1.0}), None, 5, ["a", "b"], object(),
    ]  # fmt: skip
    prompts = [prompt for one in bad for prompt in (one, "a")]
    with pytest.raises(BatchError) as error:
        alphabet_model.generate_batch(prompts, max_new_tokens=2)
    kinds = [type(result) for result in error.value.results]
    assert kinds == [UsageError, Completion] * len(bad)


def test_a_session_is_a_reader(alphabet_model: fastgpt_c.Model) -> None:
    """What it holds of the prompt is not read again; afterwards it holds the text."""
    options: dict[str, Any] = {"max_new_tokens": 3, "temperature": 0}
    with alphabet_model.session() as session:
        session.prefill(alphabet_model.encode("ab"))
        found = alphabet_model.generate("abc", reader=session, **options)
        assert found.n_reused == 2
        assert session.tokens.tolist() == [*alphabet_model.encode("abc"), *found.tokens][: session.n_past]
        again = alphabet_model.generate("abc", reader=Reader(session), **options)
    assert found.tokens == again.tokens == alphabet_model.generate("abc", **options).tokens
    with pytest.raises(UsageError, match="reader is 5, not a Session"):
        alphabet_model.generate("a", reader=5)
    with pytest.raises(UsageError, match="closed"):
        alphabet_model.generate("a", reader=session)


def test_other_arguments_of_another_kind_are_refused(alphabet_model: fastgpt_c.Model) -> None:
    model, session, sampler = alphabet_model, alphabet_model.session(), Sampler(alphabet_model.n_vocab)
    wrong: Any = "wrong"
    logits = np.zeros(model.n_vocab, np.float32)
    calls: list[Callable[[], object]] = [
        lambda: session.sample(wrong, logits), lambda: session.sample(sampler, wrong), lambda: sampler.sample(wrong),
        lambda: sampler.allow(wrong), lambda: sampler.allow_mask(wrong), lambda: sampler.accept(wrong),
        lambda: session.decode(True), lambda: session.decode(wrong), lambda: session.prefill([[1], [2, 3]]),
        lambda: session.unembed(wrong), lambda: session.truncate(1.5), lambda: model.session(n_ctx=wrong),
        lambda: model.session(n_ctx=False), lambda: model.session(n_threads=wrong), lambda: model.session(kv_type=3),
        lambda: model.encode(5), lambda: model.decode(5), lambda: model.decode("ab"), lambda: model.decode([0.5]),
        lambda: model.score("ab", top_k="3"), lambda: model.generate_batch(["a"], max_batch="3"),
        lambda: fastgpt_c.load(5), lambda: fastgpt_c.load(n_threads="2"),
        lambda: fastgpt_c.Tokenizer([5], []).encode("a"),
        lambda: Sampler(wrong), lambda: Sampler(5, wrong), lambda: model.generate("a", draft=wrong),
        lambda: model.generate("a", logits_processor=[len]), lambda: model.generate("a", regex=5),
        lambda: model.generate("a", json_schema=[5]), lambda: Options(5),
    ]  # fmt: skip
    for i, call in enumerate(calls):
        with pytest.raises(UsageError):
            call()
            pytest.fail(f"call {i} passed")


def test_a_page_is_written_to_a_path_or_its_text(alphabet_model: fastgpt_c.Model, tmp_path: Any) -> None:
    with alphabet_model.session() as session, session.profile() as profile:
        session.prefill([1, 2])
    profile.write_html(str(tmp_path / "profile.html"))
    profile.write_trace(str(tmp_path / "trace.json"))
    assert (tmp_path / "profile.html").stat().st_size and (tmp_path / "trace.json").stat().st_size
    with pytest.raises(UsageError, match="path is 5"):
        profile.write_html(5)  # type: ignore[arg-type]


# What exceptions are made of, where that is not a text.
ARGUMENTS: dict[str, tuple[Any, ...]] = {"BatchError": ([UsageError("no"), "a text"],), "HTTPError": (400, "words")}


def test_every_exception_goes_through_pickle_and_copy() -> None:
    """As it must to come out of a process of a pool."""
    found: list[Exception] = []
    for module in pkgutil.walk_packages(fastgpt_c.__path__, "fastgpt_c."):
        if module.name.endswith("__main__"):
            continue
        try:
            members = vars(importlib.import_module(module.name)).values()
        except (ImportError, FastGPTError):
            continue  # of a package that is not installed
        found += [
            kind(*ARGUMENTS.get(kind.__name__, ("words",)))
            for kind in members
            if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == module.name
        ]
    assert {type(error).__name__ for error in found} >= {"BatchError", "UsageError", "LineError", "Cancelled"}
    for error in found:
        for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert type(other) is type(error)
            assert str(other) == str(error)
            assert vars(other).keys() == vars(error).keys()


def test_options_go_through_pickle_and_copy() -> None:
    options = Options(max_new_tokens=3, stop=["a"], logit_bias={5: -1})
    assert pickle.loads(pickle.dumps(options)) == copy.copy(options) == copy.deepcopy(options) == options
