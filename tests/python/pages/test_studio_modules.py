"""Modules of the server's page that need no server: what they compute is what the sampler, Python and HTTP say."""

from __future__ import annotations

import base64
import importlib.resources
import itertools
import json
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastgpt_c.engine.sampler import Sampler

ORIGIN = "http://studio.test"


@pytest.fixture(scope="module")
def tab(browser: Any) -> Iterator[Any]:
    """An empty page that can import the modules, as the package has them."""
    pages = importlib.resources.files("fastgpt_c") / "pages"

    def answer(route: Any) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        if path == "/":
            route.fulfill(body="<!DOCTYPE html><title>t</title>", content_type="text/html")
        else:
            route.fulfill(body=(pages / path.lstrip("/")).read_text(encoding="utf-8"), content_type="text/javascript")

    page = browser.new_page()
    page.route("**/*", answer)
    page.goto(ORIGIN)
    yield page
    page.close()


def call(tab: Any, module: str, body: str, *arguments: Any) -> Any:
    """What a function body returns that has the module as m and the arguments as a."""
    return tab.evaluate(f"async a => {{ const m = await import('/studio/{module}'); {body} }}", list(arguments))


# ---- Filters ----

SAMPLINGS = [
    {"temperature": t, "top_k": k, "top_p": p, "min_p": m}
    for t, k, p, m in itertools.product((0.0, 0.3, 1.0, 2.0), (0, 1, 7), (0.0, 0.5, 0.9, 1.0), (0.0, 0.1, 1.0))
]


def rows_of_logits() -> list[np.ndarray]:
    """Random ones; probabilities that sum to .8 exactly, and many equals."""
    rng = np.random.default_rng(5)
    exact = np.log(np.array([0.5, 0.3, 0.1, 0.05, 0.05], np.float32))
    equal = np.repeat(np.array([2.0, 1.0, 0.0], np.float32), 5)
    return [*(rng.normal(0, 3, (3, 50)).astype(np.float32)), exact, rng.permutation(equal)]


def test_filters_are_the_samplers(tab: Any) -> None:
    """Whatever the sliders say: the page shows the probabilities that the sampler in C draws from."""
    rows = rows_of_logits()
    body = """const [rows, samplings] = a;
      return rows.map(row => { const d = new m.Distribution(m.floatsOf(row)), order = [...d.order];
        return samplings.map(s => {
          const p = new Array(order.length).fill(0);
          d.kept(s).forEach((q, i) => { p[order[i]] = q; });
          return p; }); });"""
    shown = call(tab, "filters.js", body, [base64.b64encode(row.tobytes()).decode() for row in rows], SAMPLINGS)
    for row, by_sampling in zip(rows, shown, strict=True):
        for sampling, p in zip(SAMPLINGS, by_sampling, strict=True):
            expected = Sampler(len(row), sampling).probabilities(row)
            np.testing.assert_allclose(p, expected, rtol=1e-5, atol=1e-7, err_msg=str(sampling))


def test_ranks_and_log_probabilities(tab: Any) -> None:
    """Of equals the lower id comes first; log-probabilities are those of a softmax."""
    row = rows_of_logits()[0]
    body = """const d = new m.Distribution(m.floatsOf(a[0]));
      return [...d.order].map(id => [id, d.rank(id), d.logprob(id)]);"""
    found = call(tab, "filters.js", body, base64.b64encode(row.tobytes()).decode())
    order = np.argsort(-row, kind="stable")
    assert [id for id, _, _ in found] == order.tolist()
    assert [rank for _, rank, _ in found] == list(range(1, len(row) + 1))
    wide = row.astype(np.float64)
    np.testing.assert_allclose([p for _, _, p in found], (wide - np.log(np.exp(wide).sum()))[order], atol=1e-6)


# ---- Streams ----


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_survive_any_cut(tab: Any, size: int) -> None:
    """Bytes may come in any pieces: characters, lines and line ends are put together again."""
    text = ': hello\r\ndata: one\r\n\r\ndata: {"text": "日本 😀"}\n\ndata:two\ndata:  lines\n\nevent: x\n\n'
    text += "data: [DONE]\n\n"
    body = """const bytes = new TextEncoder().encode(a[0]);
      const stream = new ReadableStream({start(c) {
        for (let i = 0; i < bytes.length; i += a[1]) c.enqueue(bytes.slice(i, i + a[1])); c.close(); }});
      const found = []; for await (const event of m.events(stream)) found.push(event); return found;"""
    assert call(tab, "sse.js", body, text, size) == ["one", '{"text": "日本 😀"}', "two\n lines", "[DONE]"]


# ---- The address ----


def test_an_address_gives_the_state_back(tab: Any) -> None:
    """A tree of three branches, typed and drawn tokens in turns, every field away from its default."""
    body = """const s = m.freshState(), token = (id, typed) => ({id, text: "", logprob: null, typed});
      s.tree.append([token(5, true), token(6, true), token(7, false), token(8, true)]);
      s.tree.branch(2); s.tree.append([token(9, false), token(10, false)]);
      s.tree.branch(3); s.tree.append([token(11, true)]); s.tree.current = 1;
      Object.assign(s, {tab: "lens", place: 3, other: 2, layer: 4, head: 5, max_tokens: 7, seed: 123456789012});
      Object.assign(s.sampling, {temperature: 0, top_k: 9, top_p: 0.5, min_p: 0.25});
      return [JSON.stringify(s), JSON.stringify(m.decode(m.encode(s))), m.encode(s), m.encode(m.freshState())];"""
    state, again, text, fresh = call(tab, "state.js", body)
    assert json.loads(again) == json.loads(state)
    assert fresh == "" and len(text) < 200 and " " not in text


@pytest.mark.parametrize(
    "text",
    ["text=x", "text=_0_1-9_0_2", "text=_0_1-0_5_2", "text=_3_1", "at=7&place=-1&other=1e3", "tab=x&layer=q&seed=-4",
     "temperature=9&top_p=2&top_k=x&min_p=NaN", "%%%&&==", "max_tokens=0"],
)  # fmt: skip
def test_a_wrong_address_is_a_fresh_state(tab: Any, text: str) -> None:
    """What an address says wrongly is left out, and nothing fails."""
    body = "return [JSON.stringify(m.decode(a[0])), JSON.stringify(m.freshState())];"
    found, fresh = call(tab, "state.js", body, text)
    assert json.loads(found) == json.loads(fresh)


# ---- The tree ----


def test_branches_share_what_was_before(tab: Any) -> None:
    """Nothing drawn is ever lost: typing after a drawn token's place makes a branch, typing after typed ones does not;
    a branch from within its parent's part hangs on the parent."""
    body = """const t = new m.Tree(), token = (id, typed) => ({id, text: "", logprob: null, typed});
      const ids = i => t.line(i).map(x => x.id), seen = [];
      t.append([token(1, true), token(2, true)]);
      t.cutOrBranch(1); t.append([token(3, true)]); seen.push([t.branches.length, ids()]);
      t.append([token(4, false), token(5, false)]);
      t.cutOrBranch(3); t.append([token(6, true)]); seen.push([t.branches.length, ids(), ids(0)]);
      t.branch(1); t.append([token(7, true)]); seen.push([t.branches[2].parent, ids(), ids(1)]);
      seen.push(t.shared(0, 1), t.shared(1, 2)); return seen;"""
    assert call(tab, "tree.js", body) == [[1, [1, 3]], [2, [1, 3, 4, 6], [1, 3, 4, 5]], [0, [1, 7], [1, 3, 4, 6]], 3, 1]


# ---- Copies ----

HOSTILE = 'it\'s """ a $(test) `x` \\ \n\t\u2028 日本 😀'


def test_copies_say_the_request(tab: Any) -> None:
    """Any text in it: curl's words and Python's program have the very request; the key comes from the environment."""
    request = {
        "method": "POST",
        "path": "/v1/completions",
        "body": {"prompt": HOSTILE, "max_tokens": 3, "x": [1, None, True]},
    }
    body = "return [m.asCurl(a[0], a[1], true), m.asPython(a[0], a[1], true)];"
    curl, python = call(tab, "snippets.js", body, request, ORIGIN)
    words = shlex.split(curl.replace("\\\n", " "))
    assert words[:3] == ["curl", "-sS", ORIGIN + "/v1/completions"]
    assert json.loads(words[words.index("-d") + 1]) == request["body"]
    assert "Authorization: Bearer $FASTGPT_API_KEY" in words
    line = next(line for line in python.splitlines() if line.startswith("body = "))
    names: dict[str, Any] = {}
    exec(line, names)
    assert names["body"] == request["body"] and 'os.environ["FASTGPT_API_KEY"]' in python
    compile(python, "copy", "exec")


# ---- Metrics ----


def test_metrics_are_read(tab: Any) -> None:
    """Comments, labels with quotes, sums over labels, and names that are not there."""
    text = """# HELP x y
fastgpt:a_total{phase="decode",op="q\\"k"} 2.5
fastgpt:a_total{phase="prefill",op="x"} 1e2
fastgpt:b +Inf
"""
    body = """const s = m.parse(a[0]);
      return [s.slice(0, 2), m.total(s, 'a_total'), m.total(s, 'b') === Infinity, m.total(s, 'c')];"""
    samples, total, is_infinite, absent = call(tab, "metrics.js", body, text)
    assert samples[0] == {"name": "fastgpt:a_total", "labels": {"phase": "decode", "op": 'q"k'}, "value": 2.5}
    assert (total, is_infinite, absent) == (102.5, True, None)
