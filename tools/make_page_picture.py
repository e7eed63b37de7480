#!/usr/bin/env python3
"""Makes docs/images/page.png: the page of `fastgpt-c serve`, as Chromium shows it with the demo model.

    python tools/make_page_picture.py

needs fastgpt-c[serve], playwright, Pillow and Chromium.  The seed is fixed, so the text changes only with the model.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "page.png"
PROMPT = "Once upon a time, there was a little girl. One day, a talking"
# What the page reads behind "#": 36 tokens, this seed, and how tokens are drawn.
STATE = "#tab=lens&max_tokens=36&seed=4&temperature=0.8&top_p=0.9"


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server of the demo model."""
    command = [sys.executable, "-m", "fastgpt_c", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/") as process:
        try:
            assert process.stderr is not None
            url = ""
            for line in process.stderr:
                if found := re.search(r"listening on (http\S+)", line):
                    url = found[1]
                if "is ready" in line:
                    break
            yield url
        finally:
            process.terminate()


def main() -> None:
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with server() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 980}, color_scheme="light")
        tab.goto(f"{url}/{STATE}")
        tab.fill("#editor", PROMPT)
        tab.wait_for_selector("#choices .pick")
        tab.click("#write")
        tab.wait_for_selector('#status:has-text("token")')
        tab.wait_for_selector("#write:not([hidden])")
        tab.click("#text .token >> nth=17")
        tab.wait_for_selector("#choices [aria-current=true]")
        tab.wait_for_selector("#grid td")
        tab.mouse.move(2, 2)
        tab.wait_for_timeout(500)
        picture = Image.open(BytesIO(tab.screenshot()))
        browser.close()
    picture.quantize(128).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
