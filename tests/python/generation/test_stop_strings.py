"""Stop strings: where a text ends, and what of it can be shown before."""

from __future__ import annotations

import numpy as np
import pytest

from fastgpt_c.generation.stop_strings import StopFinder, _Automaton


def expected_of(text: str, stop: list[str]) -> tuple[str, bool]:
    """The rule itself, read letter by letter: what is shown in the end, and whether a stop string ended it."""
    heads = (text[:end] for end in range(len(text) + 1))
    first = next((head for head in heads if head.endswith(tuple(stop))), None)
    if first is None:
        return text, False
    return first[: -max(len(one) for one in stop if first.endswith(one))], True


def n_possible(text: str, stop: list[str]) -> int:
    """Length of the longest end of text with which a stop string begins."""
    return max(n for n in range(len(text) + 1) if any(one.startswith(text[len(text) - n :]) for one in stop))


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize(("letters", "n_stop", "n_most"), [("ab", 4, 6), ("a", 3, 9), ("abc", 40, 5), ("aé😀", 9, 3)])
def test_a_text_ends_before_the_first_stop_string(seed: int, letters: str, n_stop: int, n_most: int) -> None:
    """Before the longest of those that are complete first, however the text is cut into pieces.  All is shown but what
    may be the beginning of a stop string, and nothing shown is ever taken back."""
    rng = np.random.default_rng(seed)

    def word(n_most: int) -> str:
        return "".join(rng.choice(list(letters), rng.integers(1, n_most + 1)))

    text, stop = word(30), [word(n_most) for _ in range(rng.integers(1, n_stop))]
    expected, stops = expected_of(text, stop)
    cuts = sorted(rng.integers(0, len(text) + 1, 5))
    finder, shown = StopFinder(stop), ""
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        shown += finder.push(text[begin:end])
        if finder.found:
            break
        assert shown == text[: end - n_possible(text[:end], stop)]
    assert (shown + finder.finish(), finder.found) == (expected, stops)


def test_without_stop_strings_all_is_shown() -> None:
    finder = StopFinder([])
    assert (finder.push("abc"), finder.finish(), finder.found) == ("abc", "", False)


def test_a_character_costs_the_same_for_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks at the automaton a character at most: one forward, and one back for each step that went forward."""
    n_looks = 0
    look = _Automaton._child_or_none

    def counted(automaton: _Automaton, node: int, code: int) -> int | None:
        nonlocal n_looks
        n_looks += 1
        return look(automaton, node, code)

    monkeypatch.setattr(_Automaton, "_child_or_none", counted)
    stop = [f"{'a' * (i % 50)}{i}" for i in range(5000)]
    finder = StopFinder(stop)
    assert n_looks <= 2 * sum(map(len, stop))
    n_looks, text = 0, ("a" * 60 + "b") * 20
    assert finder.push(text) == text
    assert n_looks <= 2 * len(text)
