"""A wrong command names what is wrong, shows the right one, ends with an error and changes nothing."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.deploy.conftest import ROOT, Lab

CASES = {
    "no limit": ([], "-i inventories/local -l local"),
    "a wrong limit": (["-l", "prodction"], "prodction is neither a host nor a group of local"),
    "a missing plan": (["-l", "local", "-e", "plan=no-such-plan"], "There is no plan no-such-plan"),
    "an unknown variable": (["-l", "local", "-e", "cleanup_ceilling=3"], "No role knows cleanup_ceilling"),
    "an unknown inventory variable": (["-l", "local", "-e", "app_instance_timeout=3"], "app_instance_timeout_s"),
    "an empty value": (["-l", "local", "-e", "database_password="], "local lacks database_password"),
}


def ansible_playbook(*arguments: str, inventory: str = "local") -> tuple[int, str]:
    command = [ROOT / ".venv/bin/ansible-playbook", "deploy.yml", "-i", f"inventories/{inventory}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("case", CASES)
def test_is_refused_by_name(lab: Lab, case: str) -> None:
    arguments, message = CASES[case]
    before = (lab.content(), lab.catalog(), lab.pids(), lab.link)

    code, output = ansible_playbook(*arguments)

    assert code != 0
    assert message in output
    assert "Expected:" in output
    assert "Next:" in output
    assert (lab.content(), lab.catalog(), lab.pids(), lab.link) == before


def test_missing_vault_value_is_named_with_its_file(tmp_path: Path) -> None:
    """Production itself, stopped on the control node before any connection: there is no vault in the repository."""
    code, output = ansible_playbook("-l", "production", inventory="production")

    assert code != 0
    assert "vault_database_password" in output
    assert "inventories/production/group_vars/production/vault.yml" in output
    assert "UNREACHABLE" not in output


GATES = {
    "nothing is answered": ([], ["backup of age unknown", "rehearsal not confirmed", "notice to the inspection team"]),
    "the time is none": (["prepare_backup_taken_at=yesterday"], ["backup of age unknown", "yesterday"]),
    "the backup is old": (["prepare_backup_taken_at=2020-01-01T00:00:00Z"], ["at most 24 hours"]),
    "the answers are no": (
        ["prepare_rehearsed=false", "prepare_notice_sent=false"],
        ["rehearsal not confirmed", "notice to the inspection team"],
    ),
}


@pytest.mark.parametrize("case", GATES)
def test_an_open_gate_of_the_checklist_stops_the_run(lab: Lab, case: str) -> None:
    answers, messages = GATES[case]
    code, output = with_gates(*answers)

    assert code != 0
    assert all(message in output for message in messages), output


def test_answered_gates_let_the_run_go_on(lab: Lab) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    code, output = with_gates(f"prepare_backup_taken_at={now}", "prepare_rehearsed=true", "prepare_notice_sent=true")

    assert "open gates" not in output
    assert code == 0, output


def with_gates(*answers: str) -> tuple[int, str]:
    gates = '{"prepare_gates": ["backup", "rehearsal", "notice"]}'
    extra = [word for answer in (gates, *answers) for word in ("-e", answer)]
    return ansible_playbook("-l", "local", "--tags", "prepare", *extra)
