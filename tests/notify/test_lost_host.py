"""The monitor of several hosts of which one cannot be reached: people are told, as of anything else that is wrong."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.listener import listening
from tests.support.report_cases import ROOT

HERE = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
LOST = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
# Nothing of it answers: that the database and the service cannot be read is what the monitor says in any case.
VALUES = {
    **{"environment_name": "staging", "report_language": "en", "app_path": "/nowhere", "app_url": "http://127.0.0.1:1"},
    **{f"database_{name}": "nowhere" for name in ("name", "user", "password")},
    **{"database_host": "127.0.0.1", "database_port": 1},
    **{"app_auth": "bearer", "app_user_login": {}, "app_admin_login": {}},
}


@pytest.mark.parametrize("lost", ["web1", "web2"])
def test_a_lost_host_is_a_finding_and_people_are_told(tmp_path: Path, lost: str) -> None:
    """The first one is the gateway, too, from which the database is read."""
    (tmp_path / "plans").symlink_to(ROOT / "plans")
    (tmp_path / "staging/group_vars").mkdir(parents=True)
    (tmp_path / "staging/group_vars/all.yml").write_text((ROOT / "inventories/all.yml").read_text())
    hosts = {name: LOST if name == lost else HERE for name in ("web1", "web2")}
    with listening() as server:
        values = {**VALUES, "project_path": str(tmp_path), "notify_webhook_url": f"{server.url}/webhook"}
        (tmp_path / "staging/hosts.yml").write_text(json.dumps({"staging": {"hosts": hosts}}))
        (tmp_path / "staging/group_vars/staging.yml").write_text(json.dumps(values))
        command: list[str | Path] = [ROOT / ".venv/bin/ansible-playbook", ROOT / "monitor.yml"]
        command += ["-i", tmp_path / "staging", "-l", "staging"]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        told = server.bodies("/webhook")

    monitored = tmp_path / "artifacts/staging/monitor/monitor.json"
    assert monitored.is_file(), done.stdout + done.stderr
    names = {one["name"] for one in json.loads(monitored.read_text())["findings"]}
    assert f"pm2:{lost}" in names
    assert ("database" in names) or lost != "web1", "all of it, by one finding"
    assert done.returncode == 2
    (alert,) = told
    assert alert["event"] == "alert"
