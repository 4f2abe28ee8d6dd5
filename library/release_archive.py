#!/usr/bin/python
"""Ansible module: take the one build of a release to every host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_archive
short_description: Pack a built release, unpack it on another host
description:
  - Builds of Next.js differ from host to host unless one of them is served by all. This module takes it there.
  - What belongs to one host is never packed. That is O(shared), other C(.env) files that git does not have, the marker,
    C(.next/cache) and the assets of earlier builds.
options:
  state:
    description:
      - V(packed) writes O(release) into O(archive).
      - V(unpacked) makes O(release) what O(archive) holds, and removes O(archive).
    type: str
    choices: [packed, unpacked]
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
    description: The archive, readable by its owner only.
    type: path
    required: true
  shared:
    description: Files that belong to one host, as paths below the release.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - at_most_one.run_on_host
attributes:
  check_mode:
    support: full
    description: Writes nothing.
  diff_mode:
    support: none
    description: Which files an archive holds is decided by the release that was built.
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

from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import RUN_SPEC, guard_of, run
from ansible.module_utils.basic import AnsibleModule

OPTIONS = {
    "state": {"type": "str", "choices": ["packed", "unpacked"], "required": True},
    "release": {"type": "path", "required": True},
    "live": {"type": "path", "required": True},
    "archive": {"type": "path", "required": True},
    "shared": {"type": "list", "elements": "str", "default": []},
    **RUN_SPEC,
}


def act(module: AnsibleModule) -> dict[str, Any]:
    """Hand the state's arguments to the core."""
    from ansible.module_utils.at_most_one.release import shipping

    given = module.params
    release, live = Path(given["release"]), Path(given["live"])
    with guard_of(module)([]):
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
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
