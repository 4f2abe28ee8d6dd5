#!/usr/bin/python
"""Ansible module: point the application's path at a release, adopting an in-place checkout the first time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import run
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: release_link
short_description: Point the application's path at a release, atomically
description:
  - Makes O(path) a symbolic link to O(release) by one rename, so that no request meets a path that leads nowhere.
  - When O(path) is still a directory (a checkout deployed in place), the directory is first moved to O(adopt_as) and
    replaced by a link to it, in one exchange. Processes that run in it keep running in it.
options:
  path:
    description: The application's path, as PM2 knows it.
    type: path
    required: true
  release:
    description: The directory that the path shall lead to.
    type: path
    required: true
  adopt_as:
    description:
      - Where a directory found at O(path) is moved to.
      - Without it, a directory found there stops the task.
    type: path
attributes:
  check_mode:
    support: full
    description: Says what would be linked and adopted.
  diff_mode:
    support: full
    description: Shows where the path leads before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Ensure that the application's path leads to the new release
  release_link:
    path: /var/www/aedpics
    release: /var/www/aedpics.releases/3f616e0
    adopt_as: /var/www/aedpics.releases/1c5af34
"""

RETURN = r"""
previous:
  description: The release before; after an adoption, the adopted directory's new place. Empty when there was none.
  returned: success
  type: str
  sample: /var/www/aedpics.releases/1c5af34
release:
  description: The release that the path leads to now, or would in check mode.
  returned: success
  type: str
  sample: /var/www/aedpics.releases/3f616e0
"""


def act(module: AnsibleModule) -> dict[str, Any]:
    """Switch the link and say where it led before."""
    from ansible.module_utils.at_most_one import releases

    path, release = Path(module.params["path"]), Path(module.params["release"])
    before = releases.current(path)
    adopt_as = Path(module.params["adopt_as"] or path)
    previous, changed = releases.switch(path, release, adopt_as, check_mode=module.check_mode)
    return {
        "changed": changed,
        "previous": str(previous or ""),
        "release": str(release),
        "diff": {
            "before": f"{path} -> {before}\n",
            "after": f"{path} -> {release}\n" if changed else f"{path} -> {before}\n",
        },
    }


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            "path": {"type": "path", "required": True},
            "release": {"type": "path", "required": True},
            "adopt_as": {"type": "path"},
        },
        act,
        needs_psycopg2=False,
    )


if __name__ == "__main__":
    main()
