"""HTML pages: one file, safe against what its data say, with no request to anybody."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import opened

from fastgpt_c.errors import FastGPTError
from fastgpt_c.io import html_page
from fastgpt_c.io.atomic_files import write_text
from fastgpt_c.io.html_page import embedded_json, page

HOSTILE = ["</script><script>alert(1)</script>", "<!--<script>", "]]>", "\u2028\u2029", "&lt;", '"\\', "\x00\x1f", "😀"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_ends_the_data(text: str) -> None:
    """Whatever strings say: JSON without "<" or line breaks of Unicode, which gives them back."""
    embedded = embedded_json({text: [text]})
    assert not re.search("[<\u2028\u2029]", embedded)
    assert json.loads(embedded) == {text: [text]}


def test_numbers_that_json_has_not_are_refused() -> None:
    """NaN would make the page's JSON.parse fail."""
    with pytest.raises(ValueError, match="JSON"):
        embedded_json(float("nan"))


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    """A folder or a folder that is not there: an error that names the target, and nothing left behind."""
    for target in (tmp_path, tmp_path / "nowhere" / "page.html"):
        with pytest.raises(FastGPTError, match=re.escape(str(target))):
            write_text(target, "text")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def bare_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of base.css and dom.js alone, whose data are hostile and whose script fetches what it can."""
    parts = {"t.css": "", "t.html": '<p id="list"></p>\n'}
    parts["t.js"] = """
import {byId, describe, element, walkable} from "./dom.js";
const data = JSON.parse(byId("data").textContent);
const nodes = data.texts.map(text => element("button", {}, text));
nodes.forEach((node, i) => describe(node, () => "number " + i));
walkable([nodes.slice(0, 3), nodes.slice(3)]);
byId("list").append(...nodes);
"""
    read = html_page._part
    monkeypatch.setattr(html_page, "_part", lambda file: parts[file] if file in parts else read(file))
    path = tmp_path / "t.html"
    write_text(path, page("t", "Title <b> & </title>", {"texts": HOSTILE}))
    return path


def focused(tab: Any) -> str:
    return str(tab.evaluate("document.activeElement.textContent"))


def test_base_page_in_a_browser(browser: Any, bare_page: Path) -> None:
    """Hostile texts are shown as they are; the Tab key enters, arrows walk, and the tooltip follows focus and mouse."""
    with opened(browser, bare_page) as tab:
        assert tab.title() == tab.text_content("h1") == "Title <b> & </title>"
        assert tab.eval_on_selector_all("button", "nodes => nodes.map(node => node.textContent)") == HOSTILE
        tab.keyboard.press("Tab")
        assert focused(tab) == HOSTILE[0] and tab.inner_text("#tooltip") == "number 0"
        for key, at in [("ArrowRight", 1), ("ArrowDown", 4), ("End", 7), ("ArrowUp", 2), ("Home", 0), ("ArrowLeft", 0)]:
            tab.keyboard.press(key)
            assert (focused(tab), tab.inner_text("#tooltip")) == (HOSTILE[at], f"number {at}")
        tab.keyboard.press("Escape")
        assert tab.is_hidden("#tooltip")
        tab.hover("button >> nth=3")
        assert tab.inner_text("#tooltip") == "number 3"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(browser: Any, bare_page: Path, dark: bool) -> None:
    """Ink and faint ink on paper and card have a contrast of 4.5 at least (WCAG 2.2, 1.4.3), light and dark."""

    def luminance(name: str) -> float:
        text = tab.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')").strip()
        channels = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    with opened(browser, bare_page, dark=dark) as tab:
        pairs = [
            (luminance(ink), luminance(paper)) for ink in ("ink", "faint", "accent") for paper in ("paper", "card")
        ]
        assert (luminance("paper") < 0.1) is dark
    assert min((max(pair) + 0.05) / (min(pair) + 0.05) for pair in pairs) >= 4.5


def test_a_page_cannot_ask_the_network(browser: Any, tmp_path: Path, bare_page: Path) -> None:
    """The policy in the page makes the browser refuse what a mistake in a script might ask for."""
    path = tmp_path / "asks.html"
    path.write_text(
        bare_page.read_text().replace("walkable([", 'fetch("http://127.0.0.1:9/x").catch(() => 0); walkable([')
    )
    with pytest.raises(AssertionError, match="Content Security Policy"), opened(browser, path) as tab:
        tab.wait_for_timeout(100)
