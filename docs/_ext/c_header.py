"""The directive c-header: commented declarations of a C header, between its cdef marks, as entries of the C domain.

Functions that follow each other without a blank line share the comment above the first of them."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from plain_text import to_rst
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_PART = re.compile(
    r"(?P<space>\s*)(?:/\*(?P<comment>.*?)\*/"
    r"|(?P<body>(?:typedef\s+)?(?:struct|enum)\b[^;{]*\{.*?\}[^;]*;)|(?P<plain>[^/;{]+;))",
    re.DOTALL,
)
_MEMBER = re.compile(r"\s*(?P<code>[^,;/]+(?:[,;][^\n;/]+(?=;))?)[,;]?[ ]*(?:/\*(?P<comment>.*?)\*/)?", re.DOTALL)
_NAMES = r"(?:fastgpt|FASTGPT)_\w+[a-zA-Z0-9]"


class CHeader(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.relfn2path(self.arguments[0])[1])
        self.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8")
        code = text[text.index("/* cdef:begin */") + 16 : text.index("/* cdef:end */")]
        return self.parse_text_to_nodes("\n".join(_entries(code)), allow_section_headings=True)


def _entries(code: str) -> list[str]:
    known = set(re.findall(_NAMES, re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)))
    link = "|".join(sorted(known, key=len, reverse=True))
    out: list[str] = []
    comment, group, doc, trailing = "", [], "", False

    def flush() -> None:
        if group:
            out.extend(_entry(group, to_rst(doc, link, "c:expr"), link))

    parts = list(_PART.finditer(code))
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        text = part["comment"]
        if text is None:
            new = comment or trailing or "\n\n" in part["space"] or "_free(" in part[0]
            if group and doc and part["plain"] and not new:
                group.append(part[0])
                continue
            flush()
            group, doc, comment, trailing = [part[0]], comment, "", False
        elif group and "\n" not in part["space"]:
            doc, trailing = f"{doc}\n{_clean(text)}", True
        else:
            flush()
            group, doc, comment = [], "", _clean(text)
            if title := re.match(r"-+ (.*?) -+$", comment):
                out.extend([title[1], "-" * len(title[1]), ""])
                comment = ""
            elif after and "\n\n" in after["space"]:
                out.extend(to_rst(comment, link, "c:expr"))
                comment = ""
    flush()
    return out


def _clean(comment: str) -> str:
    return re.sub(r"^ ?\* ?", "", comment.strip(), flags=re.MULTILINE)


def _entry(declarations: list[str], doc: list[str], link: str) -> list[str]:
    code = [" ".join(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).split()).rstrip(";") for text in declarations]
    body = [*("   " + line for line in doc), ""]
    found = re.search(r"(struct|enum)\s*(\w*)\s*\{(.*)\}", declarations[0], re.DOTALL)
    if found is None:
        kind = "type" if code[0].startswith("typedef") else "function"
        names = [re.sub(r"^typedef (struct \w+ )?", "", text) for text in code]
        return [f".. c:{kind}:: " + "\n   ".join(names), "", *body]
    kind, name, members = found[1], found[2], found[3]
    out = [f".. c:{kind}:: {name or '@' + members.split()[0]}", "", *body]
    for member in _MEMBER.finditer(members.rstrip()):
        for declaration in _declarators(" ".join(member["code"].split()), kind):
            out += [f"   .. c:{'enumerator' if kind == 'enum' else 'member'}:: {declaration}", ""]
            comment = " ".join((member["comment"] or "").split())
            out += ["      " + line for line in to_rst(comment, link, "c:expr")]
    return out


def _declarators(code: str, kind: str) -> list[str]:
    """int a, b -> int a; int b"""
    first, *others = code.split(", ") if kind == "struct" and "(" not in code else [code]
    return [first, *(re.sub(r"\w+$", other, first) for other in others)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("c-header", CHeader)
    return {"parallel_read_safe": True}
