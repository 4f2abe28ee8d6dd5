"""A wrong command names what is wrong, shows the right one, ends with an error and changes nothing."""

from __future__ import annotations

import subprocess
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
