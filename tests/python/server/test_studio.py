"""The page of `fastgpt-c serve` in a browser: type, stop, branch, compare, look inside, by mouse and by keyboard."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import TIMEOUT
from served import Served, serving

import fastgpt_c
from fastgpt_c.analysis import attribution, logit_lens
from fastgpt_c.engine.sampler import Sampler

PROMPT = "Once upon a time, there was a little"
TABS = ("branches", "lens", "attention", "parts", "time", "server")


@pytest.fixture(scope="module")
def url(browser: Any, served: Served) -> str:
    """Of a server of the demo model with no option at all; without a browser none is started."""
    return served.url + "/"


@pytest.fixture(scope="module")
def model() -> Iterator[fastgpt_c.Model]:
    with fastgpt_c.load() as model:
        yield model


@contextmanager
def visited(
    browser: Any, url: str, *, width: int = 1280, dark: bool = False, errors: tuple[str, ...] = ()
) -> Iterator[Any]:
    """A playwright Page at a URL.  Fails when the console has more than the errors that a test names, when the page
    breaks its security policy, or when it asks for anything of another origin."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light",
        permissions=["clipboard-read", "clipboard-write"],
    )  # fmt: skip
    tab = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    origin = "/".join(url.split("/")[:3])
    tab.goto(url)
    yield tab
    assert [text for text in complaints if not any(error in text for error in errors)] == []
    assert [asked for asked in requests if not asked.startswith((origin + "/", "data:,"))] == []
    context.close()


def texts(tab: Any, selector: str) -> list[str]:
    return list(tab.eval_on_selector_all(selector, "nodes => nodes.map(node => node.textContent)"))


def chips(tab: Any) -> list[str]:
    return texts(tab, "#text .token")


def wait_until(tab: Any, expression: str, argument: Any = None) -> None:
    """playwright's own wait_for_function evaluates text inside the page, which the page's policy forbids."""
    end = time.monotonic() + TIMEOUT
    while not tab.evaluate(expression, argument):
        assert time.monotonic() < end, expression
        tab.wait_for_timeout(30)


def type_text(tab: Any, text: str, n_chips: int) -> None:
    """Types, and waits until there are so many chips and what could follow them."""
    tab.fill("#editor", text)
    wait_until(tab, "n => document.querySelectorAll('#text .token').length === n", n_chips)
    tab.wait_for_selector("#choices .pick")


def wait_until_written(tab: Any) -> None:
    wait_until(tab, "/token/.test(document.querySelector('#status').textContent)")
    tab.wait_for_selector("#write:not([hidden])")


def percents(tab: Any, column: int) -> list[float]:
    """Of the choices; 1 is what the model says, 2 what the filters leave."""
    shown = texts(tab, f"#choices tr td:nth-child({column + 1})")
    return [0.0 if text in ("\N{EN DASH}", "<0.1%") else float(text.rstrip("%")) / 100 for text in shown]


# ---- Writing ----


def test_what_is_typed_is_continued(browser: Any, url: str, model: fastgpt_c.Model) -> None:
    """Chips are the tokens, coloured by surprisal; the text with a seed is the one that Python generates."""
    tokens = model.encode(PROMPT)
    scores = model.score(tokens)
    with visited(browser, url) as tab:
        type_text(tab, PROMPT, len(tokens))
        assert chips(tab) == [model.decode([token]) for token in tokens]
        tab.hover("#text .token >> nth=5")
        assert f"{-scores.logprobs[5] / np.log(2):.2f} bits" in tab.inner_text("#tooltip")
        tab.fill("#seed", "7")
        tab.fill("#max-tokens", "12")
        tab.click("#write")
        wait_until_written(tab)
        expected = model.generate(PROMPT, max_new_tokens=12, seed=7, temperature=0.8, top_p=0.95)
        assert tab.input_value("#editor") == PROMPT + expected.text
        assert len(chips(tab)) == len(tokens) + 12
        colours = tab.eval_on_selector_all(
            "#text .token", "nodes => nodes.map(node => Number(node.style.getPropertyValue('--p')))"
        )
        bits = -model.score([*tokens, *expected.tokens]).logprobs[1:] / np.log(2)
        np.testing.assert_allclose(colours[1:], np.minimum(bits / 12, 1), atol=2e-3)


# At once, however fast the server is.
STOP_AFTER_SIX = """() => {
  const watch = () => {
    if (document.querySelectorAll('#text .token').length > 6) document.querySelector('#stop').click();
  };
  new MutationObserver(watch).observe(document.querySelector('#text'), {childList: true});
}"""


def test_stop_stops_here_and_there(browser: Any, url: str, served: Served) -> None:
    """The text stays as long as it was, and the server has nothing to do for it any more."""
    with visited(browser, url) as tab:
        type_text(tab, "The wolf said", 3)
        tab.fill("#max-tokens", "450")
        tab.evaluate(STOP_AFTER_SIX)
        tab.click("#write")
        wait_until(tab, "/stopped/.test(document.querySelector('#status').textContent)")
        n = len(chips(tab))
        assert 6 < n < 453
        served.wait_idle()
        assert len(chips(tab)) == n


def test_strange_texts_are_texts(browser: Any, url: str, model: fastgpt_c.Model) -> None:
    """Markup, marks that turn the text around, characters of several tokens, a Windows line end."""
    text = "<img src=x onerror=alert(1)> \u202e 日本 😀\r\nend"
    with visited(browser, url) as tab:
        seen = text.replace("\r\n", "\n")  # as any textarea has it
        type_text(tab, text, len(model.encode(seen)))
        assert tab.input_value("#editor") == seen
        assert tab.locator("#text img").count() == 0 and "\\u202e" in "".join(chips(tab))
        wait_until(tab, "location.hash.includes('text=')")
        address = tab.url
    with visited(browser, address) as tab:
        tab.wait_for_selector("#choices .pick")
        assert tab.input_value("#editor") == seen


# ---- Choices and branches ----


def test_choices_follow_the_sliders(browser: Any, url: str, model: fastgpt_c.Model) -> None:
    """Of the place that is chosen: 20 tokens with the model's probabilities, and beside them the filtered ones."""
    tokens = model.encode(PROMPT)
    with model.session() as session:
        logits = session.prefill(tokens[:6])
    order = np.argsort(-logits, kind="stable")
    with visited(browser, url) as tab:
        type_text(tab, PROMPT, len(tokens))
        tab.click("#text .token >> nth=6")
        wait_until(tab, "/Token 7/.test(document.querySelector('#choices-title').textContent)")
        tab.wait_for_selector("#choices [aria-current=true]")
        ids = tab.eval_on_selector_all("#choices .pick", "nodes => nodes.map(node => Number(node.dataset.id))")
        assert ids[:20] == order[:20].tolist() and tokens[6] in ids
        assert texts(tab, "#choices .pick")[:20] == [logit_lens.visible(model, id) for id in ids[:20]]
        for sampling in ({"temperature": 1.5}, {"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.1}, {"temperature": 0.0}):
            for name, value in sampling.items():
                tab.locator(f"#{name}").fill(str(value))
            state = {name: float(tab.input_value(f"#{name}")) for name in ("temperature", "top_p", "min_p")}
            p = Sampler(model.n_vocab, top_k=int(tab.input_value("#top_k")), **state).probabilities(logits)
            np.testing.assert_allclose(percents(tab, 2), p[ids], atol=1.1e-3)
            raw = Sampler(model.n_vocab, temperature=1.0, top_p=1.0).probabilities(logits)
            np.testing.assert_allclose(percents(tab, 1), raw[ids], atol=1.1e-3)


def test_branch_and_compare(browser: Any, url: str, model: fastgpt_c.Model) -> None:
    """A choice begins a branch and is continued; the old text stays; log-probabilities are Model.score's."""
    tokens = model.encode(PROMPT)
    with visited(browser, url) as tab:
        type_text(tab, PROMPT, len(tokens))
        tab.fill("#max-tokens", "6")
        tab.click("#text .token >> nth=8")
        wait_until(tab, "/Token 9/.test(document.querySelector('#choices-title').textContent)")
        tab.wait_for_selector("#choices [aria-current=true]")
        picked = int(tab.get_attribute("#choices .pick >> nth=2", "data-id"))
        tab.click("#choices .pick >> nth=2")
        wait_until_written(tab)
        wait_until(tab, "document.querySelectorAll('#tree .open').length === 2")
        line = tab.input_value("#editor")
        assert line.startswith(model.decode([*tokens[:8], picked])) and len(chips(tab)) == 8 + 1 + 6
        tab.click("#tree .open >> nth=0")
        wait_until(tab, "text => document.querySelector('#editor').value === text", PROMPT)
        total = model.score(tokens).total
        assert f"log p {total:.1f}," in tab.inner_text("#tree .branch >> nth=0")
        tab.click("#tree .compare")
        assert tab.is_visible("#compared") and "share 8 tokens" in tab.inner_text("#shared")
        sides = ["".join(texts(tab, f"#sides > div:nth-child({i}) .token")) for i in (1, 2)]
        assert sides == [model.decode(tokens[8:]), line[len(model.decode(tokens[:8])) :].replace("\n", "↵")]


def test_from_here_draws_again(browser: Any, url: str) -> None:
    """Without a choice, the model continues the beginning that ends before the chosen token."""
    with visited(browser, url) as tab:
        type_text(tab, "Once upon a time", 4)
        tab.fill("#max-tokens", "5")
        tab.click("#text .token >> nth=2")
        tab.click("#from-here")
        wait_until_written(tab)
        wait_until(tab, "document.querySelectorAll('#tree .open').length === 2")
        assert tab.input_value("#editor").startswith("Once upon") and len(chips(tab)) == 7


# ---- Looking inside ----


def test_lens_attention_and_parts(browser: Any, url: str, model: fastgpt_c.Model) -> None:
    """Each tab has the numbers of the analysis in Python."""
    tokens = model.encode(PROMPT)
    report = logit_lens.report(model, logit_lens.read(model, tokens))
    with visited(browser, url) as tab:
        type_text(tab, PROMPT, len(tokens))
        tab.click("#tab-lens")
        tab.wait_for_selector("#grid td")
        grid = tab.eval_on_selector_all(
            "#grid tbody tr", "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.textContent))"
        )
        assert grid == [[report["texts"][str(best[0])] for best in row] for row in report["best"]]

        tab.click("#tab-attention")
        tab.wait_for_selector("#attention td")
        tab.select_option("#layer", "3")
        tab.select_option("#head", "2")
        tab.hover("#attention tbody tr:nth-child(6) td:nth-child(4)")
        shown = float(tab.inner_text("#tooltip").split("\n")[1].strip("<%")) / 100
        assert abs(shown - report["attention"][3][2][5][2]) < 2e-3
        assert tab.locator("#heads canvas").count() == model.n_layer * model.n_head

        tab.click("#tab-parts")
        tab.wait_for_selector("#parts td")
        found = attribution.attribute(model, tokens)
        cells = [[float(text.replace("\N{MINUS SIGN}", "-")) for text in row] for row in tab.eval_on_selector_all(
            "#parts tbody tr", "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.textContent))"
        )]  # fmt: skip
        np.testing.assert_allclose(cells, np.column_stack([found.heads, found.feed_forward]), atol=6e-3)
        assert f"is {found.logit:.2f}" in tab.inner_text("#parts-sum")


def test_server_and_time(browser: Any, url: str) -> None:
    """Figures come while the tab is seen, and bars for each op once something was read."""
    with visited(browser, url) as tab:
        type_text(tab, "Tom and Lily", 3)
        tab.click("#write")
        wait_until_written(tab)
        tab.click("#tab-server")
        wait_until(tab, "document.querySelectorAll('#figures .spark').length >= 5")
        assert "requests at work" in tab.inner_text("#figures")
        tab.click("#tab-time")
        tab.wait_for_selector("#times .bar")
        assert {"qkv", "attention", "lm_head"} <= set(
            texts(tab, "#times .bars > span:first-child, #times .bars > span")
        )


# ---- The address, copies, the key ----


def test_an_address_brings_it_all_back(browser: Any, url: str) -> None:
    """Text, tree, choice, sliders, tab, compared branch: another page with the same address shows the same."""
    seen = []

    def look(tab: Any) -> None:
        tab.wait_for_selector("#choices [aria-current=true]")
        tab.wait_for_selector("#grid td")
        seen.append(
            {name: texts(tab, name) for name in ("#text .token", "#tree .branch", "#sides .token", "#choices tr")}
        )
        seen[-1]["fields"] = [
            tab.input_value(name) for name in ("#editor", "#top_k", "#temperature", "#max-tokens", "#seed")
        ]

    with visited(browser, url) as tab:
        type_text(tab, PROMPT, 9)
        tab.fill("#max-tokens", "5")
        tab.fill("#seed", "11")
        tab.locator("#top_k").fill("8")
        tab.click("#text .token >> nth=7")
        tab.click("#from-here")
        wait_until_written(tab)
        tab.click("#tree .compare")
        tab.click("#tab-lens")
        tab.click("#text .token >> nth=3")
        wait_until(tab, "/Token 4/.test(document.querySelector('#choices-title').textContent)")
        look(tab)
        address = tab.url
    with visited(browser, address) as tab:
        look(tab)
        assert tab.get_attribute("#tab-lens", "aria-selected") == "true"
    assert seen[0] == seen[1] and seen[0]["#sides .token"]


def copied(tab: Any, view: str, kind: str) -> str:
    tab.click(f'[data-copies="{view}"] button:text-is("{kind}")')
    wait_until(tab, "/^Copied/.test(document.querySelector('#status').textContent)")
    tab.evaluate("document.querySelector('#status').textContent = ''")
    return str(tab.evaluate("navigator.clipboard.readText()"))


def test_copies_run(browser: Any, url: str, model: fastgpt_c.Model) -> None:
    """Each view's program and command run as they are; those of the text print what the page would write."""
    with visited(browser, url) as tab:
        type_text(tab, PROMPT, 9)
        tab.fill("#max-tokens", "7")
        tab.fill("#seed", "3")
        tab.keyboard.press("Tab")
        for view in ("story", "choices", *TABS):
            if view in TABS:
                tab.click(f"#tab-{view}")
            program, command = copied(tab, view, "Python"), copied(tab, view, "curl")
            shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
            if view == "story":
                expected = model.generate(PROMPT, max_new_tokens=7, seed=3, temperature=0.8, top_p=0.95).text
                assert shown == expected + "\n"
            assert shown.strip()
            if shutil.which("curl"):
                answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
                assert answer and '"error"' not in answer


def test_the_key_is_asked_for_once_and_kept_nowhere(browser: Any, tmp_path: Path) -> None:
    """A wrong one is asked for again; no storage and no address has it; a copy takes it from the environment."""
    (tmp_path / "keys").write_text("secret-1\n")
    with (
        serving("--api-key-file", tmp_path / "keys") as server,
        visited(browser, server.url + "/", errors=("401",)) as tab,
    ):
        for key in ("wrong", "secret-1"):
            tab.wait_for_selector("#key-dialog[open]")
            tab.fill("#key", key)
            tab.keyboard.press("Enter")
        type_text(tab, PROMPT, 9)
        assert not tab.is_visible("#key-dialog")
        kept = "[localStorage, sessionStorage].map(s => JSON.stringify(s)).join() + document.cookie + location.href"
        assert "secret-1" not in tab.evaluate(kept) + tab.content()
        program = copied(tab, "story", "Python")
        assert "secret-1" not in program
        environment = os.environ | {"FASTGPT_API_KEY": "secret-1"}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)


# ---- Everybody ----


def test_keyboard_alone(browser: Any, url: str) -> None:
    """Type, continue, walk to a token, choose another in its place, and look through the tabs."""
    with visited(browser, url) as tab:
        tab.wait_for_selector("#model:not(:empty)")
        tab.keyboard.type("Once upon a time")  # the editor has the focus
        wait_until(tab, "document.querySelectorAll('#text .token').length === 4")
        tab.keyboard.press("Control+Enter")
        wait_until_written(tab)
        for _ in range(20):
            if tab.evaluate("document.activeElement.matches('#text .token')"):
                break
            tab.keyboard.press("Tab")
        tab.keyboard.press("ArrowRight")
        assert tab.evaluate("document.activeElement.dataset.place") == "1"
        tab.keyboard.press("Enter")
        wait_until(tab, "document.activeElement.matches('#choices .pick')")
        tab.keyboard.press("Escape")
        assert tab.evaluate("document.activeElement.dataset.place") == "1"
        tab.keyboard.press("Enter")
        wait_until(tab, "document.activeElement.matches('#choices .pick')")
        tab.keyboard.press("ArrowDown")
        picked = tab.evaluate("document.activeElement.textContent").replace("␣", " ")
        tab.keyboard.press("Enter")
        wait_until(tab, "document.querySelectorAll('#tree .open').length === 2")
        wait_until_written(tab)
        assert chips(tab)[1] == picked
        tab.focus("#tab-branches")
        for name in (*TABS[1:], TABS[0]):
            tab.keyboard.press("ArrowRight")
            assert tab.evaluate("document.activeElement.id") == f"tab-{name}"
            assert tab.is_visible(f"#panel-{name}")


STATE = "#text=_0_495.481.259.416.12.401.287.259.408~512.14.638-0_7_260~387.14&at=1&other=0&place=5"


def tabs_of(tab: Any) -> Iterator[str]:
    """Opens one after the other, each with all that it shows."""
    tab.wait_for_selector("#choices [aria-current=true]")
    for name, selector in zip(
        TABS, ("#sides", "#grid td", "#attention td", "#parts td", "#times", "#figures b"), strict=True
    ):
        tab.click(f"#tab-{name}")
        tab.wait_for_selector(selector)
        yield name


def test_a_narrow_window_scrolls_down_alone(browser: Any, url: str) -> None:
    """360 pixels: whatever is wider has a window of its own."""
    with visited(browser, url + STATE, width=360) as tab:
        for name in tabs_of(tab):
            assert tab.evaluate("document.documentElement.scrollWidth") == 360, name


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(browser: Any, url: str, dark: bool) -> None:
    """Contrast, names, roles: all rules of axe-core, also its best practices."""
    script = os.environ.get("FASTGPT_AXE")
    if script is None:
        pytest.skip("FASTGPT_AXE=axe.min.js, of npm's axe-core")
    with visited(browser, url + STATE, dark=dark) as tab:
        tab.evaluate(Path(script).read_text(encoding="utf-8"))
        for name in tabs_of(tab):
            found = tab.evaluate(
                "async () => (await axe.run()).violations.map(v => [v.id, ...v.nodes.map(n => n.html)])"
            )
            assert found == [], name
