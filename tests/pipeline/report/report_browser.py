"""A real Chromium for the report's tests, and pages that record every error on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.report import find_chromium
from pipeline.report.command import build_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytest.importorskip("playwright.sync_api", reason="needs the python package playwright (extra: dev)")
NEEDS_CHROMIUM = pytest.mark.skipif(
    find_chromium() is None, reason="needs a chromium on PATH (Debian: apt-get install chromium)"
)
VIEWPORT = {"width": 1280, "height": 900}
WIPE = """() => {
  localStorage.clear();
  for (const video of document.querySelectorAll("video")) {
    video.removeAttribute("src");
    video.load();
  }
}"""


@dataclass
class Opened:
    """A page and the errors on it so far."""

    page: Page
    problems: list[str] = field(default_factory=list)
    watchers: dict[str, Callable] = field(default_factory=dict)

    def page_ids(self) -> list[str]:
        """Prompt ids of the cards on the page in view, in order."""
        return self.page.eval_on_selector_all(".card .prompt-id", "nodes => nodes.map(node => node.textContent)")

    def shown_ids(self) -> list[str]:
        """Prompt ids of the cards on all pages of the report, in order."""
        ids: list[str] = []
        while True:
            ids += self.page_ids()
            following = self.page.locator("#next-page")
            if not following.is_visible() or following.is_disabled():
                return ids
            following.click()


@contextmanager
def opener(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """A function that builds the report of a run and opens it.

    Its first page is shared by all tests with this browser, wiped after each, as a new one takes twice the time; all
    others, and those with options, have a profile of their own.
    """
    shared = browser.contexts[0] if browser.contexts else browser.new_context()
    page = shared.pages[0] if shared.pages else shared.new_page()
    contexts: list[BrowserContext] = []
    first: list[Opened] = []

    def open_page(run_dir: Path, **options) -> Opened:
        path = build_report(run_dir)
        if not first and not options:
            page.set_viewport_size(VIEWPORT)
            first.append(_watched(page, path))
            return first[0]
        contexts.append(browser.new_context(viewport=VIEWPORT, **options))
        return _watched(contexts[-1].new_page(), path)

    yield open_page
    for context in contexts:
        context.close()
    for opened in first:
        page.evaluate(WIPE)
        for event, watcher in opened.watchers.items():
            page.remove_listener(event, watcher)


def open_tab(context: BrowserContext, page_path: Path) -> Opened:
    """Another page with the same profile; the caller closes it."""
    return _watched(context.new_page(), page_path)


def _watched(page: Page, page_path: Path) -> Opened:
    opened = Opened(page)
    note = opened.problems.append
    opened.watchers |= {
        "console": lambda message: note(f"console {message.type}: {message.text}"),
        "pageerror": lambda error: note(f"page error: {error}"),
        "requestfailed": lambda request: note(f"failed: {request.url} {request.failure}"),
        "dialog": lambda dialog: (note(f"dialog: {dialog.message}"), dialog.dismiss()),
        "request": lambda request: _is_local(request.url) or note(request.url),
    }
    for event, watcher in opened.watchers.items():
        page.on(event, watcher)
    page.goto(page_path.as_uri())
    return opened


def _is_local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))
