"""A host cannot be reached: monitor, watch and the run that it ends tell people, as of anything else that is wrong."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import rendering
from tests.support.listener import listening
from tests.support.report_cases import CASES, ROOT

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
    directory: Path, lost: str, playbook: str, *options: str, **values: Any
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
        command += ["-i", directory / "staging", "-l", "staging", *options]
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
    assert (alert["event"], alert["plan"]) == ("alert", {"id": "one-active-inspection-session"})


def test_a_plan_that_the_command_line_names_is_known_apart(tmp_path: Path) -> None:
    """What is known of the inventory's plan would be told to be over, and its figures would be gone."""
    plan = "one-active-inspection-session"
    figures = {"monitor_textfile": str(tmp_path / "rule.prom")}
    done, _ = play(tmp_path, "web2", "monitor.yml", "-e", f"plan={plan}", **figures)

    (apart,) = (tmp_path / "artifacts/staging/monitor").iterdir()
    assert apart.name == plan, done.stdout + done.stderr
    kept = {"history.jsonl", "index.html", "monitor.json", "state.json"}
    assert {path.name for path in apart.iterdir()} == kept, done.stdout + done.stderr
    assert [path.name for path in tmp_path.glob("*.prom")] == [f"rule-{plan}.prom"]


def test_a_host_that_cannot_be_watched_is_told_and_takes_nothing_back(tmp_path: Path) -> None:
    """Nor the other one, whose PM2 runs nothing: what nobody could look at is no reason to go back."""
    settings = {"watch_minutes": 0.02, "watch_baseline_s": 0.1, "watch_round_s": 5, "watch_rollback": True}
    done, told = play(tmp_path, "web2", "watch.yml", **settings)

    watched = tmp_path / "artifacts/staging/watch.json"
    assert watched.is_file(), done.stdout + done.stderr
    found = {one["host"]: one for one in json.loads(watched.read_text())["findings"]}
    assert {host: (one["name"], one["identifier"]) for host, one in found.items()} == {
        "web1": ("unwatched", "AMO-4214"),
        "web2": ("unwatched", "AMO-4420"),
    }
    assert done.returncode == 2
    (alert,) = told
    assert alert["event"] == "alert"
    assert "Read which commit is served" not in done.stdout, "a rollback would begin with it"


# A phase as the playbooks have it: the first thing that it asks the host is not answered.
PHASE = """
- name: (1/1) Prepare
  hosts: all
  gather_facts: false
  vars: {run_phase: prepare}
  any_errors_fatal: true
  ignore_unreachable: true
  tasks:
    - name: Open the run
      ansible.builtin.set_fact: {run_end: {outcome: running}}
    - name: Prepare
      block:
        - name: Read the running instances
          ansible.builtin.ping:
          register: prepare_instances
      rescue:
        - name: Stop the run
          ansible.builtin.include_role: {name: run, tasks_from: stop, apply: {tags: [always]}}
"""


def test_a_run_that_loses_the_only_host_with_a_way_to_the_journal_leaves_a_report_and_tells_people(
    tmp_path: Path,
) -> None:
    artifacts = tmp_path / "artifacts/run-1"
    (tmp_path / "phase.yml").write_text(PHASE)
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"web1": LOST}}}))
    with listening() as server:
        facts = {
            **{key: fact for key, fact in CASES["stopped_early"].items() if key != "run_end"},
            **rendering.SERVICE,
            **{"report_language": "en", "run_front_door": "deploy.yml", "database_gateway": "web1"},
            "database_login": {"host": "127.0.0.1", "port": 1, "user": "a", "password": "b", "dbname": "c"},
            "run_facts": {**CASES["stopped_early"]["run_facts"], "artifacts_path": str(artifacts)},
            "notify_webhook_url": f"{server.url}/webhook",
        }
        (tmp_path / "facts.json").write_text(json.dumps(facts))
        command: list[str | Path] = [ROOT / ".venv/bin/ansible-playbook", tmp_path / "phase.yml"]
        command += ["-i", tmp_path / "hosts.yml", "-e", f"@{tmp_path / 'facts.json'}"]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        told = server.bodies("/webhook")

    assert done.returncode == 2, done.stdout + done.stderr
    assert (artifacts / "report.json").is_file(), done.stdout + done.stderr
    report = json.loads((artifacts / "report.json").read_text())
    assert (report["outcome"], report["failed_phase"]) == ("stopped", "prepare")
    assert report["error"].startswith("The connection to web1 was lost: ")
    assert "The journal stays open: " in report["error"]
    (message,) = told
    assert (message["event"], message["outcome"]) == ("stop", "stopped")
    assert message["findings"][0]["seen"].startswith("The connection to web1 was lost: ")


@pytest.mark.parametrize("playbook", ["deploy.yml", "rollback.yml"])
def test_a_host_that_is_lost_once_the_run_is_open_ends_it_like_any_failure(playbook: str) -> None:
    """Without the two lines Ansible ends the play at the lost host: no way back, no report, and nobody is told."""
    opening, *phases = yaml.safe_load((ROOT / "playbooks" / playbook).read_text(encoding="utf-8"))
    assert opening["name"].startswith("(0/")
    assert phases
    for play in phases:
        assert play["any_errors_fatal"], play["name"]
        assert play["ignore_unreachable"], play["name"]


def test_what_follows_the_opening_of_a_run_in_the_same_play_leaves_none_open() -> None:
    """Before it is opened a lost host ends the command, and nobody has been told that something begins."""
    opening = yaml.safe_load((ROOT / "roles/run/tasks/main.yml").read_text(encoding="utf-8"))
    (going_on,) = [task for task in opening if "rescue" in task]
    assert going_on["ignore_unreachable"]
    (baseline,) = yaml.safe_load((ROOT / "roles/watch/tasks/baseline.yml").read_text(encoding="utf-8"))
    assert baseline["ignore_unreachable"]
    assert baseline["ignore_errors"]
