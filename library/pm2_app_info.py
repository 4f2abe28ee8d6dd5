#!/usr/bin/python
"""Ansible module: read an application under PM2, and whether it can be reloaded one instance at a time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_app_info
short_description: Read an application under PM2, and what stands against its reload
description:
  - What PM2 says is checked against C(/proc). PM2 is never asked when no daemon runs, because asking would start one.
  - It fails for what M(pm2_app) would refuse to reload, unless O(fail=false).
options:
  name:
    description: Name of the application in PM2.
    type: str
    required: true
  fail:
    description: Whether an application that could not be reloaded one by one fails the task.
    type: bool
    default: true
  path:
    description: The application's path, the link or the directory in place. Required with O(fail=true).
    type: path
  ecosystem:
    description: The ecosystem file, relative to O(path) or absolute; what to do next names it.
    type: str
    default: ecosystem.config.cjs
  min_instances:
    description: Fewer instances than this are refused, because nobody would serve during a reload.
    type: int
    default: 2
  instance_timeout_s:
    description: Seconds for one instance. A reload that somebody else has begun is waited for as long.
    type: float
    default: 60
extends_documentation_fragment:
  - at_most_one.pm2
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read the instances, and stop if they could not be reloaded one by one
  pm2_app_info:
    name: aedpics
    path: /var/www/aedpics
  register: running
"""

RETURN = r"""
instances:
  description: Every instance, as PM2 and C(/proc) show it.
  returned: success
  type: list
  elements: dict
  sample: [{"pm_id": 0, "pid": 4711, "status": "online", "cwd": /var/www/aedpics.releases/4b825dc642cb}]
logs:
  description: The length of every log of the application in bytes, and when that was.
  returned: success
  type: dict
  sample: {"/home/deploy/.pm2/logs/aedpics-error-0.log": {"size": 512, "at": 1762752480.0, "up": 86279.9}}
ready_wait_s:
  description: Seconds that PM2 waits at most for an instance to send C(ready) (C(wait_ready)), 0 for none.
  returned: success
  type: float
  sample: 0.0
version:
  description: The version of the daemon in memory, null when there is none.
  returned: success
  type: str
  sample: 7.0.4
executable_version:
  description: The version of PM2 on disk.
  returned: success
  type: str
  sample: 7.0.4
daemon:
  description: The daemon, null when there is none.
  returned: success
  type: dict
  sample: {"pid": 4700, "user": "deploy", "version": "7.0.4"}
"""

import os
from typing import Any

from ansible.module_utils.at_most_one.http.proof import Demand
from ansible.module_utils.at_most_one.pm2 import client, preflight
from ansible.module_utils.at_most_one_entry import PM2_SPEC, pm2_of, run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    given, target = module.params, pm2_of(module)
    if given["fail"]:
        aim = preflight.Aim(
            Demand(given["name"], None, None, instance_timeout_s=given["instance_timeout_s"]),
            path=given["path"],
            ecosystem=os.path.join(given["path"], given["ecosystem"]),
            min_instances=given["min_instances"],
        )
        preflight.preflight(target, aim, linked=False)
    return {"changed": False, **client.overview(target, given["name"])}


def main() -> None:
    """Entry point."""
    run(
        {
            "name": {"type": "str", "required": True},
            "fail": {"type": "bool", "default": True},
            "path": {"type": "path"},
            "ecosystem": {"type": "str", "default": "ecosystem.config.cjs"},
            "min_instances": {"type": "int", "default": 2},
            "instance_timeout_s": {"type": "float", "default": 60.0},
            **PM2_SPEC,
        },
        act,
        needs_psycopg2=False,
        required_if=[("fail", True, ("path",))],
    )


if __name__ == "__main__":
    main()
