#!/usr/bin/python
"""Ansible module: make a checkout a finished release."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_build
short_description: Link the shared files of a release, build it, require that it is whole, and mark it as finished
description:
  - First makes each of O(shared) in O(release) a link to the file in the directory C(shared) of O(releases), which its
    owner alone may read. A file that is not there yet is copied from O(live). With O(build) false that is all.
  - Then runs O(commands) one after the other in O(release). Stops at the first that fails, with its last lines.
  - Then every file of O(needed) and every file that the build's own manifest names must be there.
  - Then the assets of O(live) that O(release) lacks are copied into it, so that pages loaded before find them.
  - The marker is written last. A release that has one of the same commit is finished, and nothing is done to it.
  - The commands get the environment of the task.
options:
  release:
    description: The directory of the release.
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
  in_place:
    description: Whether O(live) is no link yet; then its own files are the true ones and are copied.
    type: bool
    default: false
  build:
    description: Whether the release is to be built. One that is built, or serves, only gets its links.
    type: bool
    default: true
  commands:
    description: What turns a checkout into a release, each a command and its arguments. None for one that was shipped.
    type: list
    elements: list
    default: []
  environment_path:
    description: Directories to search before PATH, separated by colons, so that node is found.
    type: str
    default: ""
  needed:
    description: Files and directories that a release needs, as paths below it.
    type: list
    elements: str
    required: true
  keep_assets_hours:
    description: Hours for which the assets of a build stay after it was replaced.
    type: float
    required: true
  marker:
    description:
      - What is written into the finished release; its C(commit) tells whether this was done before.
      - C(build_id_sha256) is added unless it is there.
    type: dict
    required: true
  shared:
    description:
      - Files that git does not have and every release of the host shares, as paths below the release. They are not part
        of a digest.
    type: list
    elements: str
    default: []
  with_digest:
    description: Whether the digest of the release is added to what is written.
    type: bool
    default: false
  sha256:
    description: The digest with which the release was packed on the host that built it. Another one is refused.
    type: str
extends_documentation_fragment:
  - at_most_one.run_on_host
attributes:
  check_mode:
    support: full
    description: Says what would be linked, and whether the release would be built.
  diff_mode:
    support: partial
    description: Names the files and links that are new. A whole build is no readable difference.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Build the release
  release_build:
    release: /var/www/aedpics.releases/4b825dc642cb6eb9a060e54bf8d69288fbee4904
    live: /var/www/aedpics
    releases: /var/www/aedpics.releases
    shared: [.env.production]
    commands: [[npm, ci], [npx, --no-install, prisma, generate], [npm, run, build]]
    needed: [.next/BUILD_ID, .next/server, .next/static, node_modules/.bin/prisma]
    keep_assets_hours: 168
    marker: {commit: 4b825dc642cb6eb9a060e54bf8d69288fbee4904, run_id: 20261127T105314Z-1f2e3d}
  environment: {NEXT_TELEMETRY_DISABLED: "1"}
"""

RETURN = r"""
copied:
  description: The shared files that were copied beside the releases.
  returned: success
  type: list
  elements: str
  sample: [.env.production]
linked:
  description: The shared files to which the release got a link.
  returned: success
  type: list
  elements: str
  sample: [.env.production]
commands:
  description: The commands that ran, each with its seconds.
  returned: success
  type: list
  elements: dict
  sample: [{command: npm run build, seconds: 58.3}]
carried:
  description: How many assets of earlier builds were copied into the release.
  returned: success
  type: int
  sample: 34
left:
  description: How many were left behind, because their build was replaced too long ago.
  returned: success
  type: int
  sample: 0
finished:
  description: Whether the release is finished now, O(build), or has got its links only.
  returned: success
  type: bool
  sample: true
build:
  description: The build that the release has, as M(release_info) returns it.
  returned: success
  type: dict
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import RUN_SPEC, guard_of, run
from ansible.module_utils.basic import AnsibleModule

OPTIONS = {
    "release": {"type": "path", "required": True},
    "live": {"type": "path", "required": True},
    "releases": {"type": "path", "required": True},
    "in_place": {"type": "bool", "default": False},
    "build": {"type": "bool", "default": True},
    "commands": {"type": "list", "elements": "list", "default": []},
    "environment_path": {"type": "str", "default": ""},
    "needed": {"type": "list", "elements": "str", "required": True},
    "keep_assets_hours": {"type": "float", "required": True},
    "marker": {"type": "dict", "required": True},
    "shared": {"type": "list", "elements": "str", "default": []},
    "with_digest": {"type": "bool", "default": False},
    "sha256": {"type": "str"},
    **RUN_SPEC,
}


def act(module: AnsibleModule) -> dict[str, Any]:
    """Link the shared files, then build the release, unless it is finished, not asked for, or in check mode."""
    from ansible.module_utils.at_most_one.release import building, shared_files

    given = module.params
    guard = guard_of(module)
    with guard([]):
        links = shared_files.link(
            Path(given["live"]),
            Path(given["releases"]),
            Path(given["release"]),
            given["shared"],
            in_place=given["in_place"],
            check_mode=module.check_mode,
        )
    order = building.Order(
        release=Path(given["release"]),
        live=Path(given["live"]),
        marker=given["marker"],
        needed=given["needed"],
        keep_assets_s=given["keep_assets_hours"] * 3600,
        commands=[[str(word) for word in command] for command in given["commands"]],
        environment_path=given["environment_path"],
        shared=given["shared"],
        with_digest=given["with_digest"],
        sha256=given["sha256"],
    )
    builds = given["build"] and not building.is_finished(order)
    made = building.make(order, guard) if given["build"] and not module.check_mode else building.Made()
    return {
        "changed": links.changed or builds,
        "copied": list(links.copied),
        "linked": list(links.linked),
        "diff": {"before": "", "after": links.described},
        **asdict(made),
        "build": building.describe(order.release, order.live),
        "finished": given["build"],
    }


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
