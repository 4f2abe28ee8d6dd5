"""What pytest does for `make mutants`, loaded with ``-p tests.mutants.plugin``.

MUTANTS_RECORD names a directory: for each test its seconds, the core's functions that it entered and whether it failed
are written there. MUTANTS_PIPES names two file descriptors: mutants are asked for on the first and answered on the
second. Neither is set: nothing happens.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
from _pytest.runner import runtestprotocol

from tests.mutants.swapping import swap

IMPORT = "the import"
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
        threading.settrace(self._call)
        sys.settrace(self._call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            functions = {f"{file.partition(_CORE)[2].replace(os.sep, '/')} {name}" for file, name in self.entered}
            self.tests[item.nodeid]["functions"] = sorted(functions)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self.tests:
            self.tests[report.nodeid]["seconds"] += report.duration
            if report.failed:
                self.tests[report.nodeid]["failed"] = True

    def pytest_sessionfinish(self) -> None:
        (self.directory / f"{os.getpid()}.json").write_text(json.dumps(self.tests))


class Forker:
    """Tries mutants: each in a fork of this process, which has everything loaded and a server that runs.

    A request is a line of JSON: ``file``, ``source``, ``scope`` of the mutant, or none of them, and the ``tests``, by
    name. The answer is lines: each test as it begins, then ``killed`` or ``passed``, which ends it.
    """

    def __init__(self, requests: int, answers: int) -> None:
        self.requests, self.answers = os.fdopen(requests), answers

    def say(self, line: str) -> None:
        os.write(self.answers, f"{line}\n".encode())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        first = next(item for item in session.items if "server" in getattr(item, "fixturenames", ()))
        self.say("killed" if _fails(first) else "passed")
        for line in self.requests:
            request = json.loads(line)
            child = os.fork()
            if child == 0:
                self._try(request, [items[name] for name in request["tests"]])
                os._exit(0)
            if os.waitpid(child, 0)[1]:
                self.say("killed")  # the interpreter itself has ended
        return True

    def _try(self, request: dict[str, Any], items: list[pytest.Item]) -> None:
        self.say(IMPORT)
        try:
            if "file" in request:
                swap(request["file"], request["source"], request["scope"])
        except Exception:
            self.say("killed")
            return
        for item in items:
            self.say(item.nodeid)
            if _fails(item):
                self.say("killed")
                return
        self.say("passed")


class _Nothing:
    """What comes after a test, asked for its chain alone: whatever keeps the fixtures of the session."""

    def __init__(self, session: pytest.Session) -> None:
        self.session = session

    def listchain(self) -> list[pytest.Session]:
        return [self.session]


def _fails(item: pytest.Item) -> bool:
    if hasattr(item, "_initrequest"):
        item._initrequest()  # it may have run before
    reports = runtestprotocol(item, log=False, nextitem=cast(pytest.Item, _Nothing(item.session)))
    return any(report.failed for report in reports)


def pytest_configure(config: pytest.Config) -> None:
    if directory := os.environ.get("MUTANTS_RECORD"):
        config.pluginmanager.register(Recorder(Path(directory)))
    if pipes := os.environ.get("MUTANTS_PIPES"):
        requests, answers = map(int, pipes.split(","))
        config.pluginmanager.register(Forker(requests, answers))
