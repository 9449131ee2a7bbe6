"""A real browser that looks at the page: Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_MS = 30_000
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def program() -> str | None:
    """The browser, if there is one."""
    found = map(shutil.which, [os.environ.get("CHROMIUM_BINARY", ""), *NAMES])
    return next(filter(None, found), None)


def require() -> None:
    """Skips the module that calls this where there is no browser."""
    pytest.importorskip("playwright.sync_api")
    if program() is None:
        pytest.skip("Chromium is not installed", allow_module_level=True)


@contextmanager
def running_browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root may not use Chromium's sandbox.
        browser = playwright.chromium.launch(executable_path=program(), chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A visit to a server's page, and what went wrong or elsewhere in it."""

    page: "Page"
    root: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def is_clean(self) -> bool:
        """Nothing was complained of, and nobody but the server was asked."""
        elsewhere = [url for url in self.requests if not url.startswith(("data:", f"{self.root}/"))]
        return not self.complaints and not elsewhere

    def paths(self) -> set[str]:
        return {urlsplit(url).path for url in self.requests if not url.startswith("data:")}


def visit(context: "BrowserContext", root: str) -> Visit:
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    seen = Visit(page, root)
    page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(f"{root}/")
    return seen
