"""purge.yml as an operator runs it, against a real database: it lists, it removes once confirmed, and then nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.duplicates import plan_file
from at_most_one.postgres.connection import connect
from at_most_one.runs import journal

from tests.database.archived_runs import Service, with_backup
from tests.database.archived_runs import service as service  # a fixture
from tests.support.playbooks import ROOT

Play = Callable[..., str]


@pytest.fixture
def play(service: Service, tmp_path: Path) -> Play:
    """A front door in an environment that is a database and a name; what it prints, on one line."""
    inventory, project, login = tmp_path / "staging", tmp_path / "checkout", service.login
    project.mkdir()
    for name in ("plans", "roles"):
        (project / name).symlink_to(ROOT / name)
    nowhere = dict.fromkeys(("app_name", "app_path", "app_url"), "/nowhere")
    values: dict[str, Any] = {
        **nowhere,
        "environment_name": "staging",
        "project_path": str(project),
        "ansible_connection": "local",
    }
    values |= {"database_host": login.host, "database_port": login.port, "database_name": login.dbname}
    values |= {"database_user": login.user, "database_password": login.password}
    values |= {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    (inventory / "host_vars").mkdir(parents=True)
    (inventory / "group_vars").mkdir()
    (inventory / "hosts.yml").write_text("staging: {hosts: {web1: }}\n")
    (inventory / "host_vars/web1.yml").write_text(json.dumps(values))
    (inventory / "group_vars/all.yml").write_text((ROOT / "inventories/all.yml").read_text())

    def run(playbook: str, *options: str, code: int = 0) -> str:
        command = [str(ROOT / ".venv/bin/ansible-playbook"), str(ROOT / playbook), "-i", str(inventory)]
        command += ["-l", "staging", *options]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    return run


def with_plan(directory: Path, run_id: str, plan_id: str, *, named: str = "") -> Path:
    """The clean-up plan that a run has left."""
    (directory / run_id).mkdir(mode=0o750, parents=True)
    path, digest = directory / run_id / "cleanup_plan.json", plan_file.Digest()

    def fill(hand_over: Callable[[str], None]) -> dict[str, Any]:
        hand_over(digest.add(["AED-1", "5d41"]))
        header = {"run_id": named or run_id, "environment": "staging", "plan": {"id": plan_id}}
        return {**header, "digest": digest.hexdigest()}

    plan_file.write(str(path), fill)
    return path


def test_it_lists_then_removes_what_is_confirmed_and_then_nothing(service: Service, play: Play, tmp_path: Path) -> None:
    old = service.deploy("b" * 40, days=300, environment="staging")
    newest = service.deploy("c" * 40, days=200, environment="staging")
    backup = with_backup(service, old, tmp_path / "backups")
    reports, plan_id = tmp_path / "checkout/artifacts/staging", service.plan.id
    plans = [with_plan(reports, name, plan_id) for name in (old, newest, "20250101T000000Z-check")]
    plans += [with_plan(reports, "20250102T000000Z-check", "another-plan")]
    plans += [with_plan(reports, "20991231T000000Z-check", plan_id)]
    (reports / old / "report.html").write_text("stays")
    foreign = with_plan(reports, "20250103T000000Z-check", plan_id)
    foreign.write_text(foreign.read_text().replace("5d41", "ffff"))
    before = (service.rows(), service.journal())

    listed = play("purge.yml", "-e", "report_language=en")
    assert f"{old} {plan_id} staging: 25 rows" in listed
    assert f"{newest} {plan_id} staging: 25 rows" in listed
    assert "(rollback.yml can take it back)" in listed
    assert all(str(path) in listed for path in (backup, plans[0], plans[2]))
    assert f"{foreign}: " in listed
    assert "(its content is not what was recorded)" in listed
    assert not any(str(path) in listed for path in (plans[1], *plans[3:]))
    assert "Next: ansible-playbook purge.yml" in listed
    assert "-e purge_confirmed=true" in listed
    predicted = play("purge.yml", "--check", "--diff", "-e", "report_language=en", "-e", "purge_confirmed=true")
    assert f"-{old}: 25 archived rows" in predicted
    assert f"-{plans[0]}" in predicted
    assert "Would be removed:" in predicted
    assert (service.rows(), service.journal()) == before
    assert all(path.exists() for path in (backup, foreign, *plans))

    done = play("purge.yml", "-e", "purge_confirmed=true", "-e", "report_language=en")
    assert "Removed:" in done
    assert "changed=2" in done
    assert service.rows() == {newest: 25}
    assert [path.exists() for path in (backup, *plans, foreign)] == [False, False, True, False, True, True, True]
    assert (reports / old / "report.html").exists()
    (purge,) = [one for one in service.journal().values() if one["phases"][0]["name"] == "purge"]
    assert f"run {purge['run_id']};" in done
    again = play("purge.yml", "-e", "purge_confirmed=true")
    assert "changed=0" in again
    assert "보관 기간이 지난 자료가 없습니다." in again


@pytest.mark.thorough  # the core's own tests hold both; here is what a person reads of them
def test_zero_is_said_and_a_run_at_work_is_named(service: Service, play: Play) -> None:
    old = service.deploy("b" * 40, days=300)
    service.deploy("c" * 40)
    said = play("purge.yml", "-e", "archive_keep_days=0", "-e", "purge_confirmed=true", "-e", "report_language=en")
    assert "archive_keep_days is 0: nothing is ever purged." in said
    assert f"{old} " in said
    with connect(service.login) as connection:
        at_work = journal.open_run(connection, service.opening()).run_id
    refused = play("purge.yml", "-e", "purge_confirmed=true", "-e", "report_language=en", code=2)
    assert re.search(f"is held by run {at_work}: minsu", refused)
    assert service.rows()[old] == 25
