"""An inventory works wherever it stands, and a wrong limit is answered with the inventory that was meant."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def playbook(*arguments: str | Path) -> str:
    """What people see of a command that ends before it reaches a host."""
    command = [BIN / "ansible-playbook", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["deploy.yml", "-l", "staging"], "deploy.yml -i inventories/staging -l staging"),
        (["monitor.yml", "-l", "stagin", "-e", "plan=x"], "monitor.yml -i inventories/staging -l staging -e plan=x"),
        (["deploy.yml", "-l", "prodction"], "deploy.yml -i inventories/production -l production"),
        (["rollback.yml", "-i", "inventories/staging", "-l", "local"], "rollback.yml -i inventories/local -l local"),
    ],
)
def test_a_limit_is_answered_once_with_its_own_inventory(arguments: list[str], command: str) -> None:
    output = playbook(*arguments, "--syntax-check")
    assert f"다음: ansible-playbook {command}\n" in output
    assert output.count("다음:") == output.count("AMO-1036") == 1
    assert "neither" not in output, "Korean is the default"


def test_a_limit_that_resembles_nothing_names_every_environment() -> None:
    output = playbook("deploy.yml", "-l", "zzz", "--syntax-check", "-e", "report_language=en")
    assert "zzz is neither a host nor a group of" in output
    assert "Next: the same command with one of " in output
    assert "-i inventories/staging -l staging" in output
    assert "Next: ansible-playbook" not in output


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "inventories/production", tmp_path / "mine", symlinks=True))


def test_a_copied_inventory_has_the_common_values_and_its_own_have_precedence(copied: Path) -> None:
    (copied / "group_vars/all.yml").write_text("release_keep: 77\n")
    hosts = yaml.safe_load((copied / "hosts.yml").read_text())
    (name,) = hosts["production"]["hosts"]
    hosts["production"]["vars"] = {"database_port": 7777}
    (copied / "hosts.yml").write_text(yaml.safe_dump(hosts))
    command = [BIN / "ansible-inventory", "-i", copied, "--host", name]
    read = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout)
    common = yaml.safe_load((ROOT / "inventories/all.yml").read_text())
    own = yaml.safe_load((copied / "group_vars/production/main.yml").read_text())
    expected = {**common, "release_keep": 77, "database_port": 7777, **own}
    assert {key: read[key] for key in expected} == expected


def test_a_copied_inventory_is_named_as_it_was_given(copied: Path) -> None:
    output = playbook("deploy.yml", "-i", copied, "-l", "production", "-e", "report_language=en")
    assert f"{copied}/group_vars/production/vault.yml" in output
    command = f"ansible-playbook deploy.yml -i {copied} -l production -e report_language=en --ask-vault-pass"
    assert command in " ".join(output.split())


def test_an_inventory_without_the_common_values_is_refused_with_what_to_do(copied: Path) -> None:
    (copied / "target.guard").unlink()
    output = " ".join(playbook("history.yml", "-i", copied, "-l", "production").split())
    assert "undefined" not in output
    assert (
        f"Next: cp inventories/production/target.guard {copied}/, then ansible-playbook history.yml -i {copied}"
        in output
    )


def test_what_is_empty_or_zero_is_named_as_what_it_is(copied: Path) -> None:
    values = {"plan": "", "pm2_reload_batch": 0, "report_language": "en"}
    output = " ".join(playbook("deploy.yml", "-i", copied, "-l", "production", "-e", json.dumps(values)).split())
    assert "plan is empty." in output
    assert "pm2_reload_batch is 0." in output
    assert "target.guard" not in output, "the inventory has its common values"
