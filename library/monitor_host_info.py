#!/usr/bin/python
"""Ansible module: read what a host serves, whether somebody has changed it, and what a reboot would bring back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitor_host_info
short_description: Read what a host serves, and whether a reboot brings it back
description:
  - What cannot be read does not end it. It is empty, or its error stands in its place; M(monitor_report) makes that a
    finding.
  - It writes nothing.
options:
  path:
    description: The application's path.
    type: path
    required: true
  name:
    description: The application's name in PM2. Not asked for with O(units).
    type: str
    required: true
extends_documentation_fragment:
  - at_most_one.pm2
  - at_most_one.systemd
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read what this host serves
  monitor_host_info:
    path: /var/www/aedpics
    name: aedpics
"""

RETURN = r"""
commit:
  description: The commit that the path leads to; empty where it cannot be read.
  returned: always
  type: str
  sample: 4f743598c1458746f8762db5977339d2e10611e8
real_path:
  description: Where the path leads; empty where it cannot be read.
  returned: always
  type: str
  sample: /var/www/aedpics.releases/4f743598c145
changes:
  description: What shows that something else than a deployment has changed it.
  returned: always
  type: list
  elements: str
  sample: []
modified:
  description: Files of the commit that were changed by hand.
  returned: always
  type: list
  elements: str
  sample: []
under:
  description: V(systemd) where O(units) are asked for, otherwise V(pm2).
  returned: always
  type: str
  sample: pm2
pm2:
  description: The C(instances), as M(pm2_app_info) or M(systemd_app_info) returns them, or an error with C(msg).
  returned: always
  type: dict
  sample: {instances: [{pm_id: 0, status: online, cwd: /var/www/aedpics.releases/4f743598c145}]}
saved:
  description: Whether a reboot brings back what runs now; V(null) where that cannot be read.
  returned: always
  type: bool
  sample: true
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one.errors import OperatorError
from ansible.module_utils.at_most_one.findings import joined
from ansible.module_utils.at_most_one.pm2 import client, lifecycle
from ansible.module_utils.at_most_one.release import git_origin
from ansible.module_utils.at_most_one.systemd import client as systemd_client
from ansible.module_utils.at_most_one_entry import PM2_SPEC, SYSTEMD_SPEC, failed_result, pm2_of, run, systemd_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    kept_running = _units(systemd_of(module)) if given["units"] else _instances(pm2_of(module), given["name"])
    return {"changed": False, **_served(Path(given["path"])), **kept_running}


def _served(path: Path) -> dict[str, Any]:
    try:
        found = git_origin.served(path)
    except (OperatorError, OSError):
        return {"commit": "", "real_path": "", "changes": [], "modified": []}
    names = {"commit": found.commit, "real_path": found.release}
    phrases = {"changes": joined(found.changes).as_data()}
    return {**names, "changes": found.changes, "phrases": phrases, "modified": found.modified}


def _instances(target: client.Pm2, name: str) -> dict[str, Any]:
    try:
        instances = [client.described(one) for one in client.listing(target, name).instances]
    except (OperatorError, OSError) as failure:
        return {"under": "pm2", "pm2": failed_result(failure), "saved": None}
    try:
        saved: bool | None = not lifecycle.save(target, name, check=True)
    except (OperatorError, OSError):
        saved = None
    return {"under": "pm2", "pm2": {"instances": instances}, "saved": saved}


def _units(systemd: systemd_client.Systemd) -> dict[str, Any]:
    try:
        found = systemd_client.states(systemd)
    except (OperatorError, OSError) as failure:
        return {"under": "systemd", "pm2": failed_result(failure), "saved": None}
    instances = [systemd_client.described(one) for one in found]
    saved = all(one.brought_back for one in found)
    return {"under": "systemd", "pm2": {"instances": instances}, "saved": saved}


def main() -> None:
    """Entry point."""
    run(
        {
            "path": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            **PM2_SPEC,
            **SYSTEMD_SPEC,
        },
        act,
        needs_psycopg2=False,
    )


if __name__ == "__main__":
    main()
