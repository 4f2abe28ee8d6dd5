"""Which scheduler starts the monitor, and with which command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.monitoring import schedule

HOST = schedule.Host("gw", has_systemd=True, has_crontab=True, is_root=False, home=Path("/home/deploy"))
BARE = schedule.Host("gw", has_systemd=False, has_crontab=False, is_root=True, home=Path("/root"))


def test_the_scheduler() -> None:
    assert schedule.scheduler(HOST, "auto") == "systemd"
    assert schedule.scheduler(HOST, "cron") == "cron"
    assert schedule.scheduler(BARE, "systemd") == "systemd"
    with pytest.raises(OperatorError, match="gw has not been booted by systemd and has no crontab"):
        schedule.scheduler(BARE, "auto")
    assert [str(host.units_path) for host in (HOST, BARE)] == [
        "/home/deploy/.config/systemd/user",
        "/etc/systemd/system",
    ]


def test_the_project_has_to_be_there(tmp_path: Path) -> None:
    assert schedule.programs("/p", "monitor.yml", "/usr/bin") == "/p/.venv/bin"
    assert schedule.programs("/p", "tenants.yml", "/usr/bin") == "/p/.venv/bin"
    assert schedule.programs("/p", "aedpics.at_most_one.monitor", "/usr/bin") == "/usr/bin"
    with pytest.raises(OperatorError, match=r"gw has no .*/ansible-playbook"):
        schedule.require_project(HOST, str(tmp_path), "/p")
    (tmp_path / "ansible-playbook").touch()
    schedule.require_project(HOST, str(tmp_path), "/p")


def test_the_line_is_whole_and_escaped_for_who_reads_it() -> None:
    given: dict[str, Any] = {
        **{"environment": "staging", "project_path": "/a b%", "artifacts": "/kept %", "playbook": "monitor.yml"},
        **{"inventory": "in", "variables": [], "plan": "", "vault_password_file": ""},
    }
    line = schedule.command({**given, "vault_password_file": "/v"}, "/a b%/.venv/bin")
    assert line == (
        "umask 027 && cd '/a b%' && mkdir -p '/kept %/staging' && LC_ALL=C.UTF-8 "
        "PATH='/a b%/.venv/bin':/usr/local/bin:/usr/bin:/bin "
        "'/a b%/.venv/bin/ansible-playbook' monitor.yml -i in -l staging --vault-password-file /v "
        "> '/kept %/staging/monitor.log' 2>&1"
    )
    assert "--vault-password-file" not in schedule.command(given, "/b")
    named = schedule.command({**given, "variables": ["a=b c"], "plan": "rule"}, "/b")
    assert "monitor.yml -i in -l staging -e 'a=b c' -e plan=rule > '/kept %/staging/monitor-rule.log' 2>&1" in named
    names = [schedule.name("staging", plan) for plan in ("", "rule")]
    assert names == ["at-most-one-monitor-staging", "at-most-one-monitor-staging-rule"], "neither replaces the other"
    assert schedule.cron_job("100 %") == "100 \\%"
    assert schedule.exec_start('a\\b "c" 1% $d') == '/bin/sh -c "a\\\\b \\"c\\" 1%% $$d"'
