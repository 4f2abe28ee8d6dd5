#!/usr/bin/python
"""Ansible module: read what a release has already."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_info
short_description: Read what a release has already
description:
  - Stops when a file of O(shared) is nowhere, when a finished build has lost files since, or when fewer than
    O(min_free_mb) are free for one that is to be made.
options:
  release:
    description: The directory of the release that was built, or will be.
    type: path
    required: true
  live:
    description: The application's path. The release that it leads to is served until now.
    type: path
    required: true
  releases:
    description: The directory of the releases, one per commit.
    type: path
    required: true
  shared:
    description: Files that git does not have and every release of the host shares, as paths below the release.
    type: list
    elements: str
    default: []
  min_free_mb:
    description: Megabytes to require where the releases lie, unless O(release) is finished or served.
    type: int
    default: 0
  several_hosts:
    description: Whether other hosts serve the same build. Then RV(build) and RV(platform) are returned too.
    type: bool
    default: false
  environment_path:
    description: Directories to search for node before PATH.
    type: str
    default: ""
extends_documentation_fragment:
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Check what the release has already
  release_info:
    release: /var/www/aedpics.releases/4b825dc642cb6eb9a060e54bf8d69288fbee4904
    live: /var/www/aedpics
    releases: /var/www/aedpics.releases
    shared: [.env.production]
"""

RETURN = r"""
built:
  description: Whether the release is built to its end.
  returned: success
  type: bool
  sample: false
live:
  description: Whether O(live) leads to the release, or is it.
  returned: success
  type: bool
  sample: false
shared:
  description: Whether the release has all shared files.
  returned: success
  type: bool
  sample: false
build:
  description: The build that the release has.
  returned: when several_hosts
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
  returned: when several_hosts
  type: str
  sample: Node.js 24, x64, glibc
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import run
from ansible.module_utils.basic import AnsibleModule

OPTIONS = {
    "release": {"type": "path", "required": True},
    "live": {"type": "path", "required": True},
    "releases": {"type": "path", "required": True},
    "shared": {"type": "list", "elements": "str", "default": []},
    "min_free_mb": {"type": "int", "default": 0},
    "several_hosts": {"type": "bool", "default": False},
    "environment_path": {"type": "str", "default": ""},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    """What the release has already; for several hosts also its build, and what this host can run."""
    from ansible.module_utils.at_most_one.findings import Finding, observed, say, warning
    from ansible.module_utils.at_most_one.release import building, retention, shared_files, shipping

    given = module.params
    live, releases, release = (Path(given[name]) for name in ("live", "releases", "release"))
    found = shared_files.inspect(live, releases, release, given["shared"], given["min_free_mb"])
    compared: dict[str, Any] = {}
    if given["several_hosts"]:
        compared["build"] = building.describe(release, live)
        compared["platform"] = shipping.platform(given["environment_path"])
    for path in retention.left(releases):
        about = Finding(
            "left",
            observed("AMO-1037", "{path} was to be removed, and is still there.", path=path),
            say("only the releases that are needed: it takes room on that disk."),
            say("rm -rf {path} as an account that may. Nothing serves from it.", path=path),
        )
        module.warn(warning(about))
    serves = live.resolve() == release.resolve()
    return {"changed": False, "built": found.built, "live": serves, "shared": found.shared, **compared}


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
