"""Exports of profiles: report, trace, tables and page say the same; the command that writes them."""

from __future__ import annotations

import html
import importlib.resources
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from browser import opened
from command import FAILURE, WRONG_USAGE, assert_complains, output_of, run
from profiles import ROOFLINE, profiled, write_source

import fastgpt_c
from fastgpt_c.profiling import machine, report, trace
from fastgpt_c.profiling.profile import Profile

LAYER_OPS = ["ln_1", "qkv", "attention", "attn_proj", "ln_2", "fc", "gelu", "proj"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def example(source: Path) -> Profile:
    """40 tokens at once, then 12 tokens one by one, with two threads."""
    with fastgpt_c.load(source, n_threads=2) as model, model.session() as session:
        return profiled(session, list(range(40)), 12)


def spans_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The spans of one row: every begin has an end of its name, they nest, and time never goes back."""
    spans: list[dict[str, Any]] = []
    open_spans: list[dict[str, Any]] = []
    now = 0
    for event in events:
        assert event["ts"] >= now
        now = event["ts"]
        if event["ph"] == "B":
            open_spans.append(event | {"inside": open_spans[-1]["cat"] if open_spans else None})
        else:
            begin = open_spans.pop()
            assert event["ph"] == "E" and event["name"] == begin["name"]
            spans.append(begin | {"dur": now - begin["ts"]})
    assert open_spans == []
    return spans


def test_trace_is_sound(example: Profile) -> None:
    """Rows nest, token > layer > op; the steps' time is the phases' time; every thread has a name."""
    made = json.loads(json.dumps(trace.make(example)))["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in made if event["name"] == "thread_name"}
    assert names == {0: "steps", 1: "worker 1"}
    timed = [event for event in made if event["ph"] != "M"]
    rows = {tid: spans_of([event for event in timed if event["tid"] == tid]) for tid in names}
    assert sum(map(len, rows.values())) == len(timed) / 2 == len(example.events)
    kinds = Counter((span["cat"], span["inside"]) for span in rows[0])
    assert kinds == {
        ("step", None): 13, ("layer", "step"): 26, ("op", "layer"): 26 * 8, ("op", "step"): 13 * 5, ("op", None): 12
    }  # fmt: skip
    steps = sorted((span for span in rows[0] if span["cat"] == "step"), key=lambda span: span["ts"])
    assert [span["name"] for span in steps] == ["prefill 40 tokens", *["decode 1 token"] * 12]
    total = sum(phase["ns"] for phase in example.phases.values()) / 1000
    assert sum(span["dur"] for span in steps) == pytest.approx(total)
    assert {(span["cat"], span["inside"]) for span in rows[1]} <= {("op", None)}


def test_trace_loads_in_perfetto(example: Profile, tmp_path: Path) -> None:
    """Perfetto's own reader finds every span, at its depth, and no error."""
    perfetto = pytest.importorskip("perfetto.trace_processor", reason="pip install perfetto")
    example.write_trace(tmp_path / "trace.json")
    try:
        processor = perfetto.TraceProcessor(trace=str(tmp_path / "trace.json"))
    except Exception as error:  # it downloads a program at its first use
        pytest.skip(f"Perfetto's trace_processor cannot be had: {error}")
    with processor:
        found = Counter((row.category, row.depth) for row in processor.query("select category, depth from slice"))
        errors = list(processor.query("select name from stats where severity = 'error' and value > 0"))
    workers = int((example.events["thread"] > 0).sum())
    assert found == {("step", 0): 13, ("layer", 1): 26, ("op", 2): 26 * 8, ("op", 1): 13 * 5, ("op", 0): 12 + workers}
    assert errors == []


def test_report_adds_up(example: Profile) -> None:
    """Ops are the sums of records, shares add up to one, the steps' ops are the phases' time."""
    made = json.loads(json.dumps(example.report(ROOFLINE)))
    for phase, counts in made["phases"].items():
        ops = [row for row in made["ops"] if row["phase"] == phase]
        assert sum(row["share"] for row in ops) == pytest.approx(1)
        assert sum(row["ns"] for row in ops if row["op"] != "sample") == counts["ns"]
        steps = [step for step in made["steps"] if step["phase"] == phase]
        assert len(steps) == counts["n_steps"] and sum(sum(step["ops"].values()) for step in steps) == counts["ns"]
    qkv = next(row for row in made["ops"] if (row["phase"], row["op"]) == ("prefill", "qkv"))
    least = max(qkv["bytes"] / 30e9, qkv["operations"] / 100e9)
    assert qkv["roofline"] == pytest.approx(1e9 * least / qkv["ns"])
    best = sum(r["best_ns"] for r in made["records"] if (r["phase"], r["op"]) == ("prefill", "qkv"))
    assert qkv["roofline_at_best"] == pytest.approx(1e9 * least / best) and best <= qkv["ns"]
    attention = {row["phase"]: row for row in made["ops"] if row["op"] == "attention"}
    assert attention["decode"]["roofline"] and attention["decode"]["roofline_at_best"] is None
    assert attention["prefill"]["roofline_at_best"] > 0
    assert all(row["roofline"] is None for row in example.report()["ops"])


def test_lost_events_are_counted_and_steps_whole(source: Path) -> None:
    """A ring that is too small keeps the newest steps, and the sums are those of all steps."""
    with fastgpt_c.load(source, n_threads=1) as model, model.session() as session:
        p = profiled(session, list(range(8)), 8, n_events=60)
    assert len(p.events) == 60 and p.n_events_lost == 9 * 24 + 8 - 60
    assert p.phases["decode"]["n_steps"] == 8
    steps = p.report()["steps"]
    assert [step["step"] for step in steps] == [7, 8]
    assert all(sum(step["ops"].values()) == step["ns"] for step in steps)
    assert "164 events are lost" in p.table()


def test_table_shows_every_op_and_layer(example: Profile) -> None:
    """A line for each op and each layer of each phase."""
    words = [line.split() for line in example.table(ROOFLINE).splitlines()]
    first = Counter(line[0] for line in words if line)
    ops = {*LAYER_OPS, "embed", "ln_f", "lm_head", "other", "sample"}
    assert {op: first[op] for op in ops} == dict.fromkeys(ops, 2)
    assert first["0"] == first["1"] == 2 and first["layer"] == 2


# ---- The roofline's cache ----------------------------------------------------------------------------------


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What measuring gives, GB/s and GFLOP/s alike: the last of these; the cache is empty at first."""
    rates = [10.0]
    rate = lambda: rates[-1] * 1e9 / 3  # noqa: E731
    monkeypatch.setattr(machine, "roofline", lambda n: machine.Roofline(n or 2, rate(), 2 * rate(), 0.0, rate()))
    monkeypatch.setenv("FASTGPT_CACHE", str(tmp_path))
    return rates


def test_the_best_roofline_is_kept(measured: list[float]) -> None:
    """A busy machine does not lower what an idle one has shown, and an idle one raises it, for each number of threads
    apart and for each rate."""
    for gb, best in ((10, 10), (4, 10), (12, 12), (11, 12)):
        measured.append(gb)
        kept = machine.best_roofline(2)
        assert kept.read_bytes_per_second == kept.int8_operations_per_second == best * 1e9 / 3
    measured.append(5)
    assert machine.best_roofline(1) == machine.Roofline(1, 5e9 / 3, 1e10 / 3, 0.0, 5e9 / 3)


def test_damage_to_the_kept_roofline_is_mended(
    measured: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file is worth nothing, and a cache that cannot be written keeps nothing; neither is an error."""
    machine.best_roofline(2)
    measured.append(4)
    for damage in ("", "[]", '{"read_bytes_per_second": "x"}', "[" * 100_000, '{"n_threads": 2}'):
        for file in (tmp_path / "roofline").iterdir():
            file.write_text(damage)
        assert machine.best_roofline(2) == machine.roofline(2), damage
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTGPT_CACHE", str(tmp_path / "file"))
    assert machine.best_roofline(2) == machine.roofline(2)


def test_arithmetic_is_the_best_that_there_is(example: Profile) -> None:
    """Weights of a type are compared with its own arithmetic where that is faster than F32's, else with F32's."""
    slow, fast = machine.Roofline(2, 30e9, 100e9, 50e9, 50e9), machine.Roofline(2, 30e9, 100e9, 200e9, 400e9)
    for type, kind in (("F32", "f32"), ("F16", "f32"), ("BF16", "bf16"), ("Q8_0", "int8"), ("Q6_K", "int8")):
        example.model["type"], before = type, example.model["type"]
        assert example.report(slow)["roofline"]["arithmetic"] == "f32"
        assert example.report(fast)["roofline"]["arithmetic"] == kind
        example.model["type"] = before


def test_more_than_the_roofline_is_no_number(example: Profile) -> None:
    """What ran above a roofline is shown as such, and explained; below one nothing of the kind is said."""
    low = machine.Roofline(2, 1e3, 1e3, 0.0, 1e3)
    assert ">100%: faster" in example.table(low) and "101%" not in example.table(low)
    cells = [line.split()[-2:] for line in example.table(low).splitlines() if line.startswith("qkv")]
    assert cells == [[">100%", ">100%"]] * 2
    high = machine.Roofline(2, 1e15, 1e15, 0.0, 1e15)
    assert ">100%" not in example.table(high) and "of roofline" in example.table(high)
    assert "of roofline" not in example.table()


# ---- The command -------------------------------------------------------------------------------------------


def test_command_writes_what_it_prints(alphabet: Path, tmp_path: Path) -> None:
    """Tables, JSON, trace and page of one run; JSON is what --compare reads."""
    a, page, traced = tmp_path / "a.json", tmp_path / "a.html", tmp_path / "trace.json"
    options = ["abc", "-m", alphabet, "-n", "5", "--no-roofline", "--threads", "2"]
    a.write_bytes(output_of("profile", *options, "--json", "--html", page, "--trace", traced))
    made = report.read(a)
    assert made["phases"]["decode"]["n_steps"] == 5 and made["phases"]["prefill"]["n_tokens"] == 3
    assert made["roofline"] is None and made["n_threads"] == 2
    assert json.loads(traced.read_text())["traceEvents"] and "</html>" in page.read_text()
    text = output_of("profile", *options).decode()
    assert "prefill: 3 tokens in 1 step" in text and "decode: 5 tokens in 5 steps" in text
    compared = output_of("profile", "--compare", a, a).decode()
    assert compared.count("+0.000") == 2 * 13 + 1 + 1 and "1.00" in compared


def test_command_measures_the_roofline(alphabet: Path, tmp_path: Path) -> None:
    """Without --no-roofline the heading tells what the machine can do, and the cache keeps it."""
    text = output_of("profile", "ab", "-m", alphabet, "-n", "1", FASTGPT_CACHE=str(tmp_path)).decode()
    assert "at best: " in text and "of roofline" in text
    assert len(list((tmp_path / "roofline").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["abc", "-m", "{model}", "-n", "62"], FAILURE, "n_ctx of 64"),
        (["abc", "-m", "{model}", "-n", "-1"], WRONG_USAGE, "-n is -1"),
        (["", "-m", "{model}"], WRONG_USAGE, "the prompt is empty"),
        (["abc", "-m", "{model}", "-n", "1", "--no-roofline", "--html", "{folder}"], FAILURE, "is a folder"),
        (["abc", "--compare", "{folder}/a", "{folder}/b"], WRONG_USAGE, "--compare takes two files"),
        (["--compare", "{folder}/a", "{folder}/b"], FAILURE, "{folder}/a: cannot be read"),
    ],
)
def test_command_refuses(alphabet: Path, tmp_path: Path, arguments: list[str], status: int, complaint: str) -> None:
    """One line that says what was wrong."""
    names = {"model": alphabet, "folder": tmp_path}
    result = run("profile", *(word.format(**names) for word in arguments))
    assert_complains(result, status, complaint.format(**names))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: made.update(kind="x"),
        lambda made: made.update(format=2),
        lambda made: made.pop("machine"),
        lambda made: made["phases"].update(decode=[]),
        lambda made: made["phases"]["decode"].update(n_steps=True),
        lambda made: made["phases"]["decode"].update(ns=2**70),
        lambda made: made["ops"][0].update(op=3),
        lambda made: made["ops"].append(None),
    ],
)
def test_compare_reads_profiles_only(example: Profile, tmp_path: Path, spoil: Any) -> None:
    """A file that is JSON but no profile is refused by name."""
    made = json.loads(json.dumps(example.report()))
    spoil(made)
    path = tmp_path / "spoilt.json"
    path.write_text(json.dumps(made))
    with pytest.raises(fastgpt_c.FastGPTError, match=r"spoilt\.json: is not a profile"):
        report.read(path)


# ---- The page ----------------------------------------------------------------------------------------------


def table_of(tab: Any) -> list[list[str]]:
    rows = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    return list(tab.eval_on_selector_all("#rows tr", rows))


def assert_row(cells: list[str], row: dict[str, Any], n_steps: int) -> None:
    """The cells are an element of the report's "ops", rounded to the digits that are shown."""
    rates = [row[kind] / row["ns"] if row[kind] else None for kind in ("bytes", "operations")]
    of_roofline = [None if row[name] is None else 100 * row[name] for name in ("roofline", "roofline_at_best")]
    exact = [row["ns"] / 1e6 / n_steps, 100 * row["share"], row["calls"], *rates, *of_roofline]
    assert cells[0] == row["op"]
    for cell, value, digits in zip(cells[1:], exact, (3, 1, 0, 1, 1, 1, 1), strict=True):
        if value is None or cell == ">100%":
            assert cell == ("" if value is None else ">100%" if value >= 100.05 else value)
        else:
            assert float(cell.rstrip("%")) == pytest.approx(value, abs=0.5001 / 10**digits)
    assert ">100%" not in cells[1:6]


@pytest.mark.parametrize(("ceiling", "dark"), [(ROOFLINE, False), (None, True)], ids=["light", "dark"])
def test_page_shows_the_report(
    browser: Any, example: Profile, tmp_path: Path, ceiling: machine.Roofline | None, dark: bool
) -> None:
    """Clicks, sorts, walks and hovers; every number of the table, and those of tooltips, are the report's."""
    path, made = tmp_path / "profile.html", example.report(ceiling)
    example.write_html(path, ceiling)
    with opened(browser, path, dark=dark) as tab:
        for phase in ("prefill", "decode"):
            tab.click(f"[data-phase={phase}]")
            assert tab.get_attribute(f"[data-phase={phase}]", "aria-pressed") == "true"
            rows = [row for row in made["ops"] if row["phase"] == phase]
            n_steps = made["phases"][phase]["n_steps"]
            by_time = sorted(rows, key=lambda row: -row["ns"])
            for cells, row in zip(table_of(tab), by_time, strict=True):
                assert_row(cells, row, n_steps)
            assert tab.locator("#timeline .step").count() == n_steps
            assert tab.locator("#layers .part").count() == 2 * 8 + 5
        tab.click("[data-key=op] button")
        assert [row[0] for row in table_of(tab)] == sorted(row["op"] for row in rows)
        tab.keyboard.press("Enter")
        assert [row[0] for row in table_of(tab)] == sorted((row["op"] for row in rows), reverse=True)
        assert tab.get_attribute("[data-key=op]", "aria-sort") == "descending"

        record = next(r for r in made["records"] if (r["phase"], r["layer"], r["op"]) == ("decode", 1, "qkv"))
        tab.hover("#layers .qkv >> nth=1")
        assert tab.inner_text("#tooltip").startswith(f"layer 1, qkv\n{record['ns'] / 1e6 / n_steps:.3f} ms a step")
        assert f"{record['bytes'] / record['ns']:.1f} GB/s" in tab.inner_text("#tooltip")
        tab.focus("#timeline .step >> nth=0")
        tab.keyboard.press("ArrowRight")
        step = [step for step in made["steps"] if step["phase"] == "decode"][1]
        assert tab.inner_text("#tooltip").startswith(f"step {step['step']}: 1 token in {step['ns'] / 1e6:.3f} ms")
        assert tab.locator("#roofline .roof").count() == (0 if ceiling is None else 2)


@pytest.mark.parametrize("width", [390, 1200])
def test_charts_can_be_read(browser: Any, example: Profile, tmp_path: Path, width: int) -> None:
    """On a phone, too: nothing is wider than the page, a unit of a chart is a pixel, also after the page was made
    narrower, and no label of the roofline meets another one."""
    path = tmp_path / "profile.html"
    example.write_html(path, ROOFLINE)
    boxes = "texts => texts.map(text => text.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"
    with opened(browser, path, width=width + 200) as tab:
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        scales = "charts => charts.map(c => c.getBoundingClientRect().width / c.viewBox.baseVal.width)"
        assert tab.eval_on_selector_all("svg", scales) == pytest.approx([1, 1, 1])
        for phase in ("prefill", "decode"):
            tab.click(f"[data-phase={phase}]")
            labels = tab.eval_on_selector_all("#roofline text.strong", boxes)
            assert len(labels) == 11
            for i, (left, top, right, bottom) in enumerate(labels):
                assert left >= 0 and right <= width
                for other in labels[:i]:
                    apart = max(left - other[2], other[0] - right, top - other[3], other[1] - bottom)
                    assert apart > -3, "a line of text is a little higher than its letters"


def test_every_op_has_a_colour_of_its_own() -> None:
    css = (importlib.resources.files("fastgpt_c") / "pages" / "profile.css").read_text(encoding="utf-8")
    colours = re.findall(r"^\.(\w+) \{ --colour: (#\w+); \}", css, re.MULTILINE)
    ops = [*LAYER_OPS, "embed", "ln_f", "lm_head", "sample", "other"]
    assert sorted(op for op, _ in colours) == sorted(ops)
    assert len({colour for _, colour in colours}) == len(ops)


def test_the_title_names_model_and_prompt(example: Profile, tmp_path: Path) -> None:
    path, name = tmp_path / "p.html", example.report()["model"]["name"] or "a model"
    example.write_html(path, prompt="Once <b>\n upon " + "a time " * 20)
    (title,) = re.findall("<title>(.*)</title>", path.read_text())
    assert html.unescape(title) == f"Where the time goes: {name}, after “Once <b> upon {'a time ' * 5}a…”"


def test_page_of_a_profile_without_steps(browser: Any, random_model: fastgpt_c.Model, tmp_path: Path) -> None:
    """Nothing to show is shown without an error."""
    with random_model.session() as session, session.profile() as p:
        pass
    p.write_html(tmp_path / "empty.html")
    with opened(browser, tmp_path / "empty.html") as tab:
        assert table_of(tab) == []
