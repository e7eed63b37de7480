"""What an editor, a type checker and help() see of the package: names, types, one line for each option, short reprs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import pytest
from paths import ROOT

import fastgpt_c
from fastgpt_c import Batch, Beams, Completion, Model, Options, Reader, Request, Sampler, Sampling
from fastgpt_c.engine.control_vector import ControlVector
from fastgpt_c.engine.model import LoadedModel
from fastgpt_c.engine.sampler import AdjustmentKeywords, Adjustments, SamplingKeywords
from fastgpt_c.errors import UsageError
from fastgpt_c.generation.beam_search import BeamKeywords
from fastgpt_c.generation.options import BatchKeywords, LogitsProcessor, OptionKeywords, RequestKeywords
from fastgpt_c.native.arguments import OPTIONS, Kind, checked

KEYWORDS: list[tuple[Any, Any]] = [
    (AdjustmentKeywords, Adjustments), (SamplingKeywords, Sampling), (OptionKeywords, Options), (BeamKeywords, Beams),
]  # fmt: skip


# ---- Types ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keywords", "options"), KEYWORDS)
def test_keywords_are_the_fields_of_the_dataclass(keywords: Any, options: Any) -> None:
    """In the same words, so that a type checker says of a keyword what it says of the field."""
    types = {name: hint.__forward_arg__ for name, hint in keywords.__annotations__.items()}
    assert types == {field.name: field.type for field in fields(options)}


def test_keywords_of_batches_leave_out_what_batches_refuse(alphabet_model: Model) -> None:
    names = set(OptionKeywords.__annotations__)
    for name in names - set(BatchKeywords.__annotations__):
        value = {"prompt_lookup": 2, "draft": alphabet_model, "penalty_alpha": 0.5, "logits_processor": len}
        given = {name: value.get(name, "text")} | ({"top_k": 4} if name == "penalty_alpha" else {})
        with pytest.raises(UsageError, match=f"{name} works for one text at a time"):
            alphabet_model.generate_batch(["a"], Options(**given))
    for name in names - set(RequestKeywords.__annotations__) - (names - set(BatchKeywords.__annotations__)):
        with pytest.raises(UsageError, match=f"{name} is no option of a single prompt"):
            Request("a", **{name: 1})


# A value of each type that annotations of options name, and which of these a Python value is.
PROBES: list[Any] = [True, 1, 0.5, "f32", "error", "never", None, {0: 1.0}, ["a"], len]
TYPES: dict[Any, set[type]] = {
    bool: {bool}, int: {int}, float: {int, float}, str: {str}, NoneType: {NoneType}, Mapping: {dict},
    Iterable: {list}, Callable: {type(len)}, LoadedModel: {Model}, ControlVector: {ControlVector},
}  # fmt: skip


@pytest.mark.parametrize("name", list(OPTIONS))
def test_the_table_takes_the_types_of_the_annotation(name: str, alphabet_model: Model) -> None:
    """No more and no fewer: what a type checker lets pass and what runs are one thing."""
    keywords: Any = BeamKeywords if name in BeamKeywords.__annotations__ else OptionKeywords
    names = {
        "LoadedModel": LoadedModel,
        "ControlVector": ControlVector,
        "Mapping": Mapping,
        "Iterable": Iterable,
        "Any": Any,
        "Floats": Any,
    }
    names |= {"LogitsProcessor": Callable[[Sequence[int], Any], Any]}
    hint = eval(keywords.__annotations__[name].__forward_arg__, names)
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    said = set().union(*(TYPES[typing.get_origin(part) or part] for part in parts))
    taken = set()
    for value in [*PROBES, alphabet_model, ControlVector({0: [1.0]})]:
        try:
            checked(name, value)
        except UsageError:
            continue
        taken.add(type(value))
    assert taken == said


def test_all_options_stand_in_one_table() -> None:
    assert {*OptionKeywords.__annotations__, *BeamKeywords.__annotations__} == set(OPTIONS)
    assert all(isinstance(kind, Kind) for kind in OPTIONS.values())


@pytest.mark.parametrize("function", [Model.generate, Model.stream, Sampler.__init__, Request.__init__])
def test_annotations_evaluate_on_every_python(function: Any) -> None:
    """As documentation tools do; Python 3.10 has no typing.Unpack."""
    outside = {"LoadedModel": LoadedModel, "ControlVector": ControlVector, "LogitsProcessor": LogitsProcessor}
    assert "changes" in typing.get_type_hints(function, localns=outside)


SNIPPET = """\
import fastgpt_c

model = fastgpt_c.load()
model.generate("x", max_new_tokens=5, temperature=0.7, stop=["."], logprobs=2)
model.stream("x", fastgpt_c.Options(temperature=0.5), seed=7)
model.generate_batch(["x", fastgpt_c.Request("y", n=2, seed=1)], n=2, top_k=4)
model.beam_search("x", num_beams=2)
fastgpt_c.Sampler(5, temperature=0)
"""

# Each a line that must not pass, and what the message names.
WRONG = {
    'model.generate("x", max_tokens=5)': "max_tokens",
    'model.generate("x", temperature="hot")': "temperature",
    'model.stream("x", top_k=0.5)': "top_k",
    'model.generate_batch(["x"], prompt_lookup=2)': "prompt_lookup",
    'model.stream_batch(["x"], max_btach=3)': "max_btach",
    'model.beam_search("x", beam_count=3)': "beam_count",
    'fastgpt_c.Request("x", kv_type="f16")': "kv_type",
    "fastgpt_c.Options(max_tokens=5)": "max_tokens",
    'fastgpt_c.Options(stop="a", n_threads="2")': "n_threads",
    "fastgpt_c.Sampler(5, temp=1)": "temp",
}


def test_a_type_checker_rejects_wrong_options(tmp_path: Path) -> None:
    """mypy --strict on a program of a user: right lines pass, and each wrong one is an error by name."""
    pytest.importorskip("mypy", reason="pip install mypy")
    program, n_right = tmp_path / "program.py", len(SNIPPET.splitlines())
    program.write_text(SNIPPET + "\n".join(WRONG) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), str(program)]
    command += ["--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    errors = dict(re.findall(r"^program\.py:(\d+): error: (.*)$", done.stdout, re.M))
    assert set(errors) == {str(n_right + i) for i in range(1, len(WRONG) + 1)}, done.stdout + done.stderr
    for i, name in enumerate(WRONG.values(), n_right + 1):
        assert name in errors[str(i)]


# ---- Names and help ------------------------------------------------------------------------------------------


def test_all_names_are_there_and_documented() -> None:
    assert sorted({*fastgpt_c.__all__}) == sorted(fastgpt_c.__all__) == dir(fastgpt_c)  # ruff keeps their order
    for name in fastgpt_c.__all__:
        public = getattr(fastgpt_c, name)
        assert name == "__version__" or inspect.getdoc(public) or name == "LogitsProcessor", name
        if inspect.isclass(public):
            for method, value in vars(public).items():
                if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    assert inspect.getdoc(value), f"{name}.{method}"


def test_help_of_generate_lists_each_option_with_its_default() -> None:
    """A line each; the value in the brackets at its end is the dataclass's default."""
    listed = re.findall(r"^ {4}(\w+)  +\S.*\((.+)\)$", inspect.getdoc(Model.generate) or "", re.M)
    assert len(listed) == len(fields(Options))
    for name, default in listed:
        value = () if default == "none" else eval(default)
        assert getattr(Options, name) == value, name
    assert {name for name, _ in listed} == {field.name for field in fields(Options)}


def test_help_of_dataclasses_lists_each_field() -> None:
    for options in (Adjustments, Sampling, Options, Beams):
        own = [name for name in vars(options)["__annotations__"] if name != "mirostat_eta"]
        for name in own:
            assert re.search(rf"^\W*(\w+, )*{name}\b", inspect.getdoc(options) or "", re.M), name


# ---- What objects say of themselves --------------------------------------------------------------------------


def test_objects_print_what_one_wants_to_know(alphabet_model: Model) -> None:
    """In one line, whatever they hold."""
    model = alphabet_model
    with model.session(n_ctx=16, n_threads=2) as session, session.profile() as profile:
        session.prefill([1, 2, 3])
        assert repr(session) == "Session(n_past=3 of 16, kv_type='f32', 2 threads)"
        assert repr(Reader(session)) == f"Reader({session!r})"
    assert repr(session) == "Session(closed)"
    assert re.fullmatch(r"Profile\(prefill: 3 tokens in 1 step, \d+\.\d{3} ms\)", repr(profile))
    assert repr(model.session(kv_type="f16", n_threads=1, deterministic=True)).endswith(
        "kv_type='f16', 1 thread, deterministic)"
    )
    assert re.fullmatch(r"Model\('.*', F32, [\d,]+ parameters, n_layer=\d+, n_embd=\d+, n_ctx=\d+\)", repr(model))
    assert repr(Options(max_new_tokens=5, stop="a")) == "Options(max_new_tokens=5, stop=('a',))"
    assert repr(Options()) == "Options()"
    assert repr(Beams(num_beams=2)) == "Beams(num_beams=2)"
    assert repr(Sampler(5, temperature=0, seed=7)) == "Sampler(5, Sampling(temperature=0, seed=7))"
    assert repr(Request("Once", seed=7)) == "Request('Once', seed=7)"
    assert repr(Request([1, 2], n=3)) == "Request([1, 2], n=3)"
    assert repr(Batch(model, Options(), max_batch=2)) == f"Batch({model!r}, Options(), max_batch=2)"
    completion = Completion("a text " * 99, [1] * 99, "length", 3, 7, 0.0, 0.0)
    assert re.fullmatch(
        r"Completion\('a text.*\.\.\..*', 99 tokens, finish_reason='length', n_prompt=3, seed=7\)", repr(completion)
    )
    assert re.fullmatch(r"TokenScores\(3 tokens, 2 scored, total=\S+, top_k=2\)", repr(model.score("abc", top_k=2)))
    stream = model.stream("ab", max_new_tokens=2)
    assert repr(stream) == "TextGeneration('ab', not at its end)"
    assert repr(stream.finish()) in repr(stream)
