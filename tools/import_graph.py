"""The modules of a Python package, what each imports, and whether there is a circle.

    python tools/import_graph.py [FOLDER]

Every import counts: those inside of functions and those for type checkers alone, too.  Prints the packages with the
packages that they import, then the modules with theirs; the exit status is 1 where modules import each other in a
circle.  FOLDER is the package's, fastgpt_c if it is not given.  Which packages may import which is in pyproject.toml,
and  lint-imports  checks it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

Graph = dict[str, set[str]]


def import_graph(folder: Path) -> Graph:
    """{module: modules of the same package that it imports}; a package's __init__.py has the package's name."""
    files = {_module_name(folder, path): path for path in sorted(folder.rglob("*.py"))}
    return {name: set(_imports(name, path, set(files))) - {name} for name, path in files.items()}


def circles(graph: Graph) -> list[list[str]]:
    """The groups of modules that can be reached from each other (strongly connected components), by Tarjan 1972."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in order:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return found


def of_packages(graph: Graph) -> Graph:
    """The same for the parts right below the top: packages, and modules that lie there."""
    parts: Graph = {_part(module): set() for module in graph}
    for module, others in graph.items():
        parts[_part(module)] |= {_part(other) for other in others} - {_part(module)}
    return parts


def _part(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _module_name(folder: Path, path: Path) -> str:
    parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(module: str, path: Path, modules: set[str]) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            for alias in node.names:  # modules of a package, or names in a module
                yield from [name for name in (f"{source}.{alias.name}", source) if name in modules][:1]


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent / "fastgpt_c"
    graph = import_graph(folder)
    for title, some in (("Packages", of_packages(graph)), ("Modules", graph)):
        print(f"{title}:")
        for name, others in sorted(some.items()):
            print(f"  {name} -> {', '.join(sorted(others)) or '-'}")
    for circle in (found := circles(graph)):
        print(f"CIRCLE: {' <-> '.join(circle)}")
    print(f"{len(graph)} modules, {sum(map(len, graph.values()))} imports, {len(found) or 'no'} circles")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
