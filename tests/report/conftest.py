"""Each case's report, rendered once by the role itself, through Ansible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import rendering
from tests.support.report_cases import CASES

Rendered = Callable[[str, str, str], str]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """The text of a case's file in a language: ``rendered("stopped", "ko", "report.html")``."""
    known: dict[str, Path] = {}

    def read(case: str, language: str, name: str) -> str:
        if case not in known:
            known[case] = tmp_path_factory.mktemp(case)
            rendering.report(CASES[case], known[case])
        return (known[case] / language / name).read_text(encoding="utf-8")

    return read
