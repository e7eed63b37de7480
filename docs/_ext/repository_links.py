"""Links of the Markdown pages to files outside docs/, such as ../csrc/model.c, go to the repository.

On GitHub they work as they stand.  In the site they lead to the repository that GITHUB_REPOSITORY names, as it is set
in GitHub's workflows, else to the file on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

_MARK = "https://repository.invalid/"  # until the page is parsed: Markdown's parser refuses file:
_LINK = re.compile(r"(?<=\]\()(?P<path>\.\./[^)#\s]*)(?P<anchor>#[^)\s]*)?(?=\))")


def _point_to_repository(app: Sphinx, docname: str, source: list[str]) -> None:
    docs, page = Path(app.srcdir), Path(app.env.doc2path(docname))

    def replace(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / link["path"]))
        if target.is_relative_to(docs):
            return link[0]
        if not target.exists():
            logging.getLogger(__name__).warning("%s is not there", link["path"], location=docname)
        return _MARK + target.relative_to(docs.parent).as_posix() + (link["anchor"] or "")

    source[0] = _LINK.sub(replace, source[0])


def _resolve(app: Sphinx, doctree: nodes.document) -> None:
    for link in doctree.findall(nodes.reference):
        if link.get("refuri", "").startswith(_MARK):
            link["refuri"] = _base(app) + link["refuri"].removeprefix(_MARK)


def _base(app: Sphinx) -> str:
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        return f"{server}/{repository}/blob/{os.environ.get('GITHUB_SHA', 'main')}/"
    return Path(app.srcdir).parent.as_uri() + "/"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _point_to_repository)
    app.connect("doctree-read", _resolve)
    return {"parallel_read_safe": True}
