"""Who has started a command, also where AWX or Semaphore has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - run_inputs: {playbook: discover.yml, needs_plan: false}
      register: found
    - ansible.builtin.debug: {msg: "started by <{{ found.who }}>"}
"""
AT_AWX = {"awx_job_id": 7, "awx_job_launch_type": "manual"}


@pytest.mark.parametrize(
    ("given", "who"),
    [
        pytest.param({**AT_AWX, "awx_user_name": "minji"}, "minji", id="a person at AWX"),
        pytest.param(AT_AWX, "AWX job 7", id="a schedule of AWX"),
        pytest.param({"semaphore_vars": {"task_details": {"id": 3, "username": "jun"}}}, "jun", id="Semaphore"),
        pytest.param({"semaphore_vars": "theirs"}, "sora", id="a variable of somebody's own"),
        pytest.param({}, "sora", id="a shell"),
    ],
)
def test_who_has_started_it(tmp_path: Path, given: dict[str, Any], who: str) -> None:
    values = {
        **yaml.safe_load((ROOT / "inventories/all.yml").read_text()),
        **{"environment_name": "shop", "app_name": "shop", "app_adapter": "none", "migrate_adapter": "sql"},
        **dict.fromkeys(("database_host", "database_name", "database_user", "database_password"), "nowhere"),
        **{"prepare_backup_path": "/nowhere", "ansible_connection": "local"},
        "ansible_python_interpreter": sys.executable,
    }
    (tmp_path / "hosts.yml").write_text(json.dumps({"shop": {"hosts": {"one": {}}, "vars": values}}))
    (tmp_path / "play.yml").write_text(PLAY)
    done = subprocess.run(
        [ROOT / ".venv/bin/ansible-playbook", "play.yml", "-i", "hosts.yml", "-l", "shop", "-e", json.dumps(given)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "USER": "sora", "LC_ALL": "C.UTF-8"}
        | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"started by <{who}>" in done.stdout, done.stdout + done.stderr
