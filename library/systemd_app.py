#!/usr/bin/python
"""Ansible module: restart an application's systemd units one at a time, each proven."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_app
short_description: Restart the units of an application under systemd one at a time, and prove each
description:
  - C(systemctl restart) returns 0 for a release that ends a second later. This module restarts one unit, requires of it
    a new process that stays up, works in the new release and answers at its own address with the new build, and only
    then goes to the next. A unit that serves is restarted only while every other one serves; what is down goes first.
    The first one that is not proven stops the rest, and the others keep serving the old code.
  - What systemd says is checked against C(/proc).
options:
  name:
    description: Name of the application, for what is said of it.
    type: str
    required: true
  state:
    description:
      - V(restarted) brings every unit to O(release_path). The link must already lead there.
      - V(kept) makes sure that every unit is active and that a reboot brings it back (C(systemctl is-enabled)). Then
        releases that nobody needs any more can go, see O(releases).
    type: str
    choices: [restarted, kept]
    required: true
  path:
    description:
      - The application's path, the link or the directory in place. It has to be the C(WorkingDirectory) of each unit.
        Required by V(restarted).
    type: path
  release_path:
    description:
      - The directory of the release; its real path must be the working directory of every restarted process.
      - Without it O(path), resolved, is taken.
    type: path
  min_units:
    description: Fewer units than this are refused, because nobody would serve during the restart.
    type: int
    default: 2
  probe:
    description: How to ask the application itself, at the address of each unit. Required by V(restarted).
    type: dict
    suboptions:
      path:
        description: The path that is asked for, below the address of a unit.
        type: str
        default: /
      build:
        description:
          - The build that a new process must name, for example the commit. Not used when neither O(probe.build_header)
            nor O(probe.build_json_key) says where answers name it; then it is proven as M(pm2_app) does.
        type: str
      build_header:
        description: The response header that names the build.
        type: str
      build_json_key:
        description: The key that names the build in a JSON answer, for answers without that header.
        type: str
      pid_header:
        description: The response header that names the answering process, which has to be the main process of the unit.
        type: str
      expect:
        description: Status codes of a good answer.
        type: list
        elements: int
        default: [200]
      timeout_s:
        description: Seconds for one answer.
        type: float
        default: 5
  instance_timeout_s:
    description: Seconds in which one unit must be proven. Its restart may take as long before that.
    type: float
    default: 60
  stable_s:
    description:
      - Seconds that a new process must have been up, from its start, and at least one of them after its first answer.
      - A process that dies later than this is not noticed here.
    type: float
    default: 3
  log_lines:
    description: How many lines of a failed unit's journal are returned.
    type: int
    default: 20
extends_documentation_fragment:
  - at_most_one.systemd
  - at_most_one.releases
  - at_most_one.run_on_host
attributes:
  check_mode:
    support: full
    description: Says which units would be restarted. The link's target is not looked at.
  diff_mode:
    support: full
    description: One line for each unit, before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Restart the application, one unit at a time
  systemd_app:
    name: shop
    state: restarted
    units:
      - {name: shop@3001.service, url: "http://127.0.0.1:3001"}
      - {name: shop@3002.service, url: "http://127.0.0.1:3002"}
    systemctl: [sudo, --non-interactive, /usr/bin/systemctl]
    path: /srv/shop
    release_path: /srv/shop.releases/4b825dc642cb6eb9a060e54bf8d69288fbee4904
    probe:
      path: /api/health
      build: 4b825dc642cb6eb9a060e54bf8d69288fbee4904
      build_header: x-app-commit
  register: restarted
"""

RETURN = r"""
instances:
  description:
    - The units that were restarted (in check mode, that would be), with old and new pid. C(pm_id) is the name of the
      unit, where an application under PM2 has a number.
  returned: O(state=restarted)
  type: list
  elements: dict
  sample: [{"pm_id": shop@3001.service, "old_pid": 4711, "new_pid": 4811}]
unchanged:
  description: The units that already ran the release and were left alone.
  returned: O(state=restarted)
  type: list
  elements: str
  sample: []
build_proof:
  description: By what each answer proves its build, as RV(pm2_app#module:build_proof) has it.
  returned: O(state=restarted)
  type: str
  sample: header
outdated:
  description: Units whose file was changed since systemd has read it; they run as it was read.
  returned: O(state=restarted)
  type: list
  elements: str
  sample: []
log_offsets:
  description: Empty. What the units write to the journal is not compared with what the release before wrote.
  returned: O(state=restarted)
  type: dict
  sample: {}
differed:
  description: Whether O(state=kept) has something to do now, because units were restarted.
  returned: O(state=restarted)
  type: bool
  sample: true
removed:
  description: The releases that were removed, or would be.
  returned: O(state=kept)
  type: list
  elements: str
  sample: [/srv/shop.releases/1c5af34b2d]
details:
  description:
    - The machine-readable part of a failure. C(failed) has pm_id (the unit), cause (refused, no_new_process, crashed,
      wrong_directory, no_answer, wrong_build), seen, error_lines, and isolated, which says that the unit was stopped so
      that a proxy goes on to the others at once. C(reloaded) has the units that were restarted before it, C(serving)
      those that answer.
  returned: failure
  type: dict
  sample: {"failed": {"pm_id": shop@3001.service, "cause": "crashed"}, "reloaded": [], "serving": [shop@3002.service]}
"""

import os
from typing import Any

from ansible.module_utils.at_most_one.findings import say
from ansible.module_utils.at_most_one.http.proof import Demand, nothing_tells
from ansible.module_utils.at_most_one.http.served_build import probe_of
from ansible.module_utils.at_most_one.release import retention
from ansible.module_utils.at_most_one.systemd import restart
from ansible.module_utils.at_most_one.systemd.preflight import Aim
from ansible.module_utils.at_most_one_entry import (
    PROBE_SPEC,
    RELEASES_SPEC,
    RUN_SPEC,
    SYSTEMD_SPEC,
    guard_of,
    run,
    systemd_of,
)
from ansible.module_utils.basic import AnsibleModule

OPTIONS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["restarted", "kept"], "required": True},
    "path": {"type": "path"},
    "release_path": {"type": "path"},
    "min_units": {"type": "int", "default": 2},
    "probe": {"type": "dict", "options": {"path": {"type": "str", "default": "/"}, **PROBE_SPEC}},
    "instance_timeout_s": {"type": "float", "default": 60.0},
    "stable_s": {"type": "float", "default": 3.0},
    "log_lines": {"type": "int", "default": 20},
    **SYSTEMD_SPEC,
    **RELEASES_SPEC,
    **RUN_SPEC,
}


def _aim(module: AnsibleModule) -> Aim:
    given = module.params
    probe = dict(given["probe"])
    health_path = probe.pop("path")
    return Aim(
        Demand(
            name=given["name"],
            release_path=os.path.realpath(given["release_path"] or given["path"]),
            probe=probe_of({**probe, "url": ""}),  # each unit has its own
            instance_timeout_s=given["instance_timeout_s"],
            stable_s=given["stable_s"],
        ),
        path=given["path"],
        health_path=health_path,
        min_units=given["min_units"],
        log_lines=given["log_lines"],
    )


def act(module: AnsibleModule) -> dict[str, Any]:
    """Do what ``state`` says."""
    given, systemd, guard = module.params, systemd_of(module), guard_of(module)
    if given["state"] == "kept":
        restart.require_kept(systemd, given["name"])
        with guard([]):
            gone = retention.prune(**given["releases"], check=module.check_mode) if given["releases"] else []
        return {"changed": bool(gone), "removed": gone}
    result = restart.restart(systemd, _aim(module), check=module.check_mode, guard=guard)
    if result["outdated"]:
        module.warn(
            say(
                "systemd runs {units} as it has read the unit file, which was changed since. Next: systemctl "
                "daemon-reload, then systemctl restart, one unit after the other.",
                units=", ".join(result["outdated"]),
            )
        )
    if result["build_proof"] == "nothing" and not module.check_mode:
        module.warn(nothing_tells(given["name"]))
    return {**result, "differed": result["changed"]}


def main() -> None:
    """Entry point."""
    run(OPTIONS, act, needs_psycopg2=False, required_if=[("state", "restarted", ("path", "probe"))])


if __name__ == "__main__":
    main()
