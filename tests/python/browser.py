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

# The ratio of contrast between each visible text and what lies behind it, as WCAG defines it; the smallest with its text.
SMALLEST_CONTRAST = """() => {
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = channels(color).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (; element; element = element.parentElement) {
            const color = getComputedStyle(element).backgroundColor;
            if (channels(color)[3] !== 0) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const ratio = (element) => {
        const style = getComputedStyle(element);
        const text = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
        const [a, b] = [light(text), light(ground(element))].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    };
    const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const shown = [...document.body.querySelectorAll("*")].filter((e) => own(e) && e.getClientRects().length && !["SCRIPT", "STYLE"].includes(e.tagName) && !e.disabled);
    const all = shown.map((element) => [ratio(element), element.textContent]).sort(([a], [b]) => a - b);
    return all[0];
}"""


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
