#!/usr/bin/python
"""Ansible module: read an application's systemd units, and whether they can be restarted one at a time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_app_info
short_description: Read the units of an application under systemd, and what stands against their restart
description:
  - What systemd says is checked against C(/proc).
  - It fails for what M(systemd_app) would refuse to restart, and where a reboot would not bring a unit back, unless
    O(fail=false).
options:
  name:
    description: Name of the application, for what is said of it.
    type: str
    required: true
  fail:
    description: Whether an application that could not be restarted one unit at a time fails the task.
    type: bool
    default: true
  path:
    description:
      - The application's path, the link or the directory in place. It has to be the C(WorkingDirectory) of each unit.
        Required with O(fail=true).
    type: path
  min_units:
    description: Fewer units than this are refused, because nobody would serve during the restart.
    type: int
    default: 2
extends_documentation_fragment:
  - at_most_one.systemd
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read the units, and stop if they could not be restarted one by one
  systemd_app_info:
    name: shop
    path: /srv/shop
    units:
      - {name: shop@3001.service, url: "http://127.0.0.1:3001"}
      - {name: shop@3002.service, url: "http://127.0.0.1:3002"}
"""

RETURN = r"""
instances:
  description:
    - Every unit, as systemd and C(/proc) show it. C(pm_id) is its name, C(status) is C(online) where it is active with
      a process.
  returned: success
  type: list
  elements: dict
  sample: [{"pm_id": shop@3001.service, "status": online, "pid": 4711, "cwd": /srv/shop, "enabled": enabled}]
"""

from typing import Any

from ansible.module_utils.at_most_one.http.proof import Demand
from ansible.module_utils.at_most_one.systemd import client
from ansible.module_utils.at_most_one.systemd.preflight import Aim, preflight, require_brought_back
from ansible.module_utils.at_most_one_entry import SYSTEMD_SPEC, run, systemd_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    given, systemd = module.params, systemd_of(module)
    if given["fail"]:
        aim = Aim(Demand(given["name"], None, None), path=given["path"], min_units=given["min_units"])
        found = preflight(systemd, aim, linked=False)
        require_brought_back(found)
    else:
        found = client.states(systemd)
    return {"changed": False, "instances": [client.described(one) for one in found]}


def main() -> None:
    """Entry point."""
    run(
        {
            "name": {"type": "str", "required": True},
            "fail": {"type": "bool", "default": True},
            "path": {"type": "path"},
            "min_units": {"type": "int", "default": 2},
            **SYSTEMD_SPEC,
        },
        act,
        needs_psycopg2=False,
        required_if=[("fail", True, ("path",))],
    )


if __name__ == "__main__":
    main()
