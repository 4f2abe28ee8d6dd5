"""A watched service turns bad in each of the ways, with a real PM2 and a real server: found in the second round."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import App
from tests.service.fake_service import FakeService

RunModule = Callable[..., dict[str, Any]]
ROUND_S = 1.0


@pytest.fixture
def service() -> Iterator[FakeService]:
    made = FakeService()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def watched(app: App, service: FakeService, run_module: RunModule) -> Callable[[Callable[[], object]], dict[str, Any]]:
    """Remember how it is, let something happen, watch at most two rounds: ``watched(what_happens)``."""
    app.start(app.release("a" * 40))
    arguments: dict[str, Any] = {
        "base_url": service.url,
        "paths": {"health": "/api/health"},
        "rate_per_s": 20,
        "round_s": ROUND_S,
        "name": app.name,
        "pm2": app.pm2.executable,
        "pm2_home": app.pm2.home,
        "log_error_pattern": r"\bERROR\b",
    }

    def watch(happens: Callable[[], object]) -> dict[str, Any]:
        since = run_module("service_watch", {**arguments, "state": "baseline", "seconds": 1})["since"]
        happens()
        # Two calls of one round each, as the role makes them minute by minute.
        first = run_module("service_watch", {**arguments, "since": since, "seconds": 0})
        if first["findings"]:
            return first
        again = {"since": since, "seconds": 0, "suspects": first["suspects"]}
        second = run_module("service_watch", {**arguments, **again})
        return {**second, "rounds": first["rounds"] + second["rounds"]}

    return watch


def kinds(result: dict[str, Any]) -> list[str]:
    return [finding["name"] for finding in result["findings"]]


def test_nothing_happens(watched: Callable[..., dict[str, Any]]) -> None:
    result = watched(lambda: None)

    assert kinds(result) == []
    assert result["suspects"] == []
    assert len(result["rounds"]) == 2
    assert all(one["requests"] > 0 and not one["failures"] for one in result["rounds"])
    assert not result["changed"]


def test_health_turns_bad(watched: Callable[..., dict[str, Any]], service: FakeService) -> None:
    def happens() -> None:
        service.behaviour.health = (503, {"status": "unhealthy"})

    result = watched(happens)

    assert set(kinds(result)) == {"health", "traffic"}
    assert len(result["rounds"]) == 2
    (finding,) = [one for one in result["findings"] if one["name"] == "health"]
    assert "unhealthy" in finding["seen"]


def test_error_lines(watched: Callable[..., dict[str, Any]], app: App) -> None:
    def happens() -> None:
        with Path(app.instances()[0].err_log).open("a") as log:
            log.write("ERROR health: no database, password=hunter2\n")

    result = watched(happens)

    assert kinds(result) == ["log"]
    assert len(result["rounds"]) == 1, "a fact counts at once"
    assert "no database" in result["findings"][0]["seen"]
    assert "hunter2" not in str(result)


def test_an_instance_restarts(watched: Callable[..., dict[str, Any]], app: App) -> None:
    result = watched(lambda: os.kill(app.instances()[1].pid, signal.SIGKILL))

    assert kinds(result) == ["instances"]
    assert len(result["rounds"]) == 1


def test_answers_take_three_times_as_long(watched: Callable[..., dict[str, Any]], service: FakeService) -> None:
    service.behaviour.delay_s = 0.1

    def happens() -> None:
        service.behaviour.delay_s = 0.9

    result = watched(happens)

    assert "latency" in kinds(result)
    assert len(result["rounds"]) == 2
