"""A wrong command names what is wrong, shows the right one, ends with an error and changes nothing."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.deploy.conftest import ROOT, Lab

CASES = {
    "no limit": ([], "-i inventories/local -l local"),
    "a wrong limit": (["-l", "prodction"], "prodction is neither a host nor a group of inventories/local"),
    "a missing plan": (["-l", "local", "-e", "plan=no-such-plan"], "There is no plan no-such-plan"),
    "an unknown variable": (["-l", "local", "-e", "cleanup_ceilling=3"], "No role knows cleanup_ceilling"),
    "an unknown inventory variable": (["-l", "local", "-e", "app_instance_timeout=3"], "app_instance_timeout_s"),
    "an empty value": (["-l", "local", "-e", "database_password="], "local lacks database_password"),
}


def ansible_playbook(*arguments: str, inventory: str = "local") -> tuple[int, str]:
    command: list[str | Path] = [
        ROOT / ".venv/bin/ansible-playbook",
        "deploy.yml",
        "-i",
        f"inventories/{inventory}",
        *("-e", "report_language=en"),
        *arguments,
    ]
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
    "nothing is answered": (
        [],
        ["nobody said when it was taken", "There is no evidence of a rehearsal", "Nobody has confirmed the notice"],
    ),
    "the answers are wrong": (
        ["prepare_backup_taken_at=2020-01-01T00:00:00Z", "prepare_notice_sent=true", "prepare_rehearsal_reason=' '"],
        ["at most 24 hours", "not for which time", "There is no evidence of a rehearsal"],
    ),
    "the switch of old": (["prepare_rehearsed=true"], ["No role knows prepare_rehearsed"]),
}


@pytest.mark.parametrize("case", GATES)
def test_an_open_gate_of_the_checklist_stops_the_run(lab: Lab, case: str) -> None:
    answers, messages = GATES[case]
    code, output = with_gates(*answers)

    assert code != 0
    assert all(message in output for message in messages), output
    assert "Next:" in output


def test_answered_gates_let_the_run_go_on_and_the_reason_is_in_the_journal(lab: Lab) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    notice = {"prepare_notice_sent": True, "prepare_notice_from": now}
    reason = {"prepare_rehearsal_reason": "staging is being moved"}

    code, output = with_gates(f"prepare_backup_taken_at={now}", json.dumps({**notice, **reason}))

    assert "gates of the checklist are open" not in output
    assert code == 0, output
    kept = lab.value(
        "SELECT details->'checklist' FROM at_most_one.step JOIN at_most_one.run USING (run_id)"
        " WHERE phase = 'prepare' ORDER BY run.started_at DESC LIMIT 1"
    )
    assert kept["rehearsal"]["facts"]["reason"] == "staging is being moved"
    assert "does not exist" in kept["rehearsal"]["facts"]["instead_of"]
    assert kept["backup"]["facts"]["taken_at"] == now
    assert kept["notice"]["facts"]["from"] == now


def with_gates(*answers: str) -> tuple[int, str]:
    gates = {"prepare_gates": ["backup", "rehearsal", "notice"], "prepare_rehearsal_evidence": "artifacts/no-such.json"}
    extra = [word for answer in (json.dumps(gates), *answers) for word in ("-e", answer)]
    return ansible_playbook("-l", "local", "--tags", "prepare", *extra)
