"""Every case's pages, written once, and a browser that has no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support import chromium, rendering
from tests.support.dashboard_cases import CASES as DASHBOARDS
from tests.support.report_cases import CASES as REPORTS

PAGES = [*(f"report-{case}" for case in REPORTS), *(f"dashboard-{case}" for case in DASHBOARDS)]
Written = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The file of a page in a language: ``written("report-stopped", "ko")``."""
    known: dict[str, Path] = {}

    def write(name: str, language: str) -> Path:
        kind, case = name.split("-", 1)
        if name not in known:
            known[name] = tmp_path_factory.mktemp(name)
            if kind == "report":
                rendering.report(REPORTS[case], known[name])
            else:
                rendering.dashboard(DASHBOARDS[case], known[name])
        return known[name] / language / ("report.html" if kind == "report" else "index.html")

    return write


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium.launched() as launched:
        yield launched
