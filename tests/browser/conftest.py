"""The dashboard in a real headless Chromium. Without Chromium or Playwright these tests skip and say so.

Every test ends with two promises checked: no request left the dashboard's origin, and the browser had nothing to say
against a page (an error of a script, something that the Content-Security-Policy stopped). A test that fails leaves a
picture of its page in SCREENSHOTS.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / ".screenshots"
sys.path.insert(0, str(ROOT / "tests" / "unit"))


# Not for the session: Playwright keeps an event loop running meanwhile, in which no other test can run one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install -r requirements.txt")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield launched
        launched.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.when == "call" and report.failed and "page" in getattr(item, "funcargs", {}):
        SCREENSHOTS.mkdir(exist_ok=True)
        name = SCREENSHOTS / f"{re.sub(r'[^a-z0-9_]+', '-', item.name.lower())}.png"
        item.funcargs["page"].screenshot(path=str(name), full_page=True)
        report.sections.append(("screenshot", str(name)))
    return report


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    asked: set[str] = set()
    complaints: list[str] = []
    opened.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.complaints = complaints
    yield opened
    own = {urlsplit(opened.url).netloc}
    context.close()
    assert asked <= own
    # The browser tells each answer of 403 and 404 as an error of its own.
    assert [text for text in complaints if "Failed to load resource" not in text] == []
