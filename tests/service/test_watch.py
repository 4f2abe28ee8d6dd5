"""A watched service turns bad in each of the ways, with a real PM2 and a real server: found in the second round."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from at_most_one.pm2 import client

from tests.conftest import ROOT
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
        begun = run_module("service_watch", {**arguments, "state": "baseline", "seconds": 1})
        if "since" not in begun:
            return begun
        since = begun["since"]
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


def test_a_first_page_that_redirects_and_is_not_watched(
    watched: Callable[..., dict[str, Any]], service: FakeService
) -> None:
    service.behaviour.page = 307
    result = watched(lambda: None)
    assert (kinds(result), result["suspects"]) == ([], [])


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
    (found,) = result["findings"]
    assert (found["identifier"], "seen" in found["phrases"]) == ("AMO-4408", True), "so that it is told in any language"


def test_an_application_that_pm2_lists_no_more(watched: Callable[..., dict[str, Any]], app: App) -> None:
    """Health may come from another process on that port."""
    delete = functools.partial(client.run, app.pm2, "delete", app.name)
    result = watched(delete)

    assert kinds(result) == ["instances"]
    assert len(result["rounds"]) == 1, "a fact counts at once"
    assert "instance 0 is gone" in result["findings"][0]["seen"]

    refused = watched(lambda: None)
    assert refused["failed"], "a watch of nobody's instances must not end well"
    assert f"has no application {app.name}" in refused["msg"]


def test_answers_take_three_times_as_long(watched: Callable[..., dict[str, Any]], service: FakeService) -> None:
    service.behaviour.delay_s = 0.1

    def happens() -> None:
        service.behaviour.delay_s = 0.9

    result = watched(happens)

    assert "latency" in kinds(result)
    assert len(result["rounds"]) == 2


ROLE = """
- name: Watch
  hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Watch the service
      ansible.builtin.include_role: {name: watch}
"""


def test_the_role_watches_every_host_and_ends_with_what_one_of_them_has_found(
    app: App, service: FakeService, tmp_path: Path
) -> None:
    app.start(app.release("a" * 40))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    sick = FakeService()
    sick.behaviour.health = (503, {"status": "unhealthy"})
    service.behaviour.page = 307
    thread = threading.Thread(target=sick.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hosts = {name: {**local, "app_instance_url": url} for name, url in (("web1", service.url), ("web2", sick.url))}
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    (tmp_path / "watch.yml").write_text(ROLE)
    variables: dict[str, Any] = {
        **{"environment_name": "staging", "app_name": app.name, "plan": "rule"},
        "project_artifacts": f"{tmp_path}/artifacts",
        "healthcheck_checks": ["health"],
        **{"app_health_path": "/api/health", "app_health_values": ["healthy"], "database_gateway": "none"},
        **{"pm2_bin": app.pm2.executable, "pm2_home": app.pm2.home, "app_environment_path": os.environ["PATH"]},
        **{"report_language": "en", "watch_minutes": 0.05, "watch_round_s": 1, "watch_baseline_s": 1},
    }
    (tmp_path / "values.json").write_text(json.dumps(variables))
    command: list[str | Path] = [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "watch.yml"]
    command += ["-i", tmp_path / "hosts.yml", "-e", f"@{tmp_path / 'values.json'}"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(ROOT / "roles")}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    finally:
        sick.shutdown()
        thread.join()
        sick.server_close()
    assert done.returncode == 2, done.stdout + done.stderr
    kept = json.loads((tmp_path / "artifacts/staging/watch.json").read_text())
    assert {(one["host"], one["name"]) for one in kept["findings"]} == {("web2", "health"), ("web2", "traffic")}
    assert kept["verdict"] == "bad"
    assert {host: bool(rounds) for host, rounds in kept["rounds"].items()} == {"web1": True, "web2": True}
    assert kept["since"]["web1"]["instances"].keys() == {str(one.pm_id) for one in app.instances()}
    assert "Watched until something was found: staging" in done.stdout
    assert "web2: " in done.stdout
    assert "unhealthy" in done.stdout, "it ends with what was found"
