#!/usr/bin/python
"""Ansible module: check a commit of the git origin out beside what serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: git_origin
short_description: Check out a commit of the origin, with its token out of every command line
description:
  - Makes O(release_path) a checkout of O(commit). M(git_origin_info) reads which commit that is.
  - An address such as C(https://name:token@host/app.git), in the inventory or in the checkout's own configuration,
    shows its token in the process list when git is called with it. Here git gets the bare address, and the token from
    its environment.
options:
  path:
    description: The checkout that is deployed now, whose remotes are known, or a link to it.
    type: path
    required: true
  origin:
    description: The name of one of its remotes, or an address.
    type: str
    default: origin
  commit:
    description: The commit to check out, 40 hexadecimal digits.
    type: str
    required: true
  release_path:
    description: The directory to check it out into; made when it is not there.
    type: path
    required: true
extends_documentation_fragment:
  - at_most_one.run_on_host
attributes:
  check_mode:
    support: full
    description: Asks, and says whether it would check something out.
  diff_mode:
    support: none
    description: A whole release is no readable difference.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Check the wanted commit out beside the release that serves
  git_origin:
    path: /var/www/aedpics
    commit: "{{ origin.wanted }}"
    release_path: /var/www/aedpics.releases/{{ origin.wanted }}
"""

RETURN = r"""
commit:
  description: The commit that is checked out, or would be.
  returned: success
  type: str
  sample: 3f616e0d1b7f0c4b8f6d6a1d9b0f7c3f1e2d4c5b
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import RUN_SPEC, guard_of, run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Check the commit out, unless the release is at it."""
    from ansible.module_utils.at_most_one.release import git_origin

    wanted = module.params
    checkout, release = Path(wanted["path"]), Path(wanted["release_path"])
    # A token in the origin's address stays out of every answer.
    module.no_log_values.update(git_origin.remote(checkout, wanted["origin"]).secrets)
    with guard_of(module)([]):  # what is checked out serves nobody yet: fetching it need not keep others from the host
        pass
    if module.check_mode:
        changed = not git_origin.is_at(release, wanted["commit"])
    else:
        changed = git_origin.check_out(checkout, wanted["origin"], release, wanted["commit"])
    return {"changed": changed, "commit": wanted["commit"]}


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            "path": {"type": "path", "required": True},
            # With no_log the word "origin" would be masked in every message; act takes what is secret in it.
            "origin": {"type": "str", "default": "origin"},
            "commit": {"type": "str", "required": True},
            "release_path": {"type": "path", "required": True},
            **RUN_SPEC,
        },
        act,
        needs_psycopg2=False,
    )


if __name__ == "__main__":
    main()
