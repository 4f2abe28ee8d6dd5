#!/usr/bin/python
"""Ansible module: boot a release once beside the service, before anything that serves is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_boot
short_description: Boot a release once beside the service
description:
  - Starts the release as a process of its own on a free port of 127.0.0.1, waits for a good answer with the right
    build, asks for each script and style that its first page loads, and ends it. What serves is not touched.
  - Where no header or key names the build, a build of Next.js is proven by its own C(BUILD_ID) in that page and by a
    file of its own.
  - The process uses the release's own settings, so also the service's database. What an application does by itself
    at its start, it does here once more.
  - With O(name) it first compares what PM2 runs with what the ecosystem file of the release declares. A reload applies
    no other script, number of instances or arguments, so these are refused, as M(pm2_app) would refuse them later.
options:
  name:
    description: The application's name in PM2. Without it, PM2 is not asked.
    type: str
  path:
    description: The application's path, the link or the directory in place. Required with O(name).
    type: path
  ecosystem:
    description: The ecosystem file, relative to O(release_path) or absolute.
    type: str
    default: ecosystem.config.cjs
  release_path:
    description: The directory of the built release.
    type: path
    required: true
  command:
    description: The command and its arguments, started in O(release_path). C({port}) stands for the port.
    type: list
    elements: str
    required: true
  url:
    description: The address whose path and query are asked, at the trial's own port.
    type: str
    required: true
  build:
    description: The build that the answer must name.
    type: str
  build_header:
    description: The response header that names the build.
    type: str
  build_json_key:
    description: The key that names the build in a JSON answer, instead of a header.
    type: str
  timeout_s:
    description: Seconds until the answer must have come.
    type: float
    default: 60
  stable_s:
    description: Seconds for which the process has to live on after the answer, and to answer well whenever it is asked
      again, so that nobody meets one that soon crashes.
    type: float
    default: 0
attributes:
  check_mode:
    support: full
    description: Starts nothing.
  diff_mode:
    support: none
    description: There is no change to show.
extends_documentation_fragment:
  - at_most_one.pm2
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Check that the release boots
  release_boot:
    release_path: /var/www/aedpics.releases/3f616e0
    command: [node_modules/.bin/next, start, --hostname, 127.0.0.1, --port, "{port}"]
    name: aedpics
    path: /var/www/aedpics
    url: http://127.0.0.1:3000/api/health
    build: 3f616e0
    build_header: x-app-commit
"""

RETURN = r"""
seconds:
  description: How long it took until the first good answer; 0 in check mode.
  returned: success
  type: float
  sample: 1.2
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import PM2_SPEC, pm2_of, run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Boot it, unless in check mode."""
    from ansible.module_utils.at_most_one.http.proof import Demand, with_own_build
    from ansible.module_utils.at_most_one.http.served_build import Probe
    from ansible.module_utils.at_most_one.pm2 import preflight
    from ansible.module_utils.at_most_one.release import trial_boot

    given = module.params
    if given["name"] and not module.check_mode:
        aim = preflight.Aim(
            Demand(given["name"], None, None),
            path=given["path"],
            ecosystem=os.path.join(given["release_path"], given["ecosystem"]),
        )
        preflight.require_declared(pm2_of(module), aim, given["release_path"])
    # An unset variable of an inventory is an empty text: the application names no build there.
    header, key = given["build_header"] or None, given["build_json_key"] or None
    build = given["build"] if header or key else None
    named = Probe(given["url"], build=build, build_header=header, build_json_key=key)
    demand = with_own_build(Demand("trial", given["release_path"], named))
    trial = trial_boot.Boot(
        release=Path(given["release_path"]),
        command=trial_boot.command_of(given["command"]),
        probe=demand.probe or named,
        timeout_s=given["timeout_s"],
        stable_s=given["stable_s"],
        environment_path=given["environment_path"],
    )
    return {"changed": False, "seconds": 0.0 if module.check_mode else trial_boot.check(trial)}


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            "release_path": {"type": "path", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "url": {"type": "str", "required": True},
            "build": {"type": "str"},
            "build_header": {"type": "str"},
            "build_json_key": {"type": "str", "no_log": False},
            "name": {"type": "str"},
            "path": {"type": "path"},
            "ecosystem": {"type": "str", "default": "ecosystem.config.cjs"},
            **PM2_SPEC,
            "timeout_s": {"type": "float", "default": 60},
            "stable_s": {"type": "float", "default": 0},
        },
        act,
        needs_psycopg2=False,
        required_by={"name": ("path",)},
    )


if __name__ == "__main__":
    main()
