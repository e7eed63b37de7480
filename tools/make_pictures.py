"""Makes the pictures of docs/ that show pages: docs/images/attribution.png, patch.png and lens.png.

    pip install . playwright pillow && apt-get install chromium
    python tools/make_pictures.py

The pages are those that the commands in docs/taking_apart.md and docs/looking_inside.md write.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent.parent / "docs" / "images"
BALL = "Lily had a red ball. Tim had a hat. Tim said to Lily: I like your"
DRAGON = "Once upon a time, there was a little girl who lived in the forest with a talking dragon."
COMMANDS = {
    "attribution": ["lens", "Tim and Sue went to the park. Tim gave the ball to"],
    "patch": ["patch", BALL, BALL.replace("ball", "kite"), "--answer", " ball", "--against", " kite"],
    "lens": ["lens", DRAGON],
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for name, command in COMMANDS.items():
            path = Path(folder) / f"{name}.html"
            subprocess.run([sys.executable, "-P", "-m", "fastgpt_c", *command, "--html", path], check=True)
            tab = browser.new_page(viewport={"width": 1200, "height": 900})
            tab.goto(path.as_uri())
            shoot(tab, name, IMAGES / f"{name}.png")
            in_few_colours(IMAGES / f"{name}.png")
        browser.close()


def shoot(tab: Any, name: str, target: Path) -> None:
    if name == "attribution":
        tab.click("#off")
        tab.locator("#attribution").screenshot(path=target)
    elif name == "patch":
        for text in ("What attention adds", "What the feed-forward part adds", "The two texts"):
            tab.locator("section", has_text=text).first.evaluate("node => node.remove()")
        tab.locator("main").screenshot(path=target)
    else:
        tab.locator("main").screenshot(path=target)


def in_few_colours(path: Path) -> None:
    """128 colours are enough for such a page, and a third of the bytes."""
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
