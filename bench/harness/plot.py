"""A plot of the table, as SVG: bars of tokens a second, grouped by work, one colour an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1b6ca8", "#e07b39", "#5b8c5a", "#a23b72", "#8d99ae")
WIDTH, LABEL, VALUE, BAR, GAP, TOP = 860, 250, 110, 13, 16, 60


@dataclass(frozen=True)
class Bar:
    """value: how many times as fast as the best bar of its group is drawn; text: what stands beside it."""

    series: int
    label: str
    value: float
    text: str


@dataclass(frozen=True)
class Group:
    name: str
    bars: Sequence[Bar]


def svg(title: str, series: Sequence[str], groups: Sequence[Group]) -> str:
    """Each group has a scale of its own: its longest bar fills the room between label and value."""
    parts, y = [_text(10, 24, title, size=16), _legend(series)], TOP
    for group in groups:
        parts.append(_text(10, y + 12, group.name, size=12, bold=True))
        y += BAR + 6
        longest = max((bar.value for bar in group.bars), default=1) or 1
        for bar in group.bars:
            parts.append(_bar(bar, y, longest))
            y += BAR + 3
        y += GAP
    style = "font-family:sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" style="{style}">\n'
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bar(bar: Bar, y: int, longest: float) -> str:
    length = max(1.0, (WIDTH - LABEL - VALUE) * bar.value / longest)
    colour = COLOURS[bar.series % len(COLOURS)]
    return (
        _text(LABEL - 8, y + 11, bar.label, size=11, end=True)
        + f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'
        + _text(LABEL + length + 6, y + 11, bar.text, size=11)
    )


def _legend(series: Sequence[str]) -> str:
    parts = []
    for i, name in enumerate(series):
        x = 10 + 150 * i
        parts.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>')
        parts.append(_text(x + 18, 46, name, size=12))
    return "".join(parts)


def _text(x: float, y: float, text: str, size: int, bold: bool = False, end: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{weight}{anchor}>{escape(text)}</text>'
