"""The browser of the report's tests; `report_browser` skips them if there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from benchmarks.report import (
        running_chromium,
    )  # imported late: needs playwright, which most tests of the pipeline do not need

    with running_chromium() as running:
        yield running


@pytest.fixture
def open_report(browser) -> Iterator[Callable]:
    from tests.pipeline.report.report_browser import opener

    with opener(browser) as open_page:
        yield open_page
