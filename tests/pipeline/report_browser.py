"""A real Chromium for the report's tests, and pages that note everything that went wrong on them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.report import find_chromium
from pipeline.report import build_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("playwright.sync_api", reason="needs the python package playwright (extra: dev)")
NEEDS_CHROMIUM = pytest.mark.skipif(
    find_chromium() is None, reason="needs a chromium on PATH (Debian: apt-get install chromium)"
)


@dataclass
class Opened:
    """A page, and everything that went wrong on it so far."""

    page: "Page"
    problems: list[str] = field(default_factory=list)

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
def opener(browser: "Browser") -> Iterator[Callable[..., Opened]]:
    """A function that builds the report of a run and opens it, each time in a fresh profile unless given one."""
    contexts = []

    def open_page(run_dir: Path, **options) -> Opened:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}, **options))
        return open_tab(contexts[-1], build_report(run_dir))

    yield open_page
    for context in contexts:
        context.close()


def open_tab(context, page_path: Path) -> Opened:
    opened = Opened(context.new_page())
    note = opened.problems.append
    opened.page.on("console", lambda message: note(f"console {message.type}: {message.text}"))
    opened.page.on("pageerror", lambda error: note(f"page error: {error}"))
    opened.page.on("requestfailed", lambda request: note(f"failed: {request.url} {request.failure}"))
    opened.page.on("dialog", lambda dialog: (note(f"dialog: {dialog.message}"), dialog.dismiss()))
    opened.page.on("request", lambda request: _is_local(request.url) or note(request.url))
    opened.page.goto(page_path.as_uri())
    return opened


def _is_local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))
