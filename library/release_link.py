#!/usr/bin/python
"""Ansible module: point the application's path at a release, adopting an in-place checkout the first time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_link
short_description: Point the application's path at a release, atomically
description:
  - Makes O(path) a symbolic link to O(release) by one rename, so that no request meets a path that leads nowhere.
  - When O(path) is still a directory (a checkout deployed in place), the directory is first moved to O(adopt_as) and
    replaced by a link to it, in one exchange. Processes that run in it keep running in it.
  - With O(keep_assets_hours), pages that were loaded before the switch find their assets in O(release), in whichever
    direction the link goes. They are copied before the switch, since C(next start) knows only the files that are there
    when it starts.
options:
  state:
    description:
      - V(linked) makes O(path) lead to O(release).
      - V(claimed) moves nothing. It writes down that O(run) is the run which works on this host, so that no earlier run
        writes here from then on, and waits for one that is in the middle of a write.
    type: str
    choices: [linked, claimed]
    default: linked
  path:
    description: The application's path, as PM2 knows it.
    type: path
    required: true
  release:
    description: The directory that the path shall lead to. Required with O(state=linked).
    type: path
  adopt_as:
    description:
      - Where a directory found at O(path) is moved to.
      - Without it, a directory found there stops the task.
    type: path
  assets:
    description: Where a release has its assets.
    type: str
    default: .next/static
  keep_assets_hours:
    description:
      - Hours for which the assets of a build stay after it was replaced. Those of the release that O(path) leads to are
        copied into O(release) where it lacks them; no file of O(release) is replaced.
      - Without it no assets are copied.
    type: float
  shared:
    description:
      - The directory of the files that all releases share. When the link is switched, a file of the release before or
        of O(release) that stands there too, with the same content, becomes a link to it. With another content it is
        left and named in a warning.
      - Without it no files are linked.
    type: path
extends_documentation_fragment:
  - at_most_one.run_on_host
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
    keep_assets_hours: 168
    shared: /var/www/aedpics.releases/shared
    run: {id: 20261127T105314Z-1f2e3d, number: 42, path: /var/www/aedpics.releases}

- name: Ensure that the run which was taken over writes on this host no more
  release_link:
    state: claimed
    path: /var/www/aedpics
    run: {id: 20261127T105314Z-1f2e3d, number: 42, path: /var/www/aedpics.releases}
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
carried:
  description: How many assets of other builds the release before has given to O(release).
  returned: success
  type: int
  sample: 34
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import RUN_SPEC, guard_of, run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Copy assets, switch the link, share files, and return where the link led before."""
    from ansible.module_utils.at_most_one.release import assets, link

    given = module.params
    path = Path(given["path"])
    if given["state"] == "claimed":
        with guard_of(module)([]):
            there = str(link.current(path) or "")
        return {"changed": False, "previous": there, "release": there, "carried": 0}
    release = Path(given["release"])
    with guard_of(module)([]):
        before = link.current(path)
        adopt_as = Path(given["adopt_as"] or path)
        carried = 0
        leaves = before if release.is_dir() and before != release.resolve() else None
        if given["keep_assets_hours"] is not None and leaves is not None:
            keep_s, check = given["keep_assets_hours"] * 3600, module.check_mode
            carried = assets.carry(leaves, release, given["assets"], keep_s, time.time(), check_mode=check).kept
        previous, changed = link.switch(path, release, adopt_as, check_mode=module.check_mode)
        if changed and given["shared"] and not module.check_mode:
            _share(module, [place for place in (previous, release) if place], Path(given["shared"]))
    return {
        "changed": changed,
        "previous": str(previous or ""),
        "release": str(release),
        "carried": carried,
        "diff": {
            "before": f"{path} -> {before}\n",
            "after": f"{path} -> {release}\n" if changed else f"{path} -> {before}\n",
        },
    }


def _share(module: AnsibleModule, releases: list[Path], shared: Path) -> None:
    from ansible.module_utils.at_most_one.findings import say
    from ansible.module_utils.at_most_one.release import link

    for place in releases:
        for file in link.share(place, shared):
            module.warn(
                say(
                    "{file} differs from the file of that name in {shared} and was left as it is. Compare the two; a "
                    "later change of the shared file does not reach this release.",
                    file=file,
                    shared=shared,
                )
            )


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            "state": {"type": "str", "choices": ["linked", "claimed"], "default": "linked"},
            "path": {"type": "path", "required": True},
            "release": {"type": "path"},
            "adopt_as": {"type": "path"},
            "assets": {"type": "str", "default": ".next/static"},
            "keep_assets_hours": {"type": "float"},
            "shared": {"type": "path"},
            **RUN_SPEC,
        },
        act,
        needs_psycopg2=False,
        required_if=[("state", "linked", ["release"]), ("state", "claimed", ["run"])],
    )


if __name__ == "__main__":
    main()
