#!/usr/bin/python
"""Ansible module: start an application under PM2, reload it instance by instance with proof, save it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_app
short_description: Reload an application under PM2 one instance at a time, and prove each
description:
  - C(pm2 reload) returns 0 and prints a tick whatever happens. This module reloads one instance, requires of it a new
    process that stays up, works in the new release and answers with the new build, and only then goes to the next.
    Where answers name their process (O(probe.pid_header)), the old one is held until the new one has answered, so that
    no connection is lost with it (docs/cutover.md).
    The first one that does not stops the rest, and the others keep serving the old code.
  - What PM2 says is checked against C(/proc). PM2 is never asked when no daemon runs, because asking would start one.
options:
  name:
    description: Name of the application in PM2.
    type: str
    required: true
  state:
    description:
      - V(started) starts the application unless an instance of it runs.
      - V(reloaded) brings every instance to O(release_path). The link must already lead there.
      - V(saved) makes what runs now come back after a reboot. It covers every application of this PM2_HOME; save only
        after the gates have passed. Then releases that nobody needs any more can go, see O(releases).
    type: str
    choices: [started, reloaded, saved]
    required: true
  save:
    description: With V(reloaded), whether what runs in the end is made to come back after a reboot, as by V(saved).
    type: bool
    default: false
  path:
    description: The application's path, the link or the directory in place. Required by V(started) and V(reloaded).
    type: path
  release_path:
    description:
      - The directory of the release; its real path must be the working directory of every reloaded process.
      - Without it O(path), resolved, is taken.
    type: path
  ecosystem:
    description: The ecosystem file, relative to O(path) or absolute.
    type: str
    default: ecosystem.config.cjs
  min_instances:
    description: Fewer instances than this are refused, because nobody would serve during the reload.
    type: int
    default: 2
  restore:
    description: The link has gone back. Reload O(only) the named instances and prove them on O(release_path).
    type: bool
    default: false
  only:
    description: The pm_ids to reload; required with, and only used by, O(restore=true).
    type: list
    elements: int
  probe:
    description: How to ask the application itself. Required by V(reloaded).
    type: dict
    suboptions:
      url:
        description: An address that every instance answers; best on the host itself, without a cache in between.
        type: str
        required: true
      build:
        description:
          - The build that a new instance must name, for example the commit.
          - Not used when neither O(probe.build_header) nor O(probe.build_json_key) says where answers name it. Then a
            build of Next.js is proven by its own C(BUILD_ID) in the page at C(/), and by a file below C(/_next/static)
            that no other running release has. Two builds with the same id and files cannot be told apart, and a
            warning says so.
        type: str
      build_header:
        description: The response header that names the build.
        type: str
      build_json_key:
        description: The key that names the build in a JSON answer, for answers without that header.
        type: str
      pid_header:
        description:
          - The response header that names the answering process. Without it an answer cannot be told apart from a
            sibling's, and only the last check over all instances is sure of the build.
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
    description: Seconds in which one instance must be proven.
    type: float
    default: 60
  stable_s:
    description:
      - Seconds that a new process must have been up, from its start, and at least one of them after its first answer.
      - A process that dies later than this is not noticed here.
    type: float
    default: 3
extends_documentation_fragment:
  - at_most_one.pm2
  - at_most_one.releases
  - at_most_one.run_on_host
attributes:
  check_mode:
    support: full
    description: Says which instances would be reloaded. The link's target and the ecosystem file are not looked at.
  diff_mode:
    support: full
    description: One line for each instance, before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Reload the application, one instance at a time
  pm2_app:
    name: aedpics
    state: reloaded
    path: /var/www/aedpics
    release_path: /var/www/aedpics.releases/4b825dc642cb6eb9a060e54bf8d69288fbee4904
    probe:
      url: http://127.0.0.1:3000/api/health
      build: 4b825dc642cb6eb9a060e54bf8d69288fbee4904
      build_header: x-app-commit
      pid_header: x-app-pid
  register: reloaded

- name: Bring back the instances that were switched, after the link went back
  pm2_app:
    name: aedpics
    state: reloaded
    restore: true
    only: [0]
    path: /var/www/aedpics
    probe:
      url: http://127.0.0.1:3000/api/health
"""

RETURN = r"""
differed:
  description:
    - Whether PM2's dump said something else than what runs; for those who only ask, in check mode.
    - With O(state=reloaded), whether there is something to save now, or with O(save) was.
  returned: O(state=saved) or O(state=reloaded)
  type: bool
  sample: false
removed:
  description: The releases that were removed, or would be.
  returned: O(state=saved)
  type: list
  elements: str
  sample: [/var/www/aedpics.releases/1c5af34b2d]
instances:
  description:
    - With V(started) every instance, as PM2 and C(/proc) show it.
    - With V(reloaded) those that were reloaded (in check mode, that would be), with old and new pid.
  returned: success
  type: list
  elements: dict
  sample: [{"pm_id": 0, "old_pid": 4711, "new_pid": 4811}]
build_proof:
  description:
    - By what each answer proves its build, V(header), V(key), V(page), V(file), V(page and file), or V(nothing) when no
      header names it and it has the id and the files of the build before.
  returned: when state is reloaded
  type: str
  sample: page and file
unchanged:
  description: The pm_ids that already ran the release and were left alone.
  returned: when state is reloaded
  type: list
  elements: int
  sample: []
environment:
  description: The names of declared variables that PM2 held with other values; the reload has brought them up to date.
  returned: when state is reloaded
  type: list
  elements: str
  sample: [CRON_TOKEN]
environment_removed:
  description:
    - The names of variables that PM2 held with the value that the ecosystem file of another kept release gives them,
      and that the one of this release does not declare; the reload has removed them.
  returned: when state is reloaded
  type: list
  elements: str
  sample: [NEW_FEATURE]
log_offsets:
  description:
    - For every log of the application, where the lines of the release that now serves begin, for the check V(log) of
      M(service_check). C(served) has for each instance its process, the one before it, and the log's length when that
      one had ended. C(before) are moments between which only the release before wrote.
  returned: when state is reloaded
  type: dict
  sample:
    /home/deploy/.pm2/logs/aedpics-error-0.log:
      path: /home/deploy/.pm2/logs/aedpics-error-0.log
      served: [{"pm_id": 0, "pid": 4811, "old_pid": 4711, "size": 1101, "at": 1762752604.2, "up": 86404.1}]
      before: [{"size": 1024, "at": 1762752600.1, "up": 86400.0}, {"size": 1060, "at": 1762752601.3, "up": 86401.2}]
      started_at: 1762666200.0
logs:
  description: The length of every log of the application in bytes, and when that was.
  returned: when state is started
  type: dict
  sample: {"/home/deploy/.pm2/logs/aedpics-error-0.log": {"size": 512, "at": 1762752480.0, "up": 86279.9}}
ready_wait_s:
  description: Seconds that PM2 waits at most for an instance to send C(ready) (C(wait_ready)), 0 for none.
  returned: when state is started
  type: float
  sample: 0.0
version:
  description: The version of the daemon in memory, null when there is none.
  returned: when state is started
  type: str
  sample: 7.0.4
executable_version:
  description: The version of PM2 on disk.
  returned: when state is started
  type: str
  sample: 7.0.4
daemon:
  description: The daemon, null when there is none.
  returned: when state is started
  type: dict
  sample: {"pid": 4700, "user": "deploy", "version": "7.0.4"}
details:
  description:
    - The machine-readable part of a failure. C(failed) has pm_id, cause (pm2_refused, no_new_process, crashed,
      wrong_directory, no_answer, wrong_build), seen, error_lines, and isolated, which says that the instance was
      stopped so that the others serve every request. C(reloaded) has the pm_ids that were switched before it,
      C(serving) those that are online.
  returned: failure
  type: dict
  sample: {"failed": {"pm_id": 0, "cause": "crashed"}, "reloaded": [], "serving": [1]}
"""

import os
from typing import Any

from ansible.module_utils.at_most_one.http.proof import Demand, nothing_tells
from ansible.module_utils.at_most_one.http.served_build import probe_of
from ansible.module_utils.at_most_one.pm2 import client, lifecycle, preflight, reload
from ansible.module_utils.at_most_one.release import retention
from ansible.module_utils.at_most_one_entry import PM2_SPEC, PROBE_SPEC, RELEASES_SPEC, RUN_SPEC, guard_of, pm2_of, run
from ansible.module_utils.basic import AnsibleModule

OPTIONS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "reloaded", "saved"], "required": True},
    "save": {"type": "bool", "default": False},
    "path": {"type": "path"},
    "release_path": {"type": "path"},
    "ecosystem": {"type": "str", "default": "ecosystem.config.cjs"},
    "min_instances": {"type": "int", "default": 2},
    "restore": {"type": "bool", "default": False},
    "only": {"type": "list", "elements": "int"},
    "probe": {"type": "dict", "options": {"url": {"type": "str", "required": True}, **PROBE_SPEC}},
    "instance_timeout_s": {"type": "float", "default": 60.0},
    "stable_s": {"type": "float", "default": 3.0},
    **PM2_SPEC,
    **RELEASES_SPEC,
    **RUN_SPEC,
}


def _aim(module: AnsibleModule) -> preflight.Aim:
    given, probe = module.params, module.params["probe"]
    demand = Demand(
        name=given["name"],
        release_path=os.path.realpath(given["release_path"] or given["path"]) if given["path"] else None,
        probe=probe_of(probe) if probe else None,
        instance_timeout_s=given["instance_timeout_s"],
        stable_s=given["stable_s"],
    )
    return preflight.Aim(
        demand,
        path=given["path"] or "",
        ecosystem=os.path.join(given["path"] or "", given["ecosystem"]),
        min_instances=given["min_instances"],
    )


def act(module: AnsibleModule) -> dict[str, Any]:
    """Do what ``state`` says."""
    given, target = module.params, pm2_of(module)
    guard = guard_of(module)
    if given["state"] == "saved":
        with guard([]):
            differed = lifecycle.save(target, given["name"], check=module.check_mode)
            gone = retention.prune(**given["releases"], check=module.check_mode) if given["releases"] else []
        return {"changed": differed or bool(gone), "differed": differed, "removed": gone}
    if given["state"] == "started":
        with guard([]):
            changed = lifecycle.start(target, _aim(module), check=module.check_mode)
        line = f"{given['name']} runs\n"
        return {
            "changed": changed,
            "diff": {"before": "" if changed else line, "after": line},
            **client.overview(target, given["name"]),
        }
    only = given["only"] if given["restore"] else None
    result = reload.reload(target, _aim(module), only=only, check=module.check_mode, guard=guard)
    if result["build_proof"] == "nothing" and not module.check_mode:
        module.warn(nothing_tells(given["name"]))
    if given["save"]:
        with guard([reload.words(one) for one in result["instances"]]):
            differed = lifecycle.save(target, given["name"], check=module.check_mode)
        return {**result, "changed": result["changed"] or differed, "differed": differed}
    differed = bool(result["changed"]) or lifecycle.save(target, given["name"], check=True)
    return {**result, "differed": differed}


def main() -> None:
    run(
        OPTIONS,
        act,
        needs_psycopg2=False,
        required_if=[
            ("state", "started", ("path",)),
            ("state", "reloaded", ("path", "probe")),
            ("restore", True, ("only",)),
        ],
        required_by={"only": "restore"},
    )


if __name__ == "__main__":
    main()
