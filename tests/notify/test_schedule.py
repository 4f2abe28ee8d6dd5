"""The schedule: installed, run as cron would run it, removed; and the systemd units as systemd judges them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from at_most_one.monitoring import schedule

from tests.support.report_cases import ROOT

# What cron keeps for an account, where cron is not installed: the same command, the same file format.
CRONTAB = """#!/bin/sh
case "$*" in
  *-l*) cat "$CRONTAB_FILE" 2>/dev/null || exit 1 ;;
  *-r*) rm -f "$CRONTAB_FILE" ;;
  *) for file; do :; done; cat "$file" > "$CRONTAB_FILE" ;;
esac
"""
RENDER = """
- name: Render
  hosts: all
  gather_facts: false
  vars_files: ["{{ role }}/defaults/main.yml"]
  tasks:
    - name: Render
      ansible.builtin.template:
        src: "{{ role }}/templates/monitor.{{ item }}.j2"
        dest: "{{ to }}/at-most-one-monitor-staging.{{ item }}"
        mode: "0644"
      loop: [service, timer]
"""
SCHEDULE = """
- name: Schedule
  hosts: all
  gather_facts: false
  vars: {run_inputs: {plan: {}}} # what run's check leaves: a plan without tenants
  tasks:
    - name: Schedule
      ansible.builtin.include_role: {name: monitor_schedule}
"""
SYSTEMCTL = """#!/bin/sh
echo "$*" >> "$(dirname "$(dirname "$0")")/asked"
case "$*" in
  is-enabled*) echo enabled ;;
  show*) printf 'LoadState=loaded\\nActiveState=active\\n' ;;
esac
"""
INVENTORY = """
staging:
  hosts:
    web1: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  vars: {environment_name: staging, project_path: %s}
"""
# What monitor.yml asks of every environment before it does anything; the schedule looks at none of it.
VALUES = {
    **dict.fromkeys(("app_name", "app_path", "app_url"), "/nowhere"),
    **{f"database_{name}": "nowhere" for name in ("host", "name", "user", "password")},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout whose ansible-playbook writes down how it was started."""
    project = tmp_path / "check out %d"
    (project / ".venv/bin").mkdir(parents=True)
    playbook = project / ".venv/bin/ansible-playbook"
    playbook.write_text('#!/bin/sh\necho "$PWD | $* | $LC_ALL"\n')
    playbook.chmod(0o755)
    for name in ("plans", "roles"):  # what is looked up there before
        (project / name).symlink_to(ROOT / name)
    return project


def play(directory: Path, project: Path, playbook: str, *options: str) -> str:
    """A front door in an environment that is only a name."""
    (directory / "staging/group_vars").mkdir(parents=True, exist_ok=True)
    (directory / "staging/hosts.yml").write_text(INVENTORY % project)
    (directory / "staging/group_vars/all.yml").write_text((ROOT / "inventories/all.yml").read_text())
    (directory / "staging/host_vars").mkdir(exist_ok=True)
    (directory / "staging/host_vars/web1.yml").write_text(json.dumps({**VALUES, "project_path": str(project)}))
    (directory / "bin").mkdir(exist_ok=True)
    (directory / "bin/crontab").write_text(CRONTAB)
    (directory / "bin/crontab").chmod(0o755)
    command: list[str | Path] = [
        str(ROOT / ".venv/bin/ansible-playbook"),
        str(ROOT / playbook),
        "-i",
        str(directory / "staging"),
    ]
    command += ["-l", "staging", *options]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
    environment |= {
        "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
        "CRONTAB_FILE": str(directory / "crontab"),
        "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
    }
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_cron_starts_it_and_it_goes_as_it_came(tmp_path: Path, project: Path) -> None:
    crontab = tmp_path / "crontab"
    crontab.write_text("0 1 * * * /bin/true # somebody else's\n")
    cron = ("-e", "monitor_schedule_scheduler=cron", "-e", "monitor_schedule_vault_password_file=/etc/vault")
    schedule = ("monitor.yml", "--tags", "schedule", *cron)

    assert "changed=1" in play(tmp_path, project, *schedule)
    assert "changed=0" in play(tmp_path, project, *schedule), "a second run changes nothing"

    foreign, mark, line = crontab.read_text().splitlines()
    assert foreign == "0 1 * * * /bin/true # somebody else's"
    assert mark == "#Ansible: at-most-one-monitor-staging"
    assert line.startswith("30 7 * * * ")
    # cron: %% ends the command unless it is escaped; next to no environment; /bin/sh.
    command = line.split(" ", 5)[5].replace("\\%", "%")
    bare = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "nobody"}
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=bare, check=True)
    log = (project / "artifacts/staging/monitor.log").read_text()
    started = f"monitor.yml -i {tmp_path / 'staging'} -l staging --vault-password-file /etc/vault"
    assert log == f"{project} | {started} | C.UTF-8\n", "with the inventory as it was given"

    assert "changed=1" in play(tmp_path, project, *schedule, "-e", "monitor_schedule_state=absent")
    assert crontab.read_text() == "0 1 * * * /bin/true # somebody else's\n"
    assert "changed=0" in play(tmp_path, project, *schedule, "-e", "monitor_schedule_state=absent")


def test_a_line_of_cron_does_not_outlive_the_change_to_a_timer(tmp_path: Path, project: Path) -> None:
    crontab = tmp_path / "crontab"
    crontab.write_text("0 1 * * * /bin/true # somebody else's\n")
    schedule = ("monitor.yml", "--tags", "schedule")
    play(tmp_path, project, *schedule, "-e", "monitor_schedule_scheduler=cron")
    assert "at-most-one-monitor-staging" in crontab.read_text()
    timer = ("-e", "monitor_schedule_scheduler=systemd", "-e", "monitor_schedule_state=absent")
    play(tmp_path, project, *schedule, *timer)
    assert crontab.read_text() == "0 1 * * * /bin/true # somebody else's\n"


def test_a_timer_does_not_outlive_the_change_to_cron(tmp_path: Path, project: Path) -> None:
    """systemctl is a stand-in that writes down what it is asked; what the host is said to be is given in its place."""
    name, units = "at-most-one-monitor-staging", tmp_path / "units"
    link = units / f"timers.target.wants/{name}.timer"
    link.parent.mkdir(parents=True)
    for kind in ("timer", "service"):
        (units / f"{name}.{kind}").touch()
    link.symlink_to(units / f"{name}.timer")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemctl").write_text(SYSTEMCTL)
    (tmp_path / "bin/systemctl").chmod(0o755)
    (tmp_path / "schedule.yml").write_text(SCHEDULE)
    host = {
        **{"name": name, "scheduler": "cron", "has_systemd": True, "has_crontab": True, "scope": "system"},
        **{"units_path": str(units), "units": ["timer", "service"], "cron_job": "/bin/true", "exec_start": "/bin/true"},
    }
    given = {"monitor_schedule_scheduler": "cron", "__monitor_schedule_host": host}

    play(tmp_path, project, str(tmp_path / "schedule.yml"), "-e", json.dumps(given))

    assert [path for path in units.rglob("*") if path.is_symlink() or path.is_file()] == []
    asked = (tmp_path / "asked").read_text().splitlines()
    done = {one for one in asked if not one.startswith(("show", "is-"))}
    assert done == {f"disable {name}.timer", f"stop {name}.timer", "daemon-reload"}
    assert f"#Ansible: {name}\n30 7 * * * /bin/true\n" in (tmp_path / "crontab").read_text()


def test_of_a_plan_with_tenants_each_of_them_is_monitored(tmp_path: Path, project: Path) -> None:
    (project / "plans").unlink()
    (project / "plans").mkdir()
    plan = (ROOT / "tests/unit/plans/good.yml").read_text()
    (project / "plans/good.yml").write_text(f"{plan}tenants: {{schemas: [shop_a, shop_b]}}\n")
    of_tenants = ("-e", "plan=good", "-e", "migrate_adapter=sql", "-e", "monitor_schedule_scheduler=cron")
    play(tmp_path, project, "monitor.yml", "--tags", "schedule", *of_tenants)
    assert " tenants.yml -i " in (tmp_path / "crontab").read_text()
    assert " -l staging -e tenants_action=monitor -e plan=good >" in (tmp_path / "crontab").read_text()


def test_what_the_command_line_sets_the_schedule_sets_too(tmp_path: Path, project: Path) -> None:
    """The inventory does not have it: another plan would be monitored, and its pages would be elsewhere."""
    kept, plan = tmp_path / "kept here", "one-active-inspection-session"
    cron = ("monitor.yml", "--tags", "schedule", "-e", "monitor_schedule_scheduler=cron")
    play(tmp_path, project, *cron)
    play(tmp_path, project, *cron, "-e", json.dumps({"at_most_one_artifacts": str(kept)}), "-e", f"plan={plan}")

    own, _, mark, line = (tmp_path / "crontab").read_text().splitlines()
    assert (own, mark) == ("#Ansible: at-most-one-monitor-staging", f"#Ansible: at-most-one-monitor-staging-{plan}")
    command = line.split(" ", 5)[5].replace("\\%", "%")
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, check=True)
    log = (kept / f"staging/monitor-{plan}.log").read_text()
    assert f'-l staging -e {{"at_most_one_artifacts": "{kept}"}} -e plan={plan} |' in log


def test_systemd_accepts_the_units(tmp_path: Path, project: Path) -> None:
    (tmp_path / "render.yml").write_text(RENDER)
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging/hosts.yml").write_text(INVENTORY % project)
    command: list[str | Path] = [
        ROOT / ".venv/bin/ansible-playbook",
        tmp_path / "render.yml",
        "-i",
        tmp_path / "staging/hosts.yml",
    ]
    given = {
        **{"environment": "staging", "project_path": str(project), "artifacts": f"{project}/artifacts"},
        **{"playbook": "monitor.yml", "inventory": "/in ventory", "plan": "", "vault_password_file": ""},
    }
    line = schedule.command({**given, "variables": []}, f"{project}/.venv/bin")
    facts = {"role": str(ROOT / "roles/monitor_schedule"), "to": str(tmp_path)}
    command += ["-e", json.dumps({**facts, "__monitor_schedule_host": {"exec_start": schedule.exec_start(line)}})]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    service = (tmp_path / "at-most-one-monitor-staging.service").read_text()
    timer = (tmp_path / "at-most-one-monitor-staging.timer").read_text()
    assert "OnCalendar=*-*-* 07:30:00" in timer
    (start,) = [line for line in service.splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(start.removeprefix("ExecStart=").replace("%%", "%"))
    assert words[:2] == ["/bin/sh", "-c"]
    subprocess.run(words, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, check=True)
    assert str(project) in (project / "artifacts/staging/monitor.log").read_text()
    if shutil.which("systemd-analyze"):
        units = [str(tmp_path / f"at-most-one-monitor-staging.{kind}") for kind in ("service", "timer")]
        verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
        )
        assert (verified.returncode, verified.stderr) == (0, "")
