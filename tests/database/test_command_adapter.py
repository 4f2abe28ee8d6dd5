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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
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
from tests.support.playbooks import ROOT, Run, run_playbook
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
DIGEST = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM public.enrolments AS t"
INDEX = "SELECT count(*) FROM pg_indexes WHERE indexname = 'one_active_enrolment'"


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
    server.run(f"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'", "CREATE DATABASE shop OWNER shop")
    login = replace(server.login, dbname="shop", user="shop", password=PASSWORD)
    service = subprocess.Popen(
        [sys.executable, "shop.py", "serve", "0", "1.4.1"], cwd=directory, env={**os.environ, "SHOP_STATE": str(state)}
    )
    try:
        query(replace(server.login, dbname="shop"), "GRANT ALL ON SCHEMA public TO shop")
        query(login, TABLE)
        wait_for((state / "pid").exists)
        settings = json.loads(json.dumps(SETTINGS).replace("python3", sys.executable))
        settings["app_commands"] |= {"path": str(directory), "environment": {"SHOP_STATE": str(state)}}
        settings["app_url"] = f"http://127.0.0.1:{(state / 'port').read_text()}"
        yield Shop(login, directory, settings)
    finally:
        service.terminate()
        service.wait()
        server.run("DROP DATABASE shop WITH (FORCE)", "DROP ROLE shop")


@pytest.fixture
def play(shop: Shop, server: Server, tmp_path: Path) -> Callable[..., Run]:
    """Runs a playbook on a database runner, with the settings of the page."""
    shutil.copytree(ROOT / "examples/plans", tmp_path / "plans")
    inventory = tmp_path / "inventories/shop"
    variables = inventory / "group_vars/shop"
    variables.mkdir(parents=True)
    shutil.copy(ROOT / "inventories/production/target.guard", inventory)
    runner = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"shop": {"hosts": {"runner": runner}}}))
    given = {
        **{"environment_name": "shop", "plan": "one-active-enrolment", "report_language": "en", "app_name": "shop"},
        **shop.settings,
        **{"database_host": shop.login.host, "database_port": shop.login.port, "database_name": "shop"},
        **{"database_user": "shop", "database_password": "{{ vault_database_password }}"},
        **{"prepare_gates": ["backup"], "prepare_backup_path": str(tmp_path / "backups")},
        "app_environment_path": str(server.binaries),  # pg_dump
        "pm2_reload_probe_rate_per_s": 10,  # what a machine with other tests on it answers in time
        "prepare_backup_taken_at": datetime.now(UTC).isoformat(),
    }
    (variables / "main.yml").write_text(yaml.safe_dump(given))
    (variables / "vault.yml").write_text(yaml.safe_dump({"vault_database_password": PASSWORD}))

    def run(playbook: str, *arguments: str) -> Run:
        return run_playbook(
            playbook, "-e", f"project_path={tmp_path}", *arguments, limit="shop", inventory=str(inventory)
        )

    return run


def report(project: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((project / "artifacts/shop/latest/report.json").read_text())
    return written


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
