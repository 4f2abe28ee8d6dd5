"""One of several hosts cannot be reached: monitor and watch tell people, as of anything else that is wrong."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.listener import listening
from tests.support.report_cases import ROOT

HERE = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
LOST = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
# Nothing of it answers: that database, service and PM2 cannot be read is what is said in any case.
VALUES = {
    **{"environment_name": "staging", "report_language": "en", "app_path": "/nowhere", "app_url": "http://127.0.0.1:1"},
    **{f"database_{name}": "nowhere" for name in ("name", "user", "password")},
    **{"database_host": "127.0.0.1", "database_port": 1, "pm2_bin": "/nowhere/pm2"},
    **{"app_auth": "bearer", "app_user_login": {}, "app_admin_login": {}},
}


def play(
    directory: Path, lost: str, playbook: str, **values: Any
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """Run the playbook in an environment of web1, which is the gateway, and web2; and what people were told."""
    (directory / "plans").symlink_to(ROOT / "plans")
    (directory / "staging/group_vars").mkdir(parents=True)
    (directory / "staging/group_vars/all.yml").write_text((ROOT / "inventories/all.yml").read_text())
    hosts = {name: LOST if name == lost else HERE for name in ("web1", "web2")}
    (directory / "staging/hosts.yml").write_text(json.dumps({"staging": {"hosts": hosts}}))
    with listening() as server:
        values = {**VALUES, **values, "project_path": str(directory), "notify_webhook_url": f"{server.url}/webhook"}
        (directory / "staging/group_vars/staging.yml").write_text(json.dumps(values))
        command: list[str | Path] = [ROOT / ".venv/bin/ansible-playbook", ROOT / playbook]
        command += ["-i", directory / "staging", "-l", "staging"]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        return done, server.bodies("/webhook")


@pytest.mark.parametrize("lost", ["web1", "web2"])
def test_a_lost_host_is_a_finding_of_the_monitor(tmp_path: Path, lost: str) -> None:
    """From the first one the database is read, too."""
    done, told = play(tmp_path, lost, "monitor.yml")

    monitored = tmp_path / "artifacts/staging/monitor/monitor.json"
    assert monitored.is_file(), done.stdout + done.stderr
    names = {one["name"] for one in json.loads(monitored.read_text())["findings"]}
    assert f"pm2:{lost}" in names
    assert "database" in names or lost != "web1", "all of it, by one finding"
    assert done.returncode == 2
    (alert,) = told
    assert alert["event"] == "alert"


def test_a_host_that_cannot_be_watched_is_told_and_takes_nothing_back(tmp_path: Path) -> None:
    """What one round has seen on the other is no reason to go back, either."""
    settings = {"watch_minutes": 0.02, "watch_baseline_s": 0.1, "watch_round_s": 5, "watch_rollback": True}
    done, told = play(tmp_path, "web2", "watch.yml", **settings)

    watched = tmp_path / "artifacts/staging/watch.json"
    assert watched.is_file(), done.stdout + done.stderr
    found = {one["host"]: one for one in json.loads(watched.read_text())["findings"]}
    assert {host: (one["name"], one["identifier"]) for host, one in found.items()} == {
        "web2": ("unwatched", "AMO-4420")
    }
    assert done.returncode == 2
    (alert,) = told
    assert alert["event"] == "alert"
    assert "Read which commit is served" not in done.stdout, "a rollback would begin with it"
