"""Whose error lines they are, with a real PM2: old processes write until they are gone, also to one merged log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from at_most_one.pm2 import reload
from at_most_one.system import log_errors

from tests.service.conftest import App
from tests.service.test_pm2 import Traffic
from tests.support.ports import wait_until

EVERYTHING = "ERROR"


def merged(log: Path, **noise: str) -> dict[str, Any]:
    """A release whose instances all write to one log, as the real service's do."""
    return {"app": {"merge_logs": True, "out_file": str(log), "error_file": str(log)}, "log": str(log), **noise}


def separate(log: Path, **noise: str) -> dict[str, Any]:
    """A release with a log for each instance and stream: PM2 puts the instance's number into the name."""
    return {"app": {"out_file": str(log), "error_file": str(log.with_name("app-error.log"))}, "log": str(log), **noise}


def scans(done: dict[str, Any]) -> list[log_errors.Scan]:
    marks = [log_errors.mark_of(mark) for mark in done["log_offsets"].values()]
    return [log_errors.scan(mark, EVERYTHING) for mark in marks]


def lines_of(directory: Path, noise: str) -> int:
    return sum(path.read_text().count(noise) for path in directory.glob("app*.log*"))


# The real service merges its logs; with a log for each instance less can go wrong.
SEPARATE = pytest.param(separate, marks=pytest.mark.thorough)


@pytest.mark.parametrize("layout", [merged, SEPARATE])
@pytest.mark.parametrize(
    ("before", "after", "errors"),
    [
        ("no template", "", False),  # the new release fixes it
        pytest.param("no template", "no template", False, marks=pytest.mark.thorough),  # nothing has changed
        ("no template", "no schema", True),  # another error
        pytest.param("", "no schema", True, marks=pytest.mark.thorough),  # as above, where nothing was known
    ],
)
def test_only_what_the_new_release_does_counts(
    app: App, tmp_path: Path, layout: Any, before: str, after: str, errors: bool
) -> None:
    log = tmp_path / "app.log"
    old, new = (app.release(name * 40, **layout(log, noise=noise)) for name, noise in (("a", before), ("b", after)))
    app.start(old)
    app.link(new)
    with Traffic(app.url, 50):
        if before:  # a busy machine may send the first requests late, and the rate before would be none
            wait_until(lambda: lines_of(tmp_path, before) >= 25, why="the release before is not noisy")
        done = reload.reload(app.pm2, app.aim(new))
        time.sleep(0.5)
        if errors:
            wait_until(lambda: lines_of(tmp_path, after) > 0, why="the new release is not noisy")
    found = scans(done)
    assert (sum(one.errors for one in found) > 0) is errors, log_errors.told(found)
    assert all(after in line for one in found for line in one.shown)
    if before:
        assert lines_of(tmp_path, before), "the old one was noisy"
    assert len(found) == (1 if layout is merged else 4)
