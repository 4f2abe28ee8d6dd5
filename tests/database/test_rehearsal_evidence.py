"""The evidence of a rehearsal against a real database: each turn is compared, and file and journal hold the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, connect
from at_most_one.rehearsal import evidence, evidence_store, recording, turns
from at_most_one.runs import journal

from tests.database.archived_runs import Service
from tests.database.archived_runs import service as service  # a fixture
from tests.support.service_database import GuideExample

ROOT = Path(__file__).resolve().parents[2]
ABOUT: dict[str, Any] = {
    "environment": "staging",
    "hosts": ["here"],
    "who": "minji",
    "controller": "gateway-1",
    "commit_before": "a" * 40,
    "commit_after": "b" * 40,
}


def three_runs(service: Service) -> list[str]:
    """A deployment, the way back and a deployment, in the journal alone."""
    first = service.deploy("b" * 40, rows=False)
    service.take_back(first)
    (back,) = [run_id for run_id, run in service.journal().items() if run["outcome"] == "rolled_back"]
    return [first, back, service.deploy("b" * 40, rows=False)]


def played(tmp_path: Path, variables: dict[str, Any], tasks: list[dict[str, Any]], *options: str) -> str:
    """What ansible-playbook prints."""
    here: dict[str, Any] = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    here["run_host"] = {"commit": "a" * 40, "wanted": "b" * 40}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"here": here}}}), encoding="utf-8")
    (tmp_path / "variables.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
    play = {"hosts": "here", "gather_facts": False, "tasks": tasks}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("ansible-playbook")), f"{tmp_path}/play.yml", *options]
    done = subprocess.run(
        [*command, "-i", f"{tmp_path}/hosts.yml", "-e", f"@{tmp_path}/variables.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "default"},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_the_role_writes_the_same_evidence_to_its_file_and_to_the_journal(
    tmp_path: Path, service: Service, plan_data: dict[str, Any], login_args: dict[str, Any], example: GuideExample
) -> None:
    runs, path = three_runs(service), tmp_path / "evidence/rule.json"
    service.take_back(runs[-1])  # a rehearsal begins without a deployment
    variables = {
        "run_inputs": {"plan": plan_data, "who": "minji", "controller": "gateway-1"},
        **{"app_canary": {}, "app_name": "aedpics", "environment_name": "staging", "report_language": "en"},
        **{"database_login": login_args, "database_gateway": "here", "rehearsal_allowed": True},
        "rehearsal_evidence_path": str(path),
    }
    role = {"name": "rehearsal", "rolespec_validate": False}
    begin = {"ansible.builtin.include_role": role}
    turn = {"ansible.builtin.include_role": {**role, "tasks_from": "turn"}}
    assert "Rehearsal of one-active-inspection-session" in played(tmp_path, variables, [begin], "--check")
    assert not path.parent.exists()
    assert service.sql("SELECT * FROM at_most_one.rehearsal") == []

    said = played(
        tmp_path, variables, [begin, *({**turn, "vars": {"run_facts": {"run_id": run_id}}} for run_id in runs)]
    )

    written = evidence.read(str(path), "")
    assert service.sql("SELECT outcome, evidence FROM at_most_one.rehearsal") == [("passed", written)]
    assert [(turn["name"], turn["run_id"], turn["outcome"]) for turn in written["turns"]] == [
        ("forward", runs[0], "deployed"),
        ("back", runs[1], "rolled_back"),
        ("again", runs[2], "deployed"),
    ]
    recorded = service.journal()
    assert written["recovery_seconds"] == recorded[runs[1]]["seconds"]
    assert [phase["name"] for phase in written["turns"][0]["phases"]] == [
        phase["name"] for phase in recorded[runs[0]]["phases"]
    ]
    assert (written["hosts"], written["clone"]) == (["here"], {})
    assert written["tool"] not in ("", "unknown")
    assert said.count("The way back takes") == 1
    assert f"(sha256 {written['sha256'][:12]})" in said
    assert login_args["password"] not in path.read_text()


def test_a_row_that_the_way_back_did_not_bring_back_is_named(
    service: Service, plan: Plan, example: GuideExample
) -> None:
    forward, back, again = three_runs(service)
    beginning = turns.Beginning(**ABOUT, tool="unknown", clone={})
    with connect(service.login) as connection:
        document = recording.begin(connection, plan, beginning, {})
        document = recording.add_turn(connection, plan, document, _run(connection, forward), {})
        with pytest.raises(OperatorError, match="The turn back ended as deployed"):
            recording.add_turn(connection, plan, document, _run(connection, again), {})
    service.sql("UPDATE aedpics.inspection_sessions SET notes = 'another' WHERE id IN (SELECT id FROM"
                " aedpics.inspection_sessions LIMIT 1)")  # fmt: skip
    with connect(service.login) as connection:
        for run_id in (back, again):
            document = recording.add_turn(connection, plan, document, _run(connection, run_id), {})
    assert document["outcome"] == "failed"
    assert [line.split(" rows then")[0] for line in document["differences"]] == [
        "back is not as before: content of aedpics.inspection_sessions: 69",
        "again is not as forward: content of aedpics.inspection_sessions: 69",
    ]


def test_a_rehearsal_that_the_journal_lacks_does_not_go_on(connection: Connection) -> None:
    with pytest.raises(OperatorError, match="The rehearsal one is not in the journal") as refused:
        evidence_store.read(connection, "one")
    assert "rehearse.yml" in refused.value.next_step


def _run(connection: Connection, run_id: str) -> dict[str, Any]:
    (run,) = journal.read(connection, run_id=run_id)
    return run
