#!/usr/bin/python
"""Ansible module: inspect a release, link its shared files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import run
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: release_store
short_description: Inspect a release, or link the files that every release shares
description:
  - What a release needs from its neighbours, before, while and after it takes their place.
options:
  state:
    description:
      - V(inspected) reads what O(release) has already. It stops when a file of O(shared_files) is nowhere, when a
        finished build has lost files since, or when fewer than O(min_free_mb) are free for one that is to be made.
      - V(linked) makes each of O(shared_files) in O(release) a link to the file in the directory C(shared) of O(path),
        which its owner alone may read. A file that is not there yet is copied from O(before).
    type: str
    choices: [inspected, linked]
    required: true
  path:
    description: The directory of the releases, one per commit.
    type: path
    required: true
  before:
    description: The release, or its link, that is served until now.
    type: path
    required: true
  release:
    description: The release that was built, or will be.
    type: path
    required: true
  shared_files:
    description: Names of the files that git does not have and every release shares.
    type: list
    elements: str
    default: []
  in_place:
    description: For V(linked), whether O(before) is no link yet; then its own files are the true ones and are copied.
    type: bool
    default: false
  min_free_mb:
    description: Megabytes that V(inspected) requires where the releases lie, unless O(release) is finished or served.
    type: int
    default: 0
  several_hosts:
    description: Whether other hosts serve the same build. V(inspected) then also returns RV(build) and RV(platform).
    type: bool
    default: false
  environment_path:
    description: Directories that V(inspected) searches for node before PATH.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Says what would be linked.
  diff_mode:
    support: full
    description: Names the files and links that are new.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Check what the release has already
  release_store:
    state: inspected
    path: /var/www/aedpics.releases
    before: /var/www/aedpics
    release: /var/www/aedpics.releases/4b825dc642cb6eb9a060e54bf8d69288fbee4904
    shared_files: [.env.production]

- name: Ensure that it has the files that every release shares
  release_store:
    state: linked
    path: /var/www/aedpics.releases
    before: /var/www/aedpics
    release: /var/www/aedpics.releases/4b825dc642cb6eb9a060e54bf8d69288fbee4904
    shared_files: [.env.production]
"""

RETURN = r"""
built:
  description: Whether the release is built to its end.
  returned: when state is inspected
  type: bool
  sample: false
shared:
  description: Whether the release has all shared files.
  returned: when state is inspected
  type: bool
  sample: false
build:
  description: The build that the release has.
  returned: when state is inspected and several_hosts
  type: dict
  contains:
    serves:
      description: What users meet of it, C(build_id) and digests of its C(static) assets and of its server C(actions).
      type: dict
    server_actions:
      description:
        - The C(count) of its server actions and the C(pages) that use them.
        - How many of the served build's are C(gone), and whether C(key_stays), so that a later build knows them.
      type: dict
    marker:
      description: What was written into the release when it was finished; empty before that.
      type: dict
platform:
  description: The major version of node, the architecture and the libc of this host.
  returned: when state is inspected and several_hosts
  type: str
  sample: Node.js 24, x64, glibc
copied:
  description: The shared files that were copied beside the releases.
  returned: when state is linked
  type: list
  elements: str
  sample: [.env.production]
linked:
  description: The shared files to which the release got a link.
  returned: when state is linked
  type: list
  elements: str
  sample: [.env.production]
"""

OPTIONS = {
    "state": {"type": "str", "choices": ["inspected", "linked"], "required": True},
    "path": {"type": "path", "required": True},
    "before": {"type": "path", "required": True},
    "release": {"type": "path", "required": True},
    "shared_files": {"type": "list", "elements": "str", "default": []},
    "in_place": {"type": "bool", "default": False},
    "min_free_mb": {"type": "int", "default": 0},
    "several_hosts": {"type": "bool", "default": False},
    "environment_path": {"type": "str", "default": ""},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    """Hand the state's arguments to its function."""
    if module.params["state"] == "linked":
        return link(module)
    return {"changed": False, **inspect(module.params)}


def inspect(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the release has already; for several hosts also its build, and what this host can run."""
    from ansible.module_utils.at_most_one.release import building, shared_files, shipping

    live, releases, release = (Path(given[name]) for name in ("before", "path", "release"))
    found = shared_files.inspect(live, releases, release, given["shared_files"], given["min_free_mb"])
    compared = {}
    if given["several_hosts"]:
        compared["build"] = building.describe(release, live)
        compared["platform"] = shipping.platform(given["environment_path"])
    return {"built": found.built, "shared": found.shared, **compared}


def link(module: AnsibleModule) -> dict[str, Any]:
    """Let the release have the files that every release shares."""
    from ansible.module_utils.at_most_one.release import shared_files

    given = module.params
    releases, release = Path(given["path"]), Path(given["release"])
    done = shared_files.link(
        Path(given["before"]),
        releases,
        release,
        given["shared_files"],
        in_place=given["in_place"],
        check_mode=module.check_mode,
    )
    shared = releases / "shared"
    lines = [f"{shared / name}\n" for name in done.copied]
    lines += [f"{release / name} -> {shared / name}\n" for name in done.linked]
    return {
        "changed": done.changed,
        "copied": list(done.copied),
        "linked": list(done.linked),
        "diff": {"before": "", "after": "".join(lines)},
    }


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
