#!/usr/bin/python
"""Ansible module: find out how a host starts the monitor every day, and with which command."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitor_schedule_info
short_description: Find out how a host starts the monitor every day
description:
  - Runs on the host of the schedule, as the account that installs it, and writes nothing.
  - A host that can start nothing, or on which the project is not set up, is refused by name.
options:
  host:
    description: The host's name, for messages.
    type: str
    required: true
  state:
    description: With V(absent) the project need not be there any more.
    type: str
    choices: [present, absent]
    required: true
  scheduler:
    description: V(auto) is systemd where it has booted the host, and cron elsewhere.
    type: str
    choices: [auto, systemd, cron]
    default: auto
  environment:
    description: The environment that is monitored.
    type: str
    required: true
  project_path:
    description: Where the project is.
    type: str
    required: true
  artifacts:
    description: The directory of reports, in which the output of the last run is kept.
    type: str
    required: true
  playbook:
    description: The monitor's playbook, as ansible-playbook takes it.
    type: str
    required: true
  programs:
    description: Where ansible-playbook runs now; with an installed collection the one to be started.
    type: str
    required: true
  inventory:
    description: The inventory, as it is to be given.
    type: str
    required: true
  variables:
    description: What C(-e) is given, such as V(tenants_action=monitor).
    type: list
    elements: str
    default: []
  plan:
    description: The plan that is monitored; empty for the inventory's. Another one has a schedule of its own.
    type: str
    default: ""
  vault_password_file:
    description: The file that opens the vault; empty where no vault is used.
    type: str
    default: ""
extends_documentation_fragment:
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Find out how this host starts the monitor
  monitor_schedule_info:
    host: localhost
    state: present
    environment: production
    project_path: /srv/at-most-one
    artifacts: /srv/at-most-one/artifacts
    playbook: monitor.yml
    programs: /srv/at-most-one/.venv/bin
    inventory: inventories/production
"""

RETURN = r"""
name:
  description: The name of the unit, and of the line in the crontab.
  returned: always
  type: str
  sample: at-most-one-monitor-production
scheduler:
  description: V(systemd) or V(cron).
  returned: always
  type: str
  sample: systemd
has_systemd:
  description: Whether systemd has booted the host, whichever of the two starts the monitor.
  returned: always
  type: bool
  sample: true
has_crontab:
  description: Whether cron is there, whichever of the two starts the monitor.
  returned: always
  type: bool
  sample: true
scope:
  description: The scope of the units, V(system) or V(user).
  returned: always
  type: str
  sample: system
units_path:
  description: The directory of the units.
  returned: always
  type: str
  sample: /etc/systemd/system
units:
  description: The units that are there, of V(timer) and V(service).
  returned: always
  type: list
  elements: str
  sample: []
cron_job:
  description: The command for a line of the crontab.
  returned: always
  type: str
  sample: umask 027 && cd /srv/at-most-one && ...
exec_start:
  description: The command for a unit.
  returned: always
  type: str
  sample: /bin/sh -c "umask 027 && cd /srv/at-most-one && ..."
"""

import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one.monitoring import schedule
from ansible.module_utils.at_most_one_entry import run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    host = schedule.Host(
        given["host"],
        has_systemd=os.path.isdir("/run/systemd/system"),
        has_crontab=shutil.which("crontab") is not None,
        is_root=os.getuid() == 0,
        home=Path.home(),
    )
    programs = schedule.programs(given["project_path"], given["playbook"], given["programs"])
    if given["state"] == "present":
        schedule.require_project(host, programs, given["project_path"])
    name, line = schedule.name(given["environment"], given["plan"]), schedule.command(given, programs)
    return {
        "changed": False,
        "name": name,
        "scheduler": schedule.scheduler(host, given["scheduler"]),
        "has_systemd": host.has_systemd,
        "has_crontab": host.has_crontab,
        "scope": "system" if host.is_root else "user",
        "units_path": str(host.units_path),
        "units": [unit for unit in schedule.UNITS if (host.units_path / f"{name}.{unit}").exists()],
        "cron_job": schedule.cron_job(line),
        "exec_start": schedule.exec_start(line),
    }


def main() -> None:
    """Entry point."""
    run(
        {
            "host": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "required": True},
            "scheduler": {"type": "str", "choices": ["auto", "systemd", "cron"], "default": "auto"},
            "environment": {"type": "str", "required": True},
            "project_path": {"type": "str", "required": True},
            "artifacts": {"type": "str", "required": True},
            "playbook": {"type": "str", "required": True},
            "programs": {"type": "str", "required": True},
            "inventory": {"type": "str", "required": True},
            "variables": {"type": "list", "elements": "str", "default": []},
            "plan": {"type": "str", "default": ""},
            "vault_password_file": {"type": "str", "default": "", "no_log": False},
        },
        act,
        needs_psycopg2=False,
    )


if __name__ == "__main__":
    main()
