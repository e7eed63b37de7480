"""A headless Chromium that opens pages and notes what they complain of and ask for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """A playwright Browser; skips the test where Chromium or playwright is missing."""
    driver = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to test pages in a browser")
    if CHROMIUM is None:
        pytest.skip("apt-get install chromium, to test pages in a browser")
    with driver.sync_playwright() as playwright:
        # A container's root has no sandbox to run in, and a small /dev/shm.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, *, dark: bool = False, width: int = 1200) -> Iterator[Any]:
    """A playwright Page with the file open.  Fails when the page said anything on the console, or asked for anything
    but itself."""
    tab = browser.new_page(color_scheme="dark" if dark else "light", viewport={"width": width, "height": 900})
    complaints: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    yield tab
    assert not complaints, complaints
    assert requests == [path.as_uri()], requests
    tab.close()
