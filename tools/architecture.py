"""The folders of csrc/: what uses what, whether csrc/folders.txt allows it, and a picture of that table.

    python tools/architecture.py            prints the arrows between folders, those that are wrong, and circles
    python tools/architecture.py --draw     writes docs/images/architecture.svg

A file uses those that it includes, and those that define a function it calls.  The files that make a circle, or an
arrow that the table does not allow, end the first command with status 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

Graph = dict[str, set[str]]  # who uses whom

# ---- What the table allows ---------------------------------------------------------------------------


def read_table(csrc: Path) -> Graph:
    """The arrows that folders.txt names."""
    table: Graph = {}
    for line in (csrc / "folders.txt").read_text("ascii").splitlines():
        if line and not line.startswith("#"):
            folder, _, used = line.partition(":")
            table[folder] = set(used.split())
    return table


def reachable(graph: Graph, start: str) -> set[str]:
    """All that start uses, directly or not; start itself only in a circle."""
    found: set[str] = set()
    ahead = list(graph.get(start, ()))
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead.extend(graph.get(node, ()))
    return found


def circles(graph: Graph) -> list[list[str]]:
    """The sets of nodes that all reach each other."""
    reach = {node: reachable(graph, node) for node in graph}
    found = {tuple(sorted(other for other in reach[node] if node in reach.get(other, ()))) for node in graph}
    return [list(circle) for circle in sorted(found) if circle]


# ---- What the files do -------------------------------------------------------------------------------


def sources(csrc: Path) -> dict[str, str]:
    """The C files, without their comments."""
    paths = sorted([*csrc.rglob("*.c"), *csrc.rglob("*.h")])
    texts = {path.relative_to(csrc).as_posix(): path.read_text("utf-8") for path in paths}
    return {name: re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL) for name, text in texts.items()}


def includes(texts: dict[str, str]) -> Graph:
    """Which files each file includes.  Only the public header goes by its bare name."""
    graph: Graph = {}
    for name, text in texts.items():
        named = re.findall(r'^#include "([^"]+)"', text, re.MULTILINE)
        graph[name] = {"include/fastgpt.h" if file == "fastgpt.h" else file for file in named}
    return graph


FUNCTION = re.compile(r"^(?!typedef)(static )?[a-z][\w *]*?(\w+)\([^;{}]*\) \{", re.MULTILINE)
CONSTANT = re.compile(r"^const \w+ (\w+)[^;]*? = ", re.MULTILINE)
MACRO = re.compile(r"^#define (?:.*\\\n)*.*", re.MULTILINE)


def calls(texts: dict[str, str]) -> Graph:
    """Which .c files define the functions and constants that each .c file, or a macro of each header, uses."""
    bodies = {name: text for name, text in texts.items() if name.endswith(".c")}
    own: dict[str, set[str]] = {}
    functions: dict[str, str] = {}
    constants: dict[str, str] = {}
    for name, text in bodies.items():
        found = FUNCTION.findall(text)
        own[name] = {function for _, function in found}
        functions.update((function, name) for static, function in found if not static)
        constants.update((constant, name) for constant in CONSTANT.findall(text))
    graph: Graph = {}
    for name, text in bodies.items():
        called = set(re.findall(r"\b(\w+)\(", text)) - own[name]
        used = {functions[function] for function in called if function in functions}
        used |= {constants[word] for word in re.findall(r"\b\w+\b", text) if word in constants}
        graph[name] = used - {name}
    for name in texts.keys() - bodies.keys():
        words = re.findall(r"\w+", " ".join(MACRO.findall(texts[name])))
        graph[name] = {constants[word] for word in words if word in constants}
    return graph


def uses(csrc: Path) -> Graph:
    """Which files each file uses."""
    texts = sources(csrc)
    graph = includes(texts)
    for name, used in calls(texts).items():
        graph[name] |= used
    return graph


# ---- Files against the table -------------------------------------------------------------------------


def folder_of(file: str, table: Graph) -> str:
    """The folder of the table that a file belongs to: of several that of the longest name, "" for none."""
    return max((folder for folder in table if f"{file}/".startswith(f"{folder}/")), key=len, default="")


def between_folders(files: Graph, table: Graph) -> dict[tuple[str, str], list[str]]:
    """The arrows that leave a folder, and "file -> file" for each that makes one."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for file in sorted(files):
        for used in sorted(files[file]):
            arrow = folder_of(file, table), folder_of(used, table)
            if arrow[0] != arrow[1] or "" in arrow:
                arrows.setdefault(arrow, []).append(f"{file} -> {used}")
    return arrows


def wrong_arrows(files: Graph, table: Graph) -> list[str]:
    """The arrows between folders that the table has not, and those that it has for nothing, a sentence each."""
    arrows = between_folders(files, table)
    found: list[str] = []
    for (folder, used), why in sorted(arrows.items()):
        if not folder:
            found += ["folders.txt has no line for {}, which uses {}".format(*arrow.split(" -> ")) for arrow in why]
        elif used not in reachable(table, folder):
            found += [f"folders.txt does not let {folder} use {used or 'that'}: {arrow}" for arrow in why]
    for folder in table:
        left_over = table[folder] - {used for user, used in arrows if user == folder}
        found += [f"folders.txt lets {folder} use {used}, which it does not" for used in sorted(left_over)]
    return found


# ---- The operating system ----------------------------------------------------------------------------

# Headers of C itself, of the CPU's vectors and of BLAS.  All others are an operating system's.
KNOWN_HEADERS = {
    "Accelerate/Accelerate", "arm_neon", "assert", "cblas", "ctype", "errno", "fastgpt", "float", "immintrin",
    "inttypes", "limits", "math", "stdarg", "stdatomic", "stdbool", "stddef", "stdint", "stdio", "stdlib", "string",
    "time",
}  # fmt: skip
# The files that may know it: os.h and what implements it, what OpenBLAS and Python see of it, how the command begins.
KNOWING_FILES = re.compile(r"common/os(_\w+)?\.[ch]|matmul/openblas_os\.[ch]|extension/guard\.c|cli/windows\.c")


def system_headers(csrc: Path) -> list[str]:
    """A sentence for each #include of a header of the operating system in a file that should ask os.h."""
    return [
        f"{file} includes <{header}.h>: only common/os.h and what implements it know the operating system"
        for file, text in sources(csrc).items()
        if not KNOWING_FILES.fullmatch(file)
        for header in re.findall(r"#\s*include <([\w/]+)\.h>", text)
        if header not in KNOWN_HEADERS
    ]


def faults(csrc: Path) -> list[str]:
    """What is wrong, a sentence each; the empty list when files and table agree."""
    table, files = read_table(csrc), uses(csrc)
    found = [f"a circle of folders in folders.txt: {', '.join(circle)}" for circle in circles(table)]
    found += [f"a circle of files: {', '.join(circle)}" for circle in circles(files)]
    found += [
        f"folders.txt has a line for {folder}, which is not there" for folder in table if not (csrc / folder).exists()
    ]
    return found + system_headers(csrc) + wrong_arrows(files, table)


# ---- The picture -------------------------------------------------------------------------------------

BOX_WIDTH, BOX_HEIGHT, GAP, LEVEL_HEIGHT, MARGIN = 144, 30, 20, 58, 16

STYLE = """\
  <style>
    text { font: 13px ui-monospace, monospace; text-anchor: middle; fill: #1f2328 }
    rect { fill: #f6f8fa; stroke: #59636e }
    path { fill: none; stroke: #59636e }
    #head path { fill: #59636e; stroke: none }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc }
      rect { fill: #151b23; stroke: #9198a1 }
      path { stroke: #9198a1 }
      #head path { fill: #9198a1 }
    }
  </style>
  <marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">
    <path d="M0 0L8 4L0 8z"/>
  </marker>"""


def levels(table: Graph) -> dict[str, int]:
    """The row of each folder, 0 at the bottom: above all that it uses, and as near to those that use it as can be."""
    level: dict[str, int] = {}

    def visit(folder: str) -> int:
        if folder not in level:
            level[folder] = max((visit(used) + 1 for used in table[folder]), default=0)
        return level[folder]

    for folder in sorted(table, key=visit, reverse=True):
        level[folder] = min((level[user] - 1 for user in table if folder in table[user]), default=level[folder])
    return level


def with_waypoints(table: Graph, level: dict[str, int]) -> tuple[list[list[str]], dict[str, list[str]]]:
    """The rows of the picture from top to bottom, and what is below each of their members.  An arrow that passes a row
    has a waypoint "a>b" there, so that it goes around boxes."""
    rows: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    below: dict[str, list[str]] = {}
    for folder in table:
        rows[level[folder]].append(folder)
    for folder in table:
        for used in sorted(table[folder]):
            last = folder
            for row in range(level[folder] - 1, level[used], -1):
                point = f"{folder}>{used}@{row}"
                rows[row].append(point)
                below.setdefault(last, []).append(point)
                last = point
            below.setdefault(last, []).append(used)
    return rows[::-1], below


def untangle(rows: list[list[str]], below: dict[str, list[str]]) -> None:
    """Orders each row by where its neighbours stand, down and up again, which leaves few arrows that cross."""
    above: dict[str, list[str]] = {}
    for node, under in below.items():
        for other in under:
            above.setdefault(other, []).append(node)
    for sweep in range(8):
        neighbours, order = (above, rows) if sweep % 2 == 0 else (below, rows[::-1])
        place = {node: i - len(row) / 2 for row in rows for i, node in enumerate(row)}
        for row in order:
            weight = {node: mean([place[other] for other in neighbours.get(node, [node])]) for node in row}
            row.sort(key=lambda node: (weight[node], node))
            place.update((node, i - len(row) / 2) for i, node in enumerate(row))


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def places(rows: list[list[str]]) -> tuple[dict[str, tuple[float, float]], float, float]:
    """The centre of each box and waypoint, and the size of the picture."""
    widths = [sum(GAP + (0 if "@" in node else BOX_WIDTH) for node in row) - GAP for row in rows]
    full = max(widths)
    place: dict[str, tuple[float, float]] = {}
    for i, (row, width) in enumerate(zip(rows, widths, strict=True)):
        x = MARGIN + (full - width) / 2
        for node in row:
            size = 0 if "@" in node else BOX_WIDTH
            place[node] = x + size / 2, MARGIN + BOX_HEIGHT / 2 + i * LEVEL_HEIGHT
            x += size + GAP
    return place, full + 2 * MARGIN, (len(rows) - 1) * LEVEL_HEIGHT + BOX_HEIGHT + 2 * MARGIN


def curve(points: list[tuple[float, float]]) -> str:
    """The path of an arrow from the bottom of a box, by its waypoints, to the top of another."""
    (x, y), *rest = points
    y += BOX_HEIGHT / 2
    path = f"M{x:g} {y:g}"
    for i, (to_x, to_y) in enumerate(rest):
        end = to_y - BOX_HEIGHT / 2
        middle = (y + end) / 2
        path += f"C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {end:g}"
        x, y = to_x, end
        if i < len(rest) - 1:
            y = to_y + BOX_HEIGHT / 2
            path += f"V{y:g}"
    return path


def svg(table: Graph) -> str:
    """The table as a picture."""
    rows, below = with_waypoints(table, levels(table))
    untangle(rows, below)
    place, width, height = places(rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">',
        "  <!-- Drawn by tools/architecture.py from csrc/folders.txt; do not edit. -->",
        "  <title>The folders of csrc/: an arrow goes from a folder to one that it uses</title>",
        STYLE,
    ]
    for folder in table:
        for node in below.get(folder, []):
            chain = [folder, node]
            while "@" in chain[-1]:
                chain += below[chain[-1]]
            path = curve([place[point] for point in chain])
            lines.append(f'  <path d="{path}" marker-end="url(#head)"/> <!-- {folder} uses {chain[-1]} -->')
    for folder in table:
        x, y = place[folder]
        box = f'x="{x - BOX_WIDTH / 2:g}" y="{y - BOX_HEIGHT / 2:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="4"'
        lines.append(f'  <rect {box}/><text x="{x:g}" y="{y + 4.5:g}">{folder}</text>')
    return "\n".join([*lines, "</svg>", ""])


# ---- The command -------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="What the folders of csrc/ use, and whether they may.")
    parser.add_argument("--draw", action="store_true", help=f"write {PICTURE.relative_to(ROOT)}")
    if parser.parse_args().draw:
        PICTURE.write_text(svg(read_table(CSRC)), "ascii")
        return 0
    files = uses(CSRC)
    for (folder, used), why in sorted(between_folders(files, read_table(CSRC)).items()):
        print(f"{folder} -> {used}  ({len(why)})")
    found = faults(CSRC)
    print(*found, sep="\n", end="\n" if found else "")
    n_arrows = sum(len(used) for used in files.values())
    print(f"{len(files)} files, {n_arrows} arrows; circles of files: {len(circles(files))}; faults: {len(found)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
