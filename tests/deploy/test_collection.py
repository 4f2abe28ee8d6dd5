"""From a directory that has nothing of this tree but the built collection, the lab is deployed to and taken back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts import build_collection
from tests.deploy.conftest import PLANNED, ROOT, Lab, make

# The same procedure by other names: tests/house holds that the names are right.
pytestmark = pytest.mark.thorough

BIN = Path(sys.executable).parent
NAME = "aedpics.at_most_one"


@pytest.fixture
def user(lab: Lab, tmp_path: Path) -> Path:
    """A project of somebody else, whose inventory leads to the lab."""
    make("lab-reset")
    values = yaml.safe_load((ROOT / "inventories/local/group_vars/local/main.yml").read_text())
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    for path, text in {
        "ansible.cfg": f"[defaults]\ncollections_path = collections\nstdout_callback = {NAME}.phases\n",
        "mine/hosts.yml": json.dumps({"local": {"hosts": {"lab": here}}}),
        "mine/target_guard.yml": f"plugin: {NAME}.target_guard\n",
        "mine/group_vars/local.yml": json.dumps({**values, "local_lab": lab.values, "report_language": "en"}),
        "plans/one-active-inspection-session.yml": (ROOT / "plans/one-active-inspection-session.yml").read_text(),
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    built = build_collection.build(tmp_path / "dist")
    run(tmp_path, "ansible-galaxy", "collection", "install", "--offline", str(built), "-p", "collections")
    return tmp_path


def run(directory: Path, program: str, *arguments: str) -> str:
    """What it prints; nothing of this project's settings counts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    command = [str(BIN / program), *arguments]
    environment = {**kept, "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_collection_deploys_and_takes_back(lab: Lab, user: Path) -> None:
    target = ("-i", "mine", "-l", "local")
    before = lab.sessions()
    run(user, "ansible-playbook", f"{NAME}.deploy", *target)
    assert lab.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert (lab.duplicate_groups(), lab.fences()) == (0, 0)
    report = json.loads((user / "artifacts/local/latest/report.json").read_text())
    assert report["outcome"] == "deployed"
    assert f"{NAME}.rollback" in json.dumps(report) + (user / "artifacts/local/latest/report.md").read_text()
    run(user, "ansible-playbook", f"{NAME}.rollback", *target)
    assert lab.indexes() == {}
    assert before.items() <= lab.sessions().items(), "beside them there is what the checks have opened and ended"
