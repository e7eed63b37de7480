"""Self-contained HTML pages: data, style and script in one file that asks no network for anything.

A page NAME is made of NAME.html (the markup inside <main>), NAME.css and NAME.js, which lie in pages/ beside base.css.
NAME.js is an ES module; the modules that it imports are put before it, so that the page is one script in one file, and
style sheets that NAME.css imports before that.  Its data are the text of the element #data.
"""

from __future__ import annotations

import html
import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

from fastgpt_c.io.atomic_files import write_text

# The browser itself holds the page to its promise: nothing is fetched, from anywhere.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)

IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w]+\.js)";\n', re.MULTILINE)
IMPORTED_STYLE = re.compile(r'^@import "\./([\w]+\.css)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=async function|function|class|const|let)", re.MULTILINE)

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}</main>
<script id="data" type="application/json">{data}</script>
<script>
{script}</script>
</body>
</html>
"""


def write_page(target: Path, name: str, title: str, data: Any) -> None:
    """Writes the page NAME to target, whole or not at all.

    title  plain text
    data   what JSON can hold; a number that is not finite raises ValueError
    Raises FastGPTError where target cannot be written.
    """
    write_text(target, page(name, title, data))


def page(name: str, title: str, data: Any) -> str:
    """The text of the page NAME; arguments as in write_page."""
    return PAGE.format(
        policy=html.escape(POLICY),
        title=html.escape(title),
        style=_part("base.css") + _style(f"{name}.css"),
        body=_part(f"{name}.html"),
        data=embedded_json(data),
        script='"use strict";\n' + _script(f"{name}.js", set()),
    )


def embedded_json(data: Any) -> str:
    """data as JSON that may stand inside a <script> element: no text in it, such as "</script>" or "<!--", can end the
    element, for no "<" is left."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _part(file: str) -> str:
    return (importlib.resources.files("fastgpt_c") / "pages" / file).read_text(encoding="utf-8")


def _style(file: str) -> str:
    """A style sheet behind those that it imports at its beginning."""
    text = _part(file)
    return "".join(map(_style, IMPORTED_STYLE.findall(text))) + IMPORTED_STYLE.sub("", text)


def _script(file: str, included: set[str]) -> str:
    """A module as a plain script behind those that it imports, each of them once.  Top-level names share a scope."""
    included.add(file)
    text = _part(file)
    needed = [_script(other, included) for other in IMPORT.findall(text) if other not in included]
    return "".join(needed) + EXPORT.sub("", IMPORT.sub("", text))
