"""The playground in Debian's Chromium, which is never connected to the network."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.serving.playground.stub import Stub

CHROMIUM = shutil.which("chromium")
WAIT_MS = 60_000
# The browser's own advice, and responses with an error status, which tests cause.
HARMLESS = ("verbose", "Failed to load resource")


# Playwright's event loop runs until the end of the file; tests of other files start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "chromium is missing; `make environments` installs it"
        pytest.skip("chromium is not installed: apt-get install chromium")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield opened
        opened.close()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens the page of a server; at the end, its console must have no errors."""
    problems: list[str] = []
    contexts = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(HARMLESS):
            problems.append(message.text)

    def open_context(url: str, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
        page.goto(url)
        return page

    yield open_context
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as running:
        yield running
