"""A failing and a good run at -vvv: no secret is anywhere that somebody else may read.

Searched are the output, the events that a controller such as AWX would keep, the artifacts, the journal, the logs of
the application, of PM2 and of the database, what people are told, and every command line of the machine meanwhile.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.deploy import picture
from tests.deploy.conftest import PLANNED, ROOT, SESSIONS, Lab, Run, light_build, make, run_playbook
from tests.deploy.faults import FAULTS
from tests.deploy.users import Users
from tests.support.command_lines import Seen, watched
from tests.support.guarded_git import guarded
from tests.support.listener import listening, misbehaving

# tests/deploy/test_deployment.py searches the artifacts of a deployment in `make test`.
pytestmark = pytest.mark.thorough
TOKEN = "planted-git-token/with+signs"
PATIENT = ("-e", "{healthcheck_max_failed_percent: 100, healthcheck_max_gap_ms: 60000}")
AS_FILES = ("-e", "{ansible_pipelining: false}")  # a module is a file with its arguments, which a command line names
WEBHOOK, SLACK = "planted-webhook-path/with+signs", "planted-slack-path/T0/B0/x"
FAULT = "session-500"
SERIAL = "11-9999999"  # an equipment that the example does not have
Places = dict[str, str]


def secrets_of(lab: Lab) -> dict[str, str]:
    known = {name: value for name, value in lab.values.items() if re.search("password|secret|token", name)}
    return {**known, "git token": TOKEN, "webhook": WEBHOOK, "slack": SLACK}


def spellings(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()}


def found(secrets: dict[str, str], places: Places) -> list[str]:
    """Which secret is where. The secret itself is never part of a failing test's message."""
    return [
        f"{name} in {place}"
        for name, secret in secrets.items()
        for place, text in places.items()
        if any(spelling in text for spelling in spellings(secret))
    ]


def files(*roots: Path) -> Places:
    texts = {path: path for root in roots for path in ([root] if root.is_file() else root.rglob("*"))}
    return {str(path): path.read_text(errors="replace") for path in texts if path.is_file()}


def journal(lab: Lab) -> Places:
    """All of the schema at_most_one, as text."""
    tables = lab.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'at_most_one'")
    return {
        f"at_most_one.{table}": "\n".join(row for (row,) in lab.rows(f"SELECT t::text FROM at_most_one.{table} t"))
        for (table,) in tables
    }


def logs(lab: Lab) -> Places:
    """The application's own log is its own business, but nothing of ours may have put a secret there."""
    pm2, server = Path(lab.values["pm2_home"]) / "pm2.log", Path(lab.values["postgres_data"]) / "server.log"
    return files(Path(lab.values["app_path"] + ".logs"), pm2, server)


@dataclass(frozen=True)
class Runs:
    """A run that failed and went back, a run that deployed, and what could be seen meanwhile."""

    lab: Lab
    failing: Run
    users: Users
    before: picture.Picture
    after: picture.Picture
    good: Run
    seen: Seen
    told: list[dict[str, Any]]  # what the webhook got of the failing run

    @property
    def places(self) -> Places:
        artifacts = [ROOT / "artifacts/local" / run.report["run_id"] for run in (self.failing, self.good)]
        return {
            "the output of the failing run": self.failing.output,
            "the output of the good run": self.good.output,
            "the events of the failing run": self.failing.events,
            "the events of the good run": self.good.events,
            "the command lines": self.seen.text,
            "what the webhook was told": json.dumps(self.told, ensure_ascii=False),
            **files(*artifacts),
            **journal(self.lab),
            **logs(self.lab),
        }


@contextmanager
def token_in_the_origin(lab: Lab, address: str) -> Iterator[None]:
    """As a server has it whose checkout was cloned with a token: in the address of its remote."""
    path = Path(lab.values["app_path"])
    plain = subprocess.run(
        ["git", "-C", path, "remote", "get-url", "origin"], capture_output=True, text=True, check=True
    ).stdout.strip()
    change(path / ".git/config", plain, address)
    try:
        yield
    finally:
        for config in (path / ".git/config", *path.with_name(f"{path.name}.releases").glob("*/.git/config")):
            change(config, address, plain)


def change(config: Path, old: str, new: str) -> None:
    config.write_text(config.read_text().replace(old, new))


@contextmanager
def reborn_duplicate(lab: Lab) -> Iterator[None]:
    """Two open sessions on an equipment that had none: somebody has dropped the fence's index after the clean-up.

    The planned index's build meets them.
    """
    over, born = threading.Event(), []
    lab.rows(
        f"""INSERT INTO aedpics.aed_data SELECT (jsonb_populate_record(a, jsonb_build_object(
             'id', (SELECT max(id) + 1 FROM aedpics.aed_data), 'equipment_serial', '{SERIAL}'))).*
             FROM aedpics.aed_data a LIMIT 1"""
    )
    insert = f"""INSERT INTO {SESSIONS} SELECT (jsonb_populate_record(s, jsonb_build_object(
                   'id', gen_random_uuid(), 'equipment_serial', '{SERIAL}'))).*
                   FROM {SESSIONS} s WHERE status = 'active' LIMIT 1"""
    drop = """DO $$ BEGIN EXECUTE (SELECT pg_catalog.concat('DROP INDEX ', indexrelid::regclass) FROM pg_index
                WHERE indexrelid::regclass::text ~ 'at_most_one_fence_'); END $$"""

    def write() -> None:
        while not over.is_set() and not lab.journal_has("cleanup", "ok"):
            time.sleep(0.01)
        for statement in (drop, insert, insert):
            lab.rows(statement)
        born.append(lab.duplicate_groups())

    writing = threading.Thread(target=write)
    writing.start()
    try:
        yield
    finally:
        over.set()
        writing.join()
    assert born == [1], "the duplicate was there before the index"


@pytest.fixture(scope="module")
def runs(lab: Lab) -> Runs:
    """Nothing is deployed when it begins, and a good deployment is there when it ends."""
    used = lab.rows("SELECT 1 FROM aedpics.aed_data WHERE equipment_serial = %s", SERIAL)
    if used or lab.served() != {lab.values["commit_before"]} or lab.indexes() or lab.archived():
        make("lab-reset")
    make("lab-fault", f"FAULT={FAULT}")
    commit = subprocess.run(
        ["git", "-C", lab.values["app_origin"], "rev-parse", f"fault/{FAULT}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    shutil.rmtree(Path(lab.values["app_path"] + ".releases") / commit, ignore_errors=True)  # so that it is fetched
    with (
        guarded(Path(lab.values["app_origin"]), TOKEN) as address,
        token_in_the_origin(lab, address),
        watched() as seen,
        listening() as told,
        misbehaving("dead") as dead,
        misbehaving("silent") as silent,
    ):
        before = picture.take(lab)
        with Users(lab, pause_s=0.05) as users:
            branch = ("-e", f"app_branch=fault/{FAULT}")
            failing = run_playbook(
                *("deploy.yml", "-vvv", *branch, *light_build(lab), *PATIENT), environment=addresses(told.url, told.url)
            )
        after = picture.take(lab)
        with reborn_duplicate(lab):
            old = ("-e", "prepare_max_transaction_age_s=600")
            good = run_playbook("deploy.yml", "-vvv", *old, *PATIENT, *AS_FILES, environment=addresses(dead, silent))
    return Runs(lab, failing, users, before, after, good, seen, told.bodies(f"/{WEBHOOK}"))


def addresses(slack: str, webhook: str) -> dict[str, str]:
    """Whom the lab's inventory tells: the path of an address is what makes it a secret."""
    return {"LAB_NOTIFY_SLACK_URL": f"{slack}/{SLACK}", "LAB_NOTIFY_WEBHOOK_URL": f"{webhook}/{WEBHOOK}"}


def test_the_failing_run_goes_back(runs: Runs) -> None:
    fault, report = FAULTS["session API 500"], runs.failing.report
    assert runs.failing.code != 0
    assert (report["failed_phase"], report["outcome"]) == (fault.phase, fault.outcome), report["error"]
    first, _, back = report["error"].partition("\nRolled back automatically:")
    for word in (*fault.says, "Expected:", "Next:"):
        assert word in first
    assert "3 indexes dropped, 25 rows restored" in back
    picture.assert_as_before(runs.before, runs.after)
    assert runs.users.requests >= 500
    assert runs.users.failures == []


def test_the_run_that_meets_a_reborn_duplicate_deploys(runs: Runs) -> None:
    report = runs.good.report
    assert runs.good.code == 0, runs.good.output
    assert report["outcome"] == FAULTS["duplicate reborn"].outcome
    assert report["cleanup"]["removed"] == 26
    assert report["duplicates_left"] == runs.lab.duplicate_groups() == 0
    assert runs.lab.indexes() == dict.fromkeys(PLANNED, (True, True))


def test_notification_endpoints_that_are_down_fail_nothing(runs: Runs) -> None:
    """The same run: nobody could be told, and it deployed. What it has waited for that is in the events."""
    fault, good = FAULTS["notification endpoint down"], runs.good
    assert (good.code, good.report["outcome"]) == (0, fault.outcome)
    for word in fault.says:
        assert word in " ".join(good.output.split())
    results = [json.loads(event).get("event_data", {}).get("res") or {} for event in good.events.splitlines()]
    waited = [result["seconds"] for result in results if "undelivered" in result]
    assert len(waited) == 2, "it began, and it has deployed"
    assert 2 <= sum(waited) <= 5


def test_no_secret_is_anywhere(runs: Runs) -> None:
    secrets = secrets_of(runs.lab)
    assert {"database_password", "admin_password", "inspector_password", "cron_token", "git token"} <= set(secrets)
    assert found(secrets, runs.places) == []


def test_the_search_looked_everywhere(runs: Runs) -> None:
    places = runs.places
    for name in ("traffic.json", "report.html", "report.json", "cleanup_plan.json", "server.log", "production.log"):
        assert any(place.endswith(name) for place in places)
    assert "at_most_one.run" in places
    assert [body["event"] for body in runs.told] == ["start", "rollback"]
    assert "EXEC" in runs.good.output, "-vvv"
    for program in ("git-remote-http", "prisma", "pm2", "ansible-playbook", "AnsiballZ"):
        assert program in runs.seen.text, f"{program} was not seen at work"
    assert runs.seen.rounds > 1000


def test_the_search_finds_what_is_there(lab: Lab, tmp_path: Path) -> None:
    """The control: one secret for each kind of place, planted in it."""
    planted = {
        name: f"planted {name} <{number}>" for number, name in enumerate(("file", "journal", "process", "output"))
    }
    (tmp_path / "below").mkdir()
    (tmp_path / "below/report.json").write_text(json.dumps({"error": quote(planted["file"], safe="")}))
    lab.rows(
        "UPDATE at_most_one.run SET error = %s WHERE run_id = (SELECT max(run_id) FROM at_most_one.run)",
        planted["journal"],
    )
    with watched() as seen:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.2)", planted["process"]], check=True)
    try:
        places = {"output": base64.b64encode(planted["output"].encode()).decode(), "command lines": seen.text}
        places |= {**files(tmp_path), **journal(lab)}
        assert {entry.partition(" in ")[0] for entry in found(planted, places)} == set(planted)
    finally:
        lab.rows("UPDATE at_most_one.run SET error = NULL WHERE run_id = (SELECT max(run_id) FROM at_most_one.run)")
