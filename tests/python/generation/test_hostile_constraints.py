"""Constraints from strangers: whatever they are, the process lives, and a UsageError names what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

import pytest
from scripted import N_VOCAB

import fastgpt_c
from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.generation import constraints
from fastgpt_c.generation.large_stack import call_with_stack

SMALL_STACK = 1 << 17  # bytes: what threads get on the smallest of systems

# A stack that overflows ends the process, so this is one of its own.  Its thread has a small stack, for masks, too.
PROGRAM = f"""
import json, sys, threading, fastgpt_c
model = fastgpt_c.load(n_threads=1)

def show():
    for options in json.load(sys.stdin):
        try:
            model.generate("a", max_new_tokens=3, **options)
            print("a text", flush=True)
        except fastgpt_c.UsageError as error:
            print("UsageError", str(error).splitlines()[0], flush=True)

threading.stack_size({SMALL_STACK})
thread = threading.Thread(target=show)
thread.start()
thread.join()
"""


def outcomes(*options: dict[str, Any]) -> list[str]:
    """What became of a text under each of these options, in a thread with a small stack."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(options), capture_output=True, text=True, cwd="/"
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout.splitlines()


def rules(n: int, body: str, name: str = "r") -> dict[str, Any]:
    """A grammar of n rules, each of which has the next one where body has NEXT."""
    lines = [f"{name}{i}: " + body.replace("NEXT", f"{name}{i + 1}") for i in range(n)]
    return {"grammar": "\n".join([f"start: {name}0", *lines, f'{name}{n}: "a"'])}


def references(n: int, schema: str) -> dict[str, Any]:
    """A schema of n definitions, each of which refers to the next one where schema has NEXT."""
    parts = {f"r{i}": json.loads(schema.replace("NEXT", f'{{"$ref": "#/$defs/r{i + 1}"}}')) for i in range(n)}
    return {"json_schema": json.dumps({"$defs": {**parts, f"r{n}": {}}, "$ref": "#/$defs/r0"})}


CHAINS = [
    ("NEXT", rules), ('"a" NEXT', rules), ('NEXT "b"', rules), ("(NEXT)", rules),
    ('NEXT "b"', lambda n, body: rules(n, body, "R")), ('"a" (NEXT | "b")?', lambda n, body: rules(n, body, "R")),
    ("NEXT", references), ('{"items": NEXT}', references), ('{"allOf": [NEXT, {"type": "object"}]}', references),
    ('{"type": "object", "properties": {"a": NEXT}, "required": ["a"]}', references),
]  # fmt: skip


def test_chains_up_to_the_limit_run_and_longer_ones_are_refused() -> None:
    """Of rules, terminals and references; a level takes up to 4 KB of stack."""
    n = constraints.MOST_RULES
    assert outcomes(*(make(n // 4, body) for body, make in CHAINS)) == ["a text"] * len(CHAINS)
    for line in outcomes(*(make(n, body) for body, make in CHAINS)):
        assert line.startswith("UsageError ") and f"more than {n:,} are not compiled" in line


def test_a_chain_that_nobody_counts_has_stack_enough() -> None:
    """References of a schema inside a grammar, as many as fit into one."""
    schema = references(2500, '{"items": NEXT}')["json_schema"]
    (line,) = outcomes({"grammar": f"start: %json {schema}"})
    assert line.startswith(("a text", "UsageError grammar: "))


def test_nothing_short_needs_a_large_stack() -> None:
    """Repetitions, and as much nesting as the parsers of llguidance take."""
    deepest = "{" + '"items": {' * (constraints.MOST_NESTED - 1) + "}" * constraints.MOST_NESTED
    constant = json.dumps({"const": json.loads("[" * 119 + "]" * 119)})
    accepted = [
        {"regex": "(" * 80 + "a" + ")?" * 80},
        {"regex": "(a?b){1000}"},
        {"regex": "a(b|c)?" * 500},
        {"regex": "a?" * 50},
        {"grammar": 'start: "a"{1000}'},
        {"json_schema": deepest},
        {"json_schema": constant},
        {"json_schema": '{"type": "array", "items": {"type": "integer"}, "minItems": 1000}'},
    ]
    refused = [
        {"regex": "(" * 100_000},
        {"grammar": "start: " + "(" * 100_000},
        {"json_schema": "[" * 100_000},
        {"json_schema": '{"a":' * 100_000},
    ]
    lines = outcomes(*accepted, *refused)
    assert lines[: len(accepted)] == ["a text"] * len(accepted)
    for line, options in zip(lines[len(accepted) :], refused, strict=True):
        assert line.startswith(f"UsageError {next(iter(options))}")


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"json_schema": nested(70)}, "^json_schema: /properties/a/.*deeper than 120"),
        ({"json_schema": json.dumps(nested(70))}, "^json_schema: .*deeper than 120"),
        ({"json_schema": {"properties": {"a": {"const": float("nan")}}}}, "^json_schema: /properties/a/const is NaN"),
        ({"json_schema": '{"enum": [1, NaN]}'}, "^json_schema: /enum/1 is NaN"),
        ({"json_schema": '{"maximum": 1e999}'}, "^json_schema: /maximum is infinite or beyond"),
        ({"json_schema": {"minimum": -(10**400)}}, "^json_schema: /minimum is infinite or beyond"),
        ({"json_schema": {"const": 10**5000}}, "^json_schema is not JSON: .*digits"),
        ({"json_schema": {"const": "\ud800"}}, r"^json_schema: /const: character 0 is U\+D800"),
        ({"json_schema": r'{"const": "a\udfff"}'}, r"^json_schema: /const: character 1 is U\+DFFF"),
        ({"json_schema": '{"const": "\ud800"}'}, r"^json_schema: character 11 is U\+D800"),
        ({"json_schema": {"properties": {"\ud800": {}}}}, r"^json_schema: a key of /properties: .*U\+D800"),
        ({"json_schema": 3}, "^json_schema is 3, not a JSON schema"),
        ({"regex": "a\ud800"}, r"^regex: character 1 is U\+D800"),
        ({"grammar": 'start: "\udc80"'}, r"^grammar: character 8 is U\+DC80"),
        ({"regex": b"a"}, "^regex is b'a', not text"),
        ({"grammar": 3}, "^grammar is 3, not text"),
        ({"regex": "a" * (constraints.MOST_BYTES + 1)}, "^regex has 524,289 bytes; more than"),
        ({"json_schema": json.dumps({"const": "a" * constraints.MOST_BYTES})}, "^json_schema has 524,.* bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_is_refused_is_named(random_model: fastgpt_c.Model, options: dict[str, Any], named: str) -> None:
    """The constraint and its part; never another exception."""
    with pytest.raises(UsageError, match=f"(?s){named}"):
        random_model.stream([5], max_new_tokens=9, **options)


def test_messages_are_short(random_model: fastgpt_c.Model) -> None:
    """llguidance's repeat the constraint."""
    with pytest.raises(UsageError) as info:
        random_model.stream([5], max_new_tokens=9, regex="(" + "a" * 100_000)
    assert len(str(info.value)) < 1100


# ---- The large stack -----------------------------------------------------------------------------------------


def test_a_call_on_a_large_stack_is_a_call() -> None:
    """It returns and raises as it is; the process's setting for new threads stays."""
    before = threading.stack_size()
    assert call_with_stack(1, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        call_with_stack(5 << 20, lambda: 1 / 0)
    assert threading.stack_size() == before


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_threads_the_main_thread_compiles(
    random_model: fastgpt_c.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its stack is large enough; what it is not large enough for is an error with a name."""
    monkeypatch.setattr(constraints, "_STACK_BYTES", 1 << 20)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert random_model.generate([5], regex="[a-h]{3}", max_new_tokens=9, logit_bias={0: -N_VOCAB}).text
    with pytest.raises(FastGPTError, match=r"^regex: no thread with a stack of .* bytes: can't start"):
        monkeypatch.setattr("fastgpt_c.generation.large_stack._main_thread_has", lambda n_bytes: False)
        random_model.generate([5], regex="[a-h]{3}", max_new_tokens=9)
