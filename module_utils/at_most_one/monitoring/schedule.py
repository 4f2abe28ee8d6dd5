"""How the monitor is started every day: by which scheduler, and with which command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OperatorError
from ..findings import observed, say

UNITS = ("timer", "service")


@dataclass(frozen=True)
class Host:
    """What the host of the schedule is."""

    name: str  # as monitor_schedule_host has it
    has_systemd: bool  # it was booted by it
    has_crontab: bool
    is_root: bool  # the account that installs
    home: Path

    @property
    def units_path(self) -> Path:
        return Path("/etc/systemd/system") if self.is_root else self.home / ".config/systemd/user"


def scheduler(host: Host, asked: str) -> str:
    """systemd or cron. Raises OperatorError where it has to be cron, and cron is not installed."""
    chosen = asked if asked != "auto" else "systemd" if host.has_systemd else "cron"
    if chosen == "cron" and not host.has_crontab:
        raise OperatorError(
            observed("AMO-5115", "{host} has not been booted by systemd and has no crontab.", host=host.name),
            expected=say("one of the two."),
            next_step=say(
                "install cron there (on Debian and Ubuntu: apt-get install cron), or name another host: "
                "-e monitor_schedule_host=."
            ),
        )
    return chosen


def name(environment: str, plan: str) -> str:
    """The name of the units, and of the line in the crontab; with ``plan`` where that is not the inventory's."""
    return f"at-most-one-monitor-{environment}{_apart(plan)}"


def _apart(plan: str) -> str:
    return f"-{plan}" if plan else ""


def programs(project: str, playbook: str, python_programs: str) -> str:
    """Where ansible-playbook is: in the checkout, or with an installed collection where it runs now."""
    return f"{project}/.venv/bin" if playbook.endswith(".yml") else python_programs


def require_project(host: Host, directory: str, project: str) -> None:
    """Raise OperatorError unless that host has the ansible-playbook that is to be started."""
    if not Path(directory, "ansible-playbook").exists():
        raise OperatorError(
            observed("AMO-5116", "{host} has no {directory}/ansible-playbook.", host=host.name, directory=directory),
            expected=say("this project at {project}, set up.", project=project),
            next_step=say(
                "clone it there and run make setup, or install the schedule on the control node: -e "
                "monitor_schedule_host=localhost."
            ),
        )


def command(given: Mapping[str, Any], directory: str) -> str:
    """The line for a shell. All of it stands there: cron and systemd start it with next to no environment."""
    environment, plan, vault = given["environment"], given["plan"], given["vault_password_file"]
    place = f"{given['artifacts']}/{environment}"
    log = f"{place}/monitor{_apart(plan)}.log"  # it has the last run
    variables = [*given["variables"], *([f"plan={plan}"] if plan else [])]
    words = [
        *("umask 027", "&&", "cd", shlex.quote(given["project_path"])),  # the log is for owner and group
        *("&&", "mkdir -p", shlex.quote(place), "&&"),
        *("LC_ALL=C.UTF-8", f"PATH={shlex.quote(directory)}:/usr/local/bin:/usr/bin:/bin"),
        *(shlex.quote(f"{directory}/ansible-playbook"), given["playbook"]),
        *("-i", shlex.quote(given["inventory"]), "-l", environment),
        *(word for value in variables for word in ("-e", shlex.quote(value))),
        *(("--vault-password-file", shlex.quote(vault)) if vault else ()),
        *(">", shlex.quote(log), "2>&1"),
    ]
    return " ".join(words)


def cron_job(line: str) -> str:
    """The same for cron, which takes a bare % for the end of the line."""
    return line.replace("%", "\\%")


def exec_start(line: str) -> str:
    """The same for a unit of systemd, which reads some characters itself."""
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        line = line.replace(character, escaped)
    return f'/bin/sh -c "{line}"'
