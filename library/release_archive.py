#!/usr/bin/python
"""Ansible module: read a host's release, and take the one build of it to every host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import run
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: release_archive
short_description: Read which build a release has, pack it, unpack it on another host
description:
  - Builds of Next.js differ from host to host unless one of them is served by all. This module takes it there.
  - What belongs to one host is never packed. That is O(shared), other C(.env) files that git does not have, the marker,
    C(.next/cache) and the assets of earlier builds.
options:
  state:
    description:
      - V(read) tells which build O(release) has and what this host could run.
      - V(packed) writes O(release) into O(archive).
      - V(unpacked) makes O(release) what O(archive) holds, and removes O(archive).
    type: str
    choices: [read, packed, unpacked]
    required: true
  release:
    description: The directory of the release.
    type: path
    required: true
  live:
    description: The application's path. A release that it leads to, or that a process works in, is never replaced.
    type: path
    required: true
  archive:
    description: The archive, readable by its owner only. Required by V(packed) and V(unpacked).
    type: path
  shared:
    description: Files that belong to one host, as paths below the release.
    type: list
    elements: str
    default: []
  min_free_mb:
    description: Megabytes that V(read) demands where the releases lie, when the release is not finished.
    type: int
    default: 0
  environment_path:
    description: Directories that V(read) searches for node before PATH.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Writes nothing.
  diff_mode:
    support: none
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Pack the release
  release_archive:
    state: packed
    release: /var/www/aedpics.releases/4b825dc642cb6eb9a060e54bf8d69288fbee4904
    live: /var/www/aedpics
    archive: /var/www/aedpics.releases/.packed.tar.gz
    shared: [.env.production]

- name: Unpack it on another host
  release_archive:
    state: unpacked
    release: /var/www/aedpics.releases/4b825dc642cb6eb9a060e54bf8d69288fbee4904
    live: /var/www/aedpics
    archive: /var/www/aedpics.releases/.packed.tar.gz
"""

RETURN = r"""
build:
  description: The build that the release has.
  returned: when state is read
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
  returned: when state is read
  type: str
  sample: Node.js 24, x64, glibc
sha256:
  description: The digest of what was packed.
  returned: when state is packed
  type: str
size_mb:
  description: The size of the archive.
  returned: when state is packed
  type: int
  sample: 140
"""

OPTIONS = {
    "state": {"type": "str", "choices": ["read", "packed", "unpacked"], "required": True},
    "release": {"type": "path", "required": True},
    "live": {"type": "path", "required": True},
    "archive": {"type": "path"},
    "shared": {"type": "list", "elements": "str", "default": []},
    "min_free_mb": {"type": "int", "default": 0},
    "environment_path": {"type": "str", "default": ""},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    """Hand the state's arguments to the core."""
    from ansible.module_utils.at_most_one.release import building, retention, shipping

    given = module.params
    release, live = Path(given["release"]), Path(given["live"])
    if given["state"] == "read":
        if not shipping.marker(release) and given["min_free_mb"]:
            retention.require_free_space(release.parent, given["min_free_mb"])
        return {
            "changed": False,
            "build": building.describe(release, live),
            "platform": shipping.platform(given["environment_path"]),
        }
    if module.check_mode:
        return {"changed": True}
    if given["state"] == "packed":
        archive = Path(given["archive"])
        sha256 = shipping.pack(release, archive, given["shared"])
        return {"changed": True, "sha256": sha256, "size_mb": archive.stat().st_size // 1_000_000}
    shipping.unpack(Path(given["archive"]), release, live)
    return {"changed": True}


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        OPTIONS,
        act,
        needs_psycopg2=False,
        required_if=[
            ("state", "packed", ("archive",)),
            ("state", "unpacked", ("archive",)),
        ],
    )


if __name__ == "__main__":
    main()
