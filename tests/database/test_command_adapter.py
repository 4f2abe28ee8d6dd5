"""docs/command.md, walked: a service whose own commands switch its version, deployed, taken back and deployed again.

The service is the one of examples/command, the settings are those of the page; no PM2, no git origin, no release.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.plan import filled, parse
from at_most_one.postgres import catalog_snapshot
from at_most_one.postgres.connection import Login, connect
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller

from tests.database.index_tools import query, wait_for
from tests.database.page_project import DIGEST, INDEX, owned_database, project, report
from tests.support.playbooks import ROOT, Run
from tests.support.postgres import Server

pytestmark = pytest.mark.pg_dump
PAGE = (ROOT / "docs/command.md").read_text()
(SETTINGS, *_) = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
PASSWORD = "a secret of the shop"
TABLE = """
SET search_path = public;
CREATE TABLE enrolments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id integer NOT NULL, course_id integer NOT NULL,
    status text NOT NULL, created_at timestamptz NOT NULL);
INSERT INTO enrolments (user_id, course_id, created_at, status)
    SELECT u, c, '2025-11-01'::timestamptz + u * interval '1 hour', 'active'
    FROM generate_series(1, 40) AS u, generate_series(1, 5) AS c;
INSERT INTO enrolments (user_id, course_id, created_at, status)
    SELECT u, 2, '2025-11-20'::timestamptz + n * interval '1 hour', 'active'
    FROM generate_series(1, 4) AS u, generate_series(1, 3) AS n"""


@dataclass(frozen=True)
class Shop:
    """The service at work, over a database of its own."""

    login: Login
    directory: Path
    settings: dict[str, Any]

    @property
    def serves(self) -> str:
        """The version that the service itself names."""
        with urllib.request.urlopen(f"{self.settings['app_url']}/health", timeout=5) as answer:
            return str(json.load(answer)["version"])

    @property
    def state(self) -> tuple[str, bool]:
        """What serves, and whether the planned index is there."""
        return self.serves, query(self.login, INDEX) == [(1,)]


@pytest.fixture
def shop(server: Server, tmp_path: Path) -> Iterator[Shop]:
    """Version 1.4.1 serves, and the table has duplicates."""
    directory, state = tmp_path / "srv", tmp_path / "state"
    shutil.copytree(ROOT / "examples/command", directory)
    state.mkdir()
    with owned_database(server, "shop", PASSWORD) as login:
        query(login, TABLE)
        command = [sys.executable, "shop.py", "serve", "0", "1.4.1"]
        service = subprocess.Popen(command, cwd=directory, env={**os.environ, "SHOP_STATE": str(state)})
        try:
            wait_for((state / "pid").exists)
            settings = json.loads(json.dumps(SETTINGS).replace("python3", sys.executable))
            settings["app_commands"] |= {"path": str(directory), "environment": {"SHOP_STATE": str(state)}}
            settings["app_url"] = f"http://127.0.0.1:{(state / 'port').read_text()}"
            yield Shop(login, directory, settings)
        finally:
            service.terminate()
            service.wait()


@pytest.fixture
def play(shop: Shop, server: Server, tmp_path: Path) -> Callable[..., Run]:
    """Runs a playbook with the settings of the page."""
    slowly = {"pm2_reload_probe_rate_per_s": 10}  # what a machine with other tests on it answers in time
    return project(tmp_path, shop.login, server, **shop.settings, **slowly)


def test_deployed_taken_back_and_deployed_again_without_a_lost_request(
    shop: Shop, play: Callable[..., Run], tmp_path: Path
) -> None:
    before, wanted = query(shop.login, DIGEST), ("-e", "app_version=1.4.2")
    predicted = play("deploy.yml", *wanted, "--check", "--diff")
    assert (predicted.code, shop.state) == (0, ("1.4.1", False)), predicted.output

    deployed = play("deploy.yml", *wanted)
    assert (deployed.code, shop.state) == (0, ("1.4.2", True)), deployed.output
    done = report(tmp_path)
    assert (done["outcome"], done["commit"]) == ("deployed", {"before": "1.4.1", "after": "1.4.2"})
    assert done["traffic"]["requests"] > 0
    assert done["traffic"]["failures"] == 0
    assert [(check["name"], check["ok"]) for check in done["checks"]] == [("root", True), ("health", True)]
    phases = {phase["name"]: phase["status"] for phase in done["phases"]}
    assert phases == {
        **{"prepare": "unchanged", "cleanup": "ok", "migrate": "ok", "verify": "ok"},
        **{"pm2_reload": "ok", "healthcheck": "ok"},
    }
    assert PASSWORD not in deployed.output + deployed.events

    again = play("deploy.yml", *wanted)
    assert (again.code, again.changed, report(tmp_path)["outcome"]) == (0, 0, "unchanged"), again.output

    watched = play("monitor.yml")
    assert watched.code == 0, watched.output

    back = play("rollback.yml")
    assert (back.code, report(tmp_path)["outcome"], shop.state) == (0, "rolled_back", ("1.4.1", False)), back.output
    assert report(tmp_path)["commit"]["after"] == "1.4.1"
    assert query(shop.login, DIGEST) == before

    forward = play("deploy.yml", *wanted)
    assert (forward.code, report(tmp_path)["outcome"], shop.state) == (0, "deployed", ("1.4.2", True)), forward.output


def test_a_version_that_cannot_be_applied_is_a_failure_that_takes_itself_back(
    shop: Shop, play: Callable[..., Run], tmp_path: Path
) -> None:
    before = query(shop.login, DIGEST)
    stopped = play("deploy.yml", "-e", "app_version=9.9.9")
    assert stopped.code != 0
    done = report(tmp_path)
    assert "there is no version 9.9.9" in done["error"]
    assert "Rolled back automatically: the application to 1.4.1 on shop" in done["error"]
    assert (done["outcome"], done["failed_phase"]) == ("rolled_back", "pm2_reload"), stopped.output
    assert done["findings"][0]["identifier"] == "AMO-4417"
    assert (shop.state, query(shop.login, DIGEST)) == (("1.4.1", False), before)


def killed_run(login: Login) -> None:
    """A run that was to bring 1.4.2 and whose process is gone."""
    plan = parse(filled(yaml.safe_load((ROOT / "examples/plans/one-active-enrolment.yml").read_text())))
    process = subprocess.Popen(["sleep", "60"])
    try:
        with connect(login) as connection:
            before = {"hosts": {}, **catalog_snapshot.take(connection, plan).kept()}
            controller = Controller(socket.gethostname(), process.pid)
            opening = journal.Opening(plan, "shop", "minsu", controller, "1.4.1", "1.4.2", before=before)
            journal.open_run(connection, opening)
    finally:
        process.kill()
        process.wait()


def test_two_versions_stop_a_run_unless_it_goes_on_from_a_killed_one(
    shop: Shop, play: Callable[..., Run], tmp_path: Path
) -> None:
    before = query(shop.login, DIGEST)
    mixed = shop.directory / "mixed"  # while it is there, status says of each version that another one serves
    lines = {
        "status": 'if [ -e mixed ]; then echo 1.4.1; exit 3; fi; exec "$0" shop.py status "$1"',
        "apply": 'rm -f mixed; exec "$0" shop.py apply "$1"',
    }
    wrapped = {name: ["sh", "-c", line, sys.executable, "{version}"] for name, line in lines.items()}
    given = ("-e", json.dumps({"app_commands": {**shop.settings["app_commands"], **wrapped}, "app_version": "1.4.2"}))
    mixed.touch()
    stopped = play("deploy.yml", *given)
    assert stopped.code != 0
    done = report(tmp_path)
    assert (done["outcome"], done["findings"][0]["identifier"]) == ("stopped", "AMO-6012"), stopped.output
    assert (shop.state, query(shop.login, DIGEST)) == (("1.4.1", False), before)

    killed_run(shop.login)
    deployed = play("deploy.yml", *given)
    assert (deployed.code, report(tmp_path)["outcome"], shop.state) == (0, "deployed", ("1.4.2", True)), deployed.output
    assert not mixed.exists()

    back = play("rollback.yml", *given)
    assert (back.code, report(tmp_path)["outcome"], shop.state) == (0, "rolled_back", ("1.4.1", False)), back.output
    assert query(shop.login, DIGEST) == before


def test_a_status_that_is_no_answer_stops_before_a_row_is_touched(
    shop: Shop, play: Callable[..., Run], tmp_path: Path
) -> None:
    before = query(shop.login, DIGEST)
    broken = {**shop.settings["app_commands"], "status": [sys.executable, "shop.py", "stat", "{version}"]}
    stopped = play("deploy.yml", "-e", json.dumps({"app_commands": broken, "app_version": "1.4.2"}))
    assert stopped.code != 0
    assert "AMO-4415" in stopped.output + stopped.events
    assert (shop.state, query(shop.login, DIGEST)) == (("1.4.1", False), before)
