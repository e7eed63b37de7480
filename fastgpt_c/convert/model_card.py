"""What a checkpoint says of itself: licence, source and revision, under GGUF's standard keys.

The licence stands in the front matter of README.md (https://huggingface.co/docs/hub/model-cards), the source in the
path of a folder that huggingface_hub made: models--ORG--NAME/snapshots/COMMIT.
"""

from __future__ import annotations

import re
from pathlib import Path

HUB = "https://huggingface.co"
MAX_CARD_BYTES = 64 * 1024
# Of the card, and of GGUF.
FIELDS = {"license": "license", "license_name": "license.name", "license_link": "license.link"}
# license: "my licence"  # a comment; a value that begins like a list, an object or a longer text is something else.
QUOTED = r"""\"(?P<double>[^\"\\]{1,500})\"|'(?P<single>[^']{1,500})'"""
PLAIN = r"""(?P<plain>[^\s\"'\[{|>&*!#](?:(?!\s#).){0,500})"""
LINE = re.compile(rf"(?P<key>\w+):\s+(?:{QUOTED}|{PLAIN})\s*(?:\s#.*)?")


def name_of(folder: Path) -> str:
    """ORG/NAME for a folder of huggingface_hub's cache, else the folder's own name."""
    repository = _repository(folder)
    if repository is not None:
        return repository
    return folder.resolve().name.encode("utf-8", "replace").decode()  # a file system allows names that are not UTF-8


def read_card(folder: Path) -> dict[str, str]:
    """GGUF's keys without "general.", and their texts.  A card that cannot be read says nothing."""
    front = _front_matter(folder / "README.md")
    card = {key: front[field] for field, key in FIELDS.items() if field in front}
    repository = _repository(folder)
    if repository is not None:
        card["source.repo_url"] = f"{HUB}/{repository}"
        card["source.url"] = f"{HUB}/{repository}/tree/{folder.resolve().name}"
    return card


def _repository(folder: Path) -> str | None:
    folder = folder.resolve()
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/")


def _front_matter(path: Path) -> dict[str, str]:
    """The texts of FIELDS between the first two lines "---": plain or quoted text on one line, no other YAML."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CARD_BYTES)
    except (OSError, ValueError):
        return {}
    begin, _, rest = text.lstrip("\ufeff").partition("---\n")
    front, end, _ = rest.partition("\n---")
    lines = (LINE.fullmatch(line) for line in front.split("\n") if not begin and end)
    return {match["key"]: (match["double"] or match["single"] or match["plain"]).strip()
            for match in lines if match and match["key"] in FIELDS}  # fmt: skip
