"""What pytest does for `make mutants`, loaded with ``-p tests.mutants.plugin``.

MUTANTS_RECORD names a directory: for each test its seconds, the core's functions that it entered and whether it failed
are written there. MUTANTS_TESTS names a file: its tests run, in its order and no others, and one that takes longer than
its limit ends the process by SIGALRM. Neither is set: nothing happens.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

_CORE = f"{os.sep}module_utils{os.sep}at_most_one{os.sep}"


class Recorder:
    """Notes which functions of the core each test enters."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.entered: set[tuple[str, str]] = set()
        self.tests: dict[str, dict[str, Any]] = {}

    def _call(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and _CORE in frame.f_code.co_filename:
            self.entered.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.entered.clear()
        self.tests[item.nodeid] = {"seconds": 0.0}
        threading.settrace(self._call)  # type: ignore[arg-type]
        sys.settrace(self._call)  # type: ignore[arg-type]
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            functions = {f"{file.partition(_CORE)[2].replace(os.sep, '/')} {name}" for file, name in self.entered}
            self.tests[item.nodeid]["functions"] = sorted(functions)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self.tests:
            self.tests[report.nodeid]["seconds"] += report.duration
            if report.failed:
                self.tests[report.nodeid]["failed"] = True

    def pytest_sessionfinish(self) -> None:
        (self.directory / f"{os.getpid()}.json").write_text(json.dumps(self.tests))


class Runner:
    """Runs the wanted tests, each within its limit."""

    def __init__(self, file: Path) -> None:
        self.limits: dict[str, int] = json.loads(file.read_text())
        self.killer = file.with_suffix(".killer")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        places = {name: place for place, name in enumerate(self.limits)}
        items[:] = sorted((item for item in items if item.nodeid in places), key=lambda item: places[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.killer.write_text(item.nodeid)
        signal.alarm(self.limits[item.nodeid])
        try:
            return (yield)
        finally:
            signal.alarm(0)


def pytest_configure(config: pytest.Config) -> None:
    if directory := os.environ.get("MUTANTS_RECORD"):
        config.pluginmanager.register(Recorder(Path(directory)))
    if file := os.environ.get("MUTANTS_TESTS"):
        config.pluginmanager.register(Runner(Path(file)))
