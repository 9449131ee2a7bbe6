"""The page at `/` in a real browser: what it shows, whom it asks, and that it can be used by everybody."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import browser
import scripted_server
from backstop_process import BackstopProcess
from browser import DESKTOP, PATIENCE_MS, PHONE, SMALLEST_CONTRAST, Visit, visit

browser.require()

from playwright.sync_api import Error  # noqa: E402  (only where it is installed)

KEY = "the-operators-key"
needs_scripted = pytest.mark.skipif(
    not scripted_server.SCRIPTED_SERVER.is_file(), reason="build the scripted server: see README.md"
)

# Every text that the answer has had while it grew.
WATCH_ANSWER = """() => {
    window.lengths = [];
    const answer = document.getElementById("answer");
    new MutationObserver(() => window.lengths.push(answer.textContent.length)).observe(answer, { childList: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.running_browser() as running:
        yield running


@contextmanager
def visited(chromium: Any, server: BackstopProcess | str, **options: Any) -> Iterator[Visit]:
    """A visit in a profile of its own, that of somebody with a desktop unless `options` say otherwise."""
    root = server if isinstance(server, str) else server.root
    context = chromium.new_context(**{"viewport": DESKTOP, **options})
    try:
        yield visit(context, root)
    finally:
        context.close()


@pytest.fixture
def keyed(start: Callable[..., BackstopProcess], tmp_path: Path) -> BackstopProcess:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY} name=operator may-see-all-keys\n")
    keys.chmod(0o600)
    return start("--api-key-file", str(keys)).wait_until_ready()


def content(seen: Visit) -> Any:
    """The page once it shows the status."""
    seen.page.wait_for_selector("#content:not([hidden])")
    return seen.page


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.tagName")


def tab_to(page: Any, name: str) -> None:
    """Goes forward until an element has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if focused(page) == name:
            return
    raise AssertionError(f"#{name} cannot be reached with the keyboard")


def until(page: Any, condition: Callable[[], bool], what: str = "the condition") -> None:
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true"
        # The browser goes on meanwhile.
        page.wait_for_timeout(20)


def eventually(page: Any, condition: str, argument: Any = None) -> None:
    """Waits for a condition. Playwright's own waiting evaluates texts in the page, which its policy forbids."""
    until(page, lambda: page.evaluate(condition, argument), f"{condition} {argument or ''}")


def wait_for_text(page: Any, selector: str, text: str) -> None:
    eventually(page, "([s, t]) => document.querySelector(s).textContent.includes(t)", [selector, text])


def test_the_page_shows_the_server_and_asks_nobody_else(chromium: Any, server: BackstopProcess) -> None:
    missing = httpx.get(f"{server.root}/nowhere", headers={"x-request-id": "trace-of-a-test"})
    assert missing.status_code == 404
    with visited(chromium, server) as seen:
        page = content(seen)
        assert page.inner_text("#state") == "ready"
        assert page.title() == "ready – Backstop"
        assert "demo@" in page.inner_text("#model")
        assert page.locator("#charts svg").count() == 6
        assert "trace-of-a-test" in page.inner_text("#errors")
        assert [row.split("\t")[1] for row in page.inner_text("#states tbody").split("\n")] == ["loading", "warming", "ready"]
        assert "weights" in page.inner_text("#timeline")
        assert "passed" in page.inner_text("#canaries")
        assert not page.is_visible("#keys-section") and not page.is_visible("#forget")
        # A sample comes every five seconds, and then a line is drawn of it.
        eventually(page, "document.querySelector('#charts path').getAttribute('d') !== ''")
        assert seen.is_clean(), (seen.complaints, seen.requests)
        assert seen.paths() == {"/", "/backstop/status"}


def test_keys_are_asked_for_kept_in_the_tab_and_forgotten(chromium: Any, keyed: BackstopProcess) -> None:
    with visited(chromium, keyed) as seen:
        page = seen.page
        page.wait_for_selector("#key:focus")
        # Nothing was asked of the server before there was a key to ask with.
        assert seen.is_clean() and seen.paths() == {"/"}
        page.keyboard.type("a-wrong-key-1")
        page.keyboard.press("Enter")
        wait_for_text(page, "#sign-in-error", "401")
        assert not page.is_visible("#content")
        assert page.evaluate("sessionStorage.length") == 0
        page.keyboard.type(KEY)
        page.keyboard.press("Enter")
        content(seen)
        assert not page.is_visible("#sign-in")
        # The refused key is a line of its own, and those who use the server have names.
        assert "invalid_api_key" in page.inner_text("#errors")
        page.fill("#prompt", "Hello")
        page.click("#send")
        wait_for_text(page, "#answer-facts", "generated")
        eventually(page, "document.getElementById('keys').textContent.includes('operator')")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        assert not any(KEY in url for url in seen.requests)
        page.reload()
        content(seen)
        page.click("#forget")
        page.wait_for_selector("#key:focus")
        assert page.evaluate("sessionStorage.length") == 0


def test_a_prompt_is_tried_with_the_keyboard_alone(chromium: Any, server: BackstopProcess) -> None:
    with visited(chromium, server) as seen:
        page = content(seen)
        page.evaluate(WATCH_ANSWER)
        tab_to(page, "prompt")
        page.keyboard.type("Write a function that adds two numbers.")
        page.keyboard.press("Tab")
        assert focused(page) == "max-tokens"
        page.keyboard.press("Control+a")
        page.keyboard.type("64")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Control+Enter")
        wait_for_text(page, "#answer-facts", "generated")
        assert page.evaluate("new Set(window.lengths).size") > 2, "the answer did not come in pieces"
        # Screen readers get the same, in whole sentences.
        said, spoken = page.evaluate("['answer', 'spoken'].map((id) => document.getElementById(id).textContent)")
        assert said and spoken == said
        assert page.get_attribute("#answer", "aria-busy") == "false"
        assert focused(page) == "prompt"
        assert seen.is_clean(), (seen.complaints, seen.requests)
    server.wait_until_idle()


def test_a_chart_is_read_with_the_arrow_keys(chromium: Any, server: BackstopProcess) -> None:
    with visited(chromium, server) as seen:
        page = content(seen)
        eventually(page, "document.querySelector('#charts path').getAttribute('d') !== ''")
        page.focus("#charts svg")
        page.keyboard.press("Home")
        shown = page.inner_text("#cursor-time")
        assert shown.startswith("at ")
        assert page.get_attribute("#charts svg", "aria-label") == "Tokens per second"
        assert page.get_attribute("#charts svg", "aria-valuetext").startswith(f"{shown}: generated ")
        page.keyboard.press("Tab")
        assert page.inner_text("#cursor-time") == ""


def test_escape_stops_a_request_and_the_server_hears_of_it(chromium: Any, start: Callable[..., BackstopProcess]) -> None:
    server = start("--max-num-seqs", "1").wait_until_ready()

    def requests() -> int:
        return httpx.get(f"{server.root}/backstop/status").json()["requests_in_flight"]

    with server.occupied(), visited(chromium, server) as seen:
        page = content(seen)
        assert requests() == 1
        page.fill("#prompt", "Hello")
        page.click("#send")
        wait_for_text(page, "#answer-facts", "waiting for the first token")
        until(page, lambda: requests() == 2)
        page.focus("#prompt")
        page.keyboard.press("Escape")
        wait_for_text(page, "#answer-facts", "stopped")
        assert page.is_enabled("#send") and page.is_disabled("#stop")
        until(page, lambda: requests() == 1)


@needs_scripted
def test_an_answer_is_text_whatever_it_says(chromium: Any, scripted: Callable[..., str]) -> None:
    hostile = "<img src=/x onerror=alert(1)><script>document.title='gone'</script>"
    root = scripted(scripted_server.says(hostile)).removesuffix("/v1")
    with visited(chromium, root) as seen:
        page = content(seen)
        page.fill("#prompt", "Go on.")
        page.click("#send")
        wait_for_text(page, "#answer-facts", "generated")
        assert hostile in page.inner_text("#answer")
        assert page.locator("#answer img, #answer script").count() == 0
        # A script that had got in would not run either.
        with pytest.raises(Error, match="TrustedScriptURL"):
            page.evaluate("document.body.append(Object.assign(document.createElement('script'), {src: '/x.js'}))")
        assert page.title() == "ready – Backstop"
        assert "/x" not in seen.paths() and "/x.js" not in seen.paths()


def test_what_the_server_says_of_an_error_is_shown(chromium: Any, server: BackstopProcess) -> None:
    with visited(chromium, server) as seen:
        page = content(seen)
        page.fill("#prompt", "word " * 20_000)
        page.click("#send")
        wait_for_text(page, "#answer-facts", "failed")
        assert page.inner_text("#answer").startswith("400: ")
        assert page.is_enabled("#send")


def test_a_server_that_is_gone_is_said_to_be(chromium: Any, start: Callable[..., BackstopProcess]) -> None:
    server = start().wait_until_ready()
    with visited(chromium, server) as seen:
        page = content(seen)
        server.stop()
        page.wait_for_selector("#notice:not([hidden])")
        assert "does not answer" in page.inner_text("#notice")
        assert page.inner_text("#state") == "no answer"
        # What was seen last stays.
        assert page.is_visible("#content")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_can_be_read(chromium: Any, server: BackstopProcess, scheme: str, viewport: dict[str, int]) -> None:
    with visited(chromium, server, viewport=viewport, color_scheme=scheme, reduced_motion="reduce") as seen:
        page = content(seen)
        ratio, text = page.evaluate(SMALLEST_CONTRAST)
        assert ratio >= 4.5, f"{text!r} has a contrast of {ratio:.2f}"
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        moving = "[...document.querySelectorAll('*')].filter((e) => getComputedStyle(e).transitionDuration !== '0s').length"
        assert page.evaluate(moving) == 0
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(251, 251, 250)") == (scheme == "light")
        # Whatever can be filled in, or is a region of its own, has a name.
        nameless = page.locator("input:visible, textarea:visible, [role=region]:visible").evaluate_all(
            "(all) => all.filter((e) => !(e.labels?.length || e.ariaLabel || e.getAttribute('aria-labelledby'))).length"
        )
        assert nameless == 0
