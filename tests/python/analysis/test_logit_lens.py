"""The logit lens shows what the hidden states say; its command and its page show what it found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browser import opened
from command import FAILURE, WRONG_USAGE, assert_complains, in_terminal, output_here, output_of, run
from installation import ROOT
from reference import softmax
from scripted import ALPHABET, write_scripted_model

import fastgpt_c
from fastgpt_c.analysis import logit_lens
from fastgpt_c.cli.lens import _columns, _fitted
from fastgpt_c.errors import ContextFullError, FastGPTError
from fastgpt_c.io.html_page import page

if TYPE_CHECKING:
    from models import Tiny

PROMPT = "Once upon a time, there was a little"
# What could do harm in a terminal or in a page.
HOSTILE = "\x1b[31m</script><img src=x onerror=alert(1)> \u202e\x07\n\\ 日本 😀"


# ---- What it finds --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hidden_and_logits(tiny: Tiny) -> tuple[np.ndarray, np.ndarray]:
    """[n_layer + 1][n_tokens][n_embd], [n_layer + 1][n_tokens][n_vocab]"""
    with tiny.model.session() as session:
        hidden = session.inspect(tiny.golden["tokens"], "hidden")["hidden"]
        return hidden, session.unembed(hidden)


def test_each_layer_speaks_for_itself(tiny: Tiny, hidden_and_logits: tuple[np.ndarray, np.ndarray]) -> None:
    """Best tokens, their probabilities, and the answer's probability and rank are those of the unembedded states."""
    seen, p = logit_lens.read(tiny.model, tiny.golden["tokens"]), softmax(hidden_and_logits[1].astype(np.float64))
    np.testing.assert_array_equal(seen.best, np.argsort(-p, axis=-1, kind="stable")[..., :10])
    np.testing.assert_allclose(seen.probability, -np.sort(-p, axis=-1)[..., :10], rtol=1e-9)
    answers = p[-1].argmax(axis=-1)
    own = p[:, np.arange(len(answers)), answers]
    np.testing.assert_allclose(seen.answer_probability, own, rtol=1e-9)
    np.testing.assert_array_equal(seen.answer_rank, 1 + (p > own[..., None]).sum(axis=-1))
    assert seen.answer == answers[-1] and (seen.answer_rank[-1] == 1).all()


def test_the_last_layer_is_the_model(tiny: Tiny) -> None:
    """The answer is the greedy token; surprisal is -log2 of the probability that the model gave to what came."""
    tokens, logits = tiny.golden["tokens"], tiny.golden["logits"].astype(np.float64)
    seen = logit_lens.read(tiny.model, tokens)
    assert seen.answer == logits[-1].argmax()
    expected = -np.log2(softmax(logits[:-1])[np.arange(len(tokens) - 1), tokens[1:]])
    np.testing.assert_allclose(seen.surprisal, expected, rtol=1e-3, atol=1e-3)


def test_the_last_position_alone(tiny: Tiny) -> None:
    """Without the rest it is the last column of the whole."""
    tokens = tiny.golden["tokens"]
    whole, last = logit_lens.read(tiny.model, tokens), logit_lens.read(tiny.model, tokens, whole=False)
    for name in ("best", "probability", "answer_probability", "answer_rank"):
        np.testing.assert_array_equal(getattr(last, name), getattr(whole, name)[:, -1:])
    assert last.surprisal.size == last.attention.size == 0


def test_many_positions(long_model: fastgpt_c.Model) -> None:
    """More than are unembedded together: a prompt's positions are those of its beginning."""
    tokens = np.random.default_rng(0).integers(0, long_model.n_vocab, 3 * logit_lens.ROWS_AT_ONCE + 7)
    long, short = logit_lens.read(long_model, tokens), logit_lens.read(long_model, tokens[:-70])
    np.testing.assert_allclose(long.answer_probability[:, :-70], short.answer_probability, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(long.surprisal[:-70], short.surprisal, rtol=1e-3, atol=1e-4)


def test_what_cannot_be_read(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tokens, too many, and logits that are no numbers: each has its error."""
    with pytest.raises(FastGPTError, match="prompt is empty"):
        logit_lens.read(tiny.model, [])
    with pytest.raises(ContextFullError, match=f"n_ctx of {tiny.model.n_ctx}"):
        logit_lens.read(tiny.model, [1] * (tiny.model.n_ctx + 1))
    rows = np.full((1, tiny.model.n_vocab), np.nan, np.float32)
    monkeypatch.setattr(fastgpt_c.Session, "unembed", lambda *_: rows)
    with pytest.raises(FastGPTError, match=f"after layer {tiny.model.n_layer - 1} .*not finite"):
        logit_lens.read(tiny.model, [1])


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b" girl", "␣girl"),
        (b"\n\t\x00\x1b[0m\x7f", "\\n\\t\\x00\\x1b[0m\\x7f"),
        ("a\u202eb\u2028\xa0\ufeff".encode(), "a\\u202eb\\u2028\\xa0\\ufeff"),
        (b"\\n", "\\\\n"),
        (b"\xe2\x80", "\\xe2\\x80"),
        ("日本é😀<b>".encode(), "日本é😀<b>"),
    ],
)
def test_visible(data: bytes, shown: str) -> None:
    """One line, no control character, nothing that turns the text around, and every byte is seen."""
    model: Any = SimpleNamespace(tokenizer=SimpleNamespace(decode_bytes=lambda _: data))
    assert logit_lens.visible(model, 0) == shown


# ---- The command ----------------------------------------------------------------------------------------


def test_table_says_what_the_json_says(capfd: pytest.CaptureFixture[str]) -> None:
    """A line a layer, counted from 0, in 80 columns: the four likeliest tokens with probabilities, and the answer's."""
    report = json.loads(output_here(capfd, "lens", PROMPT, "--json"))
    title, _, _, _, *lines = output_here(capfd, "lens", PROMPT).splitlines()
    assert title.endswith(
        f"after {len(report['tokens'])} tokens the answer is {report['texts'][str(report['answer'])]}"
    )
    assert [line.split()[0] for line in lines] == ["embed", *map(str, range(report["n_layer"]))]
    for level, line in enumerate(lines):
        words = line.split()[1:]
        assert words[0:8:2] == [report["texts"][str(token)] for token in report["best"][level][-1][:4]]
        shown = [0.0 if word == "<1%" else float(word.rstrip("%")) / 100 for word in (*words[1:8:2], words[8])]
        expected = [*report["probability"][level][-1][:4], report["answer_probability"][level][-1]]
        np.testing.assert_allclose(shown, expected, rtol=0, atol=0.0051)
        assert int(words[9]) == report["answer_rank"][level][-1]
    assert max(map(len, lines)) <= 80


def test_report_has_what_the_page_needs(capfd: pytest.CaptureFixture[str]) -> None:
    """Every position of every layer, a text for every token, and attention up to the token itself."""
    report = json.loads(output_here(capfd, "lens", PROMPT, "--json"))
    n_tokens, n_levels = len(report["tokens"]), report["n_layer"] + 1
    assert np.shape(report["best"]) == np.shape(report["probability"]) == (n_levels, n_tokens, 10)
    assert np.shape(report["answer_rank"]) == np.shape(report["answer_probability"]) == (n_levels, n_tokens)
    assert len(report["surprisal"]) == n_tokens - 1
    assert {str(token) for token in np.ravel(report["best"])} <= set(report["texts"])
    for layer in report["attention"]:
        assert len(layer) == report["n_head"]
        for head in layer:
            assert [len(row) for row in head] == list(range(1, n_tokens + 1))
            np.testing.assert_allclose([sum(row) for row in head], 1, rtol=0, atol=5e-4 * n_tokens)


def test_no_control_character_reaches_the_terminal(tmp_path: Path) -> None:
    """Whatever the prompt is, and the model's name; in a terminal the answer is set off by a colour, and nothing else
    is different."""
    named = write_scripted_model(tmp_path / "\x1b[31m.gguf", ALPHABET)
    shown = (output_of("lens", HOSTILE) + output_of("lens", "abc", "-m", named)).decode()
    assert "\\x1b[31m: after 3 tokens the answer is d" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)
    with in_terminal("lens", PROMPT) as terminal:
        seen, status = terminal.end()
    assert status == 0 and b"\x1b[1;36m" in seen
    assert seen.replace(b"\x1b[1;36m", b"").replace(b"\x1b[0m", b"").replace(b"\r", b"") == output_of("lens", PROMPT)


@pytest.mark.parametrize(
    "text", ["abc", "123456789", "1234567890", "日本語日本語", "日本語日本", "e\u0301" * 12, "😀" * 9]
)
def test_text_is_fitted_to_columns(text: str) -> None:
    """Exactly so many of them, whole characters, with an ellipsis only where something is left out."""
    fitted = _fitted(text, 9)
    assert sum(map(_columns, fitted)) == 9
    assert fitted.rstrip() == text or (fitted.rstrip().endswith("…") and text.startswith(fitted.rstrip()[:-1]))


def test_refusals(tmp_path: Path) -> None:
    """An empty prompt, one too long for a page, and a page that cannot be written: one line each, and no file."""
    assert_complains(run("lens", ""), WRONG_USAGE, "empty")
    assert_complains(run("lens", "a " * 200, "--html", tmp_path / "x.html"), WRONG_USAGE, "128", "shorten")
    assert_complains(run("lens", "a", "--html", tmp_path), FAILURE, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# ---- The page -------------------------------------------------------------------------------------------


def percent(p: float) -> str:
    return "<0.1%" if 0 < p < 0.001 else f"{100 * p:.1f}%"


@pytest.fixture(scope="module")
def page_and_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A page with all that is hostile, and the numbers that it was made of."""
    path = tmp_path_factory.mktemp("lens") / "lens.html"
    return path, json.loads(output_of("lens", PROMPT + HOSTILE, "--json", "--html", path))


def assert_same_numbers(shown: list[str], expected: list[str]) -> None:
    """Texts of percents; both round halves in their own way."""
    for a, b in zip(shown, expected, strict=True):
        assert a == b or abs(float(a.strip("<%")) - float(b.strip("<%"))) < 0.11, (a, b)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_shows_the_report(browser: Any, page_and_report: tuple[Path, dict[str, Any]], dark: bool) -> None:
    """Strip, grid and attention have the report's texts and numbers, by mouse and by keyboard; hostile text is text."""
    path, report = page_and_report
    n_tokens, texts, last = len(report["tokens"]), report["texts"], report["n_layer"]
    with fastgpt_c.load() as model:
        words = logit_lens.inputs(model, report["tokens"])
    with opened(browser, path, dark=dark) as tab:
        assert tab.title().startswith(f"{report['model']} through the logit lens: Once upon a time")
        assert tab.eval_on_selector_all("#text .token", "nodes => nodes.map(node => node.textContent)") == words
        tab.hover("#text .token >> nth=3")
        assert f"{words[3]}\n{report['surprisal'][2]:.2f} bits" in tab.inner_text("#tooltip")

        grid = tab.eval_on_selector_all(
            "#grid tbody tr", "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.textContent))"
        )
        assert grid == [[texts[str(best[0])] for best in row] for row in report["best"]]
        tab.hover("#grid tbody tr:nth-child(3) td:nth-child(6)")
        title, *lines, answer = tab.inner_text("#tooltip").split("\n")
        assert title == f"layer 1, after token 5 {words[4]}"
        assert [line.split()[1] for line in lines] == [texts[str(token)] for token in report["best"][2][4]]
        assert_same_numbers([line.split()[0] for line in lines], [percent(p) for p in report["probability"][2][4]])
        assert answer.endswith(f", rank {report['answer_rank'][2][4]}")

        assert tab.eval_on_selector_all("#grid td", SHADES) == [
            best[0] for row in report["probability"] for best in row
        ]
        tab.click("#by-answer")
        assert tab.eval_on_selector_all("#grid td", SHADES) == np.ravel(report["answer_probability"]).tolist()

        assert f"layer {last - 1}, after token {n_tokens} " in tab.inner_text("#kept h3")
        tab.click("#grid tbody tr:nth-child(1) td:nth-child(2)")
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowDown")
        tab.keyboard.press("Enter")
        assert tab.inner_text("#kept h3") == f"layer 0, after token 2 {words[1]}"
        kept = tab.eval_on_selector_all("#kept td:nth-child(3)", "nodes => nodes.map(node => node.textContent)")
        assert_same_numbers(kept, [percent(p) for p in report["probability"][1][1]])


SHADES = "cells => cells.map(cell => Number(cell.style.getPropertyValue('--p')))"


def test_page_shows_the_attention_of_the_chosen_head(
    browser: Any, page_and_report: tuple[Path, dict[str, Any]]
) -> None:
    """A cell for each pair of tokens that may see each other; heads are chosen by name or by their small maps."""
    path, report = page_and_report
    n_tokens = len(report["tokens"])
    with opened(browser, path) as tab:
        assert tab.locator("#attention td").count() == n_tokens * (n_tokens + 1) // 2
        assert tab.locator("#heads canvas").count() == report["n_layer"] * report["n_head"]
        seen = []
        for layer, head in ((0, 0), (3, 2), (1, 4)):
            if layer == 1:
                tab.click(f"#heads tbody tr:nth-child({layer + 1}) td:nth-child({head + 2})")
                assert (tab.input_value("#layer"), tab.input_value("#head")) == ("1", "4")
            else:
                tab.select_option("#layer", str(layer))
                tab.select_option("#head", str(head))
            tab.hover("#attention tbody tr:nth-child(6) td:nth-child(4)")  # the first child is the row's heading
            seen.append(tab.inner_text("#tooltip").split("\n")[1])
            assert tab.locator('#heads td[aria-selected="true"]').count() == 1
        heads = ((0, 0), (3, 2), (1, 4))
        assert_same_numbers(seen, [percent(report["attention"][layer][head][5][2]) for layer, head in heads])
        assert len(set(seen)) == 3


def test_attention_is_shaded_by_the_row_or_by_all(browser: Any, page_and_report: tuple[Path, dict[str, Any]]) -> None:
    """By the largest weight of the row in proportion, or by 100%, by the root."""
    path, report = page_and_report
    rows = report["attention"][0][0]
    with opened(browser, path) as tab:
        tab.select_option("#layer", "0")
        tab.select_option("#head", "0")
        by_row = [weight / max(row) for row in rows for weight in row]
        np.testing.assert_allclose(tab.eval_on_selector_all("#attention td", SHADES), by_row, rtol=0, atol=3e-3)
        tab.click("#by-all")
        by_root = [weight**0.5 for row in rows for weight in row]
        np.testing.assert_allclose(tab.eval_on_selector_all("#attention td", SHADES), by_root, rtol=0, atol=3e-4)


def test_page_shows_what_made_the_answer(browser: Any, page_and_report: tuple[Path, dict[str, Any]]) -> None:
    """The largest parts as bars, every head and feed-forward part in the map, and what the chosen head read; the head
    is then the one whose attention is large."""
    path, report = page_and_report
    made = report["attribution"]
    heads, feed_forward = np.array(made["heads"]), np.array(made["feed_forward"])
    assert (made["answer"], made["against"]) == tuple(report["best"][-1][-1][:2])
    assert made["total"] == pytest.approx(made["logit"], abs=1e-3)
    with opened(browser, path) as tab:
        bars = dict(
            tab.eval_on_selector_all(
                "#parts tr", "rows => rows.map(row => [...row.cells].slice(0, 2).map(c => c.innerText))"
            )
        )
        numbers = {name: float(text.replace("\N{MINUS SIGN}", "-")) for name, text in bars.items()}
        together = numbers.pop("together")
        assert together == pytest.approx(made["logit"], abs=0.006)
        assert sum(numbers.values()) == pytest.approx(together, abs=0.01 * len(numbers))
        largest = np.unravel_index(np.abs(heads).argmax(), heads.shape)
        assert numbers["head {}.{}".format(*largest)] == pytest.approx(heads[largest], abs=0.006)
        shown = tab.eval_on_selector_all(
            "#added tbody tr", "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.textContent))"
        )
        values = np.array([[float(text.replace("\N{MINUS SIGN}", "-")) for text in row] for row in shown])
        np.testing.assert_allclose(values, np.c_[heads, feed_forward], atol=0.051)
        assert tab.inner_text("#read h3").startswith("What head {}.{} read".format(*largest))
        tab.click("#added tbody tr:nth-child(3) td:nth-child(5)")
        tab.hover("#read .token >> nth=2")
        assert tab.inner_text("#tooltip").startswith("head 2.3 read token 3")
        assert float(tab.inner_text("#tooltip").split()[-1].replace("\N{MINUS SIGN}", "-")) == pytest.approx(
            made["sources"][2][3][2], abs=0.006
        )
        assert (tab.input_value("#layer"), tab.input_value("#head")) == ("2", "3")


def test_a_head_is_switched_off(browser: Any, page_and_report: tuple[Path, dict[str, Any]]) -> None:
    """The page shows what the model says without the chosen head, which is what a prefill with that edit says."""
    path, report = page_and_report
    tokens, without, texts = report["tokens"], report["without"], report["texts"]
    with fastgpt_c.load() as model, model.session() as session:
        logits = session.prefill(tokens, edits=[fastgpt_c.Edit(3, "z", "zero", head=2)])
    p = softmax(logits.astype(np.float64))
    assert without["best"][3][2][0] == p.argmax()
    np.testing.assert_allclose(without["probability"][3][2], np.sort(p)[::-1][:5], atol=1e-3)
    assert without["answer"][3][2] == pytest.approx(p[report["answer"]], abs=1e-3)
    with opened(browser, path) as tab:
        tab.click("#added tbody tr:nth-child(4) td:nth-child(4)")
        assert tab.inner_text("#without") == ""
        tab.click("#off")
        assert tab.inner_text("#off") == "Head 3.2 is off"
        columns = tab.eval_on_selector_all(
            "#without tbody tr", "rows => rows.map(row => [row.cells[0].innerText, row.cells[3].innerText])"
        )
        before = report["best"][-1][-1][:5]
        assert columns == [[texts[str(a)], texts[str(b)]] for a, b in zip(before, without["best"][3][2], strict=True)]
        tab.click("#off")
        assert tab.inner_text("#without") == ""


@pytest.mark.parametrize("width", [380, 1280])
def test_labels_stay_and_tooltips_cover_nothing(browser: Any, tmp_path: Path, width: int) -> None:
    """Of a map that is larger than its window, wherever it is scrolled; the page itself is no wider than its window."""
    output_of("lens", "a b c d e f g h " * 7, "--html", tmp_path / "long.html")
    corner = "({x, y}) => { const map = document.querySelector('.map'); map.scrollLeft = x; map.scrollTop = y; }"
    with opened(browser, tmp_path / "long.html", width=width) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.locator(".map").scroll_into_view_if_needed()
        tab.evaluate(corner, {"x": 150, "y": 200})
        window, column, row, cell = (
            tab.locator(place).bounding_box()
            for place in (".map", "#attention thead th >> nth=14", "#attention tbody th >> nth=20",
                          "#attention tbody tr:nth-child(21) td:nth-child(15)")
        )  # fmt: skip
        assert abs(column["y"] - window["y"]) < 2, "the heading of a column is at the top"
        assert abs(row["x"] - window["x"]) < 2, "the heading of a row is at the left"
        assert abs(column["x"] - cell["x"]) < 2 and abs(row["y"] - cell["y"]) < 4
        tab.hover("#attention tbody tr:nth-child(21) td:nth-child(15)")
        tooltip = tab.locator("#tooltip").bounding_box()
        assert tooltip["y"] >= cell["y"] + cell["height"] or tooltip["y"] + tooltip["height"] <= cell["y"]


def test_the_kept_cell_is_in_sight_beside_the_grid(browser: Any, page_and_report: tuple[Path, dict[str, Any]]) -> None:
    """The last token's at first, to which the grid is scrolled; its detail is at the right where there is room."""
    for width in (380, 1280):
        with opened(browser, page_and_report[0], width=width) as tab:
            cell = tab.locator('#grid td[aria-selected="true"]').bounding_box()
            window, kept = tab.locator(".scroll >> nth=0").bounding_box(), tab.locator("#kept").bounding_box()
            assert window["x"] <= cell["x"] and cell["x"] + cell["width"] <= window["x"] + window["width"]
            assert kept["x"] >= window["x"] + window["width"] if width > 1000 else kept["y"] > window["y"]


# ---- What the page is made of -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        ([b"a", b" b"], ["a", "␣b"]),
        ([b"\xf0\x9f", b"\x98", b"\x80", b"!"], ["😀₁", "😀₂", "😀₃", "!"]),
        ([b" \xf0\x9f\x98", b"\x80\xe6", b"\x97\xa5"], ["␣😀日₁", "␣😀日₂", "␣😀日₃"]),
        ([b"\xf0", b"a"], ["\\xf0", "a"]),
        ([b"\x80", b"\xe6"], ["\\x80", "\\xe6"]),
        ([b"\xf0"] * 20, ["\\xf0"] * 20),
        ([], []),
    ],
)
def test_a_part_of_a_character_is_shown_as_the_character(tokens: list[bytes], shown: list[str]) -> None:
    """And which part it is; bytes that are no character, and characters that do not end, as escapes."""
    tokenizer = SimpleNamespace(decode_bytes=lambda ids: b"".join(tokens[i] for i in ids))
    assert logit_lens.inputs(SimpleNamespace(tokenizer=tokenizer), range(len(tokens))) == shown  # type: ignore[arg-type]


def test_a_page_of_128_tokens_of_a_124m_model_is_small(tmp_path: Path) -> None:
    """Random attention and texts, which nothing compresses: at most 3 MB of HTML."""
    rng, n, n_layer, n_head = np.random.default_rng(0), logit_lens.ROWS_AT_ONCE * 2, 12, 12
    shape = (n_layer + 1, n)
    best, p = rng.integers(0, 4000, (*shape, 10)).astype(np.int32), rng.random((*shape, 10))
    attention = rng.dirichlet(np.full(n, 0.2), (n_layer, n_head, n)).astype(np.float32)
    seen = logit_lens.Lens(best[-1, :, 0], best, p, p[..., 0], best[..., 0], rng.random(n - 1), attention)
    with fastgpt_c.load() as model:
        report = logit_lens.report(model, seen)
        data = logit_lens.page_data(model, report)
    assert len(page("lens", "t", data).encode()) <= 3_000_000
    digits = {digit: i for i, digit in enumerate(logit_lens.BASE64.tobytes().decode())}
    head = data["attention"][3][2]
    roots = [64 * digits[a] + digits[b] for a, b in zip(head[::2], head[1::2], strict=True)]
    expected = [weight for row in report["attention"][3][2] for weight in row]
    np.testing.assert_allclose((np.array(roots) / 4095) ** 2, expected, rtol=0, atol=3e-4)


def test_page_of_one_token(browser: Any, tmp_path: Path) -> None:
    """The shortest text that there is; a narrow window needs no wider page."""
    output_of("lens", "a", "--html", tmp_path / "one.html")
    with opened(browser, tmp_path / "one.html", width=400) as tab:
        assert tab.locator("#attention td").count() == 1 and tab.locator("#text .token").count() == 1
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


# ---- The documentation ----------------------------------------------------------------------------------


def test_documentation_is_true(capfd: pytest.CaptureFixture[str]) -> None:
    """docs/looking_inside.md: the command prints the table that stands there, and so do the programs in Python, which
    run one after the other, where what they print stands there."""
    text = (ROOT / "docs" / "looking_inside.md").read_text(encoding="utf-8")
    assert output_here(capfd, "lens", PROMPT) in text
    names: dict[str, Any] = {}
    for program, printed in re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", text, re.DOTALL):
        exec(program, names)
        shown = capfd.readouterr().out
        assert shown and (not printed or shown == printed)
    names["model"].close()
