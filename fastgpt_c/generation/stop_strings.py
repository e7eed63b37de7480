"""Finds the first of any number of stop strings in a text, in time that does not depend on their number.

The automaton is Aho and Corasick's ("Efficient string matching", 1975): a trie of all stop strings, in which each node
knows the longest proper end of its text that is a node, too.  One is found by looking at each character once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

_ROOT = 0
_N_CHARACTERS = 0x110000


class _Automaton:
    """Node 0 is the empty text, every other node the beginning of a stop string.  Numbers in few objects: a hundred
    thousand stop strings have a million nodes.

    depth        length of a node's text
    stop_length  of the longest stop string that the text ends with; 0 = of none
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.depth, self.stop_length = [0], [0]
        self._children: dict[int, int] = {}  # node * _N_CHARACTERS + character -> node
        self._fallback = [_ROOT]  # the longest proper end of a node's text that is a node
        longer = [(text, _ROOT) for text in set(stop)]
        while longer:  # one character more: whatever a node falls back to is there before it
            longer = [(text, self._child(node, text)) for text, node in longer]
            longer = [(text, node) for text, node in longer if self.depth[node] < len(text)]

    def _child(self, node: int, text: str) -> int:
        """The node of one more character of text, made where it is new."""
        depth = self.depth[node] + 1
        child = self._children.setdefault(node * _N_CHARACTERS + ord(text[depth - 1]), len(self.depth))
        if child == len(self.depth):
            fallback = self.after(self._fallback[node], text[depth - 1]) if node else _ROOT
            self._fallback.append(fallback)
            self.depth.append(depth)
            self.stop_length.append(self.stop_length[fallback])
        if depth == len(text):
            self.stop_length[child] = depth
        return child

    def after(self, node: int, character: str) -> int:
        """The node of the longest end of a node's text and a character."""
        code = ord(character)
        while (child := self._child_or_none(node, code)) is None:
            if node == _ROOT:
                return _ROOT
            node = self._fallback[node]
        return child

    def _child_or_none(self, node: int, code: int) -> int | None:
        return self._children.get(node * _N_CHARACTERS + code)


@lru_cache(maxsize=1)
def _automaton(stop: tuple[str, ...]) -> _Automaton:
    """Cached, since the texts of a batch share it; it is not modified once it is made."""
    return _Automaton(stop)


class StopFinder:
    """Text in, text out up to the first stop string; holds back what may be the beginning of one.

    The first is the one that is complete first, and of those the longest.  How the text is cut into pieces makes no
    difference.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._automaton = _automaton(tuple(stop))
        self._node = _ROOT
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that can no longer be part of a stop string."""
        n_held, text = len(self._held), self._held + text
        node, automaton = self._node, self._automaton
        for at in range(n_held, len(text)):
            node = automaton.after(node, text[at])
            if stop_length := automaton.stop_length[node]:
                self.found = True
                self._held = ""
                return text[: at + 1 - stop_length]
        self._node = node
        n_shown = len(text) - automaton.depth[node]
        self._held = text[n_shown:]
        return text[:n_shown]

    def finish(self) -> str:
        """What was held back, now that no more text comes."""
        rest, self._held = self._held, ""
        return rest
