"""The browser of the report's tests; `report_browser` says what happens where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from benchmarks.report import running_chromium  # late: needs playwright, which not every test of the pipeline does

    with running_chromium() as running:
        yield running


@pytest.fixture
def open_report(browser) -> Iterator[Callable]:
    from tests.pipeline.report.report_browser import opener

    with opener(browser) as open_page:
        yield open_page
