#!/usr/bin/python
"""Ansible module: ask the git origin for a commit, and check it out beside what serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: git_origin
short_description: Read and check out commits of the origin, with its token out of every command line
description:
  - An address such as C(https://name:token@host/app.git), in the inventory or in the checkout's own configuration,
    shows its token in the process list when git is called with it. Here git gets the bare address, and the token from
    its environment.
options:
  state:
    description:
      - V(served) says what O(path) leads to. Only with O(branch) the origin is asked, for its newest commit.
      - V(checked_out) makes O(release_path) a checkout of O(commit).
    type: str
    choices: [served, checked_out]
    required: true
  path:
    description: The checkout that is deployed now, whose remotes are known, or a link to it.
    type: path
    required: true
  origin:
    description: The name of one of its remotes, or an address.
    type: str
    default: origin
  branch:
    description: The branch to ask for.
    type: str
  commit:
    description: The commit to check out, 40 hexadecimal digits.
    type: str
  release_path:
    description: The directory to check it out into; made when it is not there.
    type: path
  releases:
    description: The directory of the releases; with V(served), RV(run_number) and RV(releases) are read there.
    type: path
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
- name: Read which commit is served and which one is wanted
  git_origin:
    state: served
    path: /var/www/aedpics
    branch: main
  register: origin

- name: Check it out beside the release that serves
  git_origin:
    state: checked_out
    path: /var/www/aedpics
    commit: "{{ origin.wanted }}"
    release_path: /var/www/aedpics.releases/{{ origin.wanted }}
"""

RETURN = r"""
wanted:
  description: The newest commit of O(branch).
  returned: state is served, with O(branch)
  type: str
  sample: 3f616e0d1b7f0c4b8f6d6a1d9b0f7c3f1e2d4c5b
commit:
  description: The commit that is served or checked out.
  returned: success
  type: str
  sample: 3f616e0d1b7f0c4b8f6d6a1d9b0f7c3f1e2d4c5b
release:
  description: The directory that O(path) leads to, or O(path) itself where it is no link.
  returned: state is served
  type: str
  sample: /var/www/aedpics.releases/1c5af34
in_place:
  description: Whether O(path) is the checkout itself.
  returned: state is served
  type: bool
  sample: false
modified:
  description:
    - What was changed by hand in it, a line of C(git status) each. Files that git does not know do not count, nor those
      that the release's own build has changed.
  returned: state is served
  type: list
  elements: str
  sample: [" M src/app/page.tsx"]
changes:
  description:
    - What shows that something else than this tool has deployed into the release. Its checkout is at another commit
      than its name says, or its C(.next/BUILD_ID) is another one than when it was built.
  returned: state is served
  type: list
  elements: str
  sample: []
run_number:
  description: The number of the last run that wrote on this host, 0 where none has; see M(release_link).
  returned: state is served, with O(releases)
  type: int
  sample: 42
releases:
  description: O(releases) as C(path), and as C(kept) the commits of the releases in it.
  returned: state is served, with O(releases)
  type: dict
  sample: {path: /var/www/aedpics.releases, kept: [3f616e0d1b7f0c4b8f6d6a1d9b0f7c3f1e2d4c5b]}
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import RUN_SPEC, guard_of, run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Do what ``state`` says."""
    from ansible.module_utils.at_most_one.release import git_origin, retention
    from ansible.module_utils.at_most_one.system import run_token

    wanted = module.params
    checkout = Path(wanted["path"])
    if wanted["state"] == "served":
        newest: dict[str, Any] = {}
        if wanted["releases"]:
            newest["run_number"] = run_token.last_number(Path(wanted["releases"]))
            newest["releases"] = {"path": wanted["releases"], "kept": retention.kept(Path(wanted["releases"]))}
        if wanted["branch"]:
            _mask(module, checkout)
            newest["wanted"] = git_origin.newest(checkout, wanted["origin"], wanted["branch"])
        return {"changed": False, **newest, **asdict(git_origin.served(checkout))}
    _mask(module, checkout)
    release = Path(wanted["release_path"])
    with guard_of(module)([]):  # what is checked out serves nobody yet: fetching it need not keep others from the host
        pass
    if module.check_mode:
        changed = not git_origin.is_at(release, wanted["commit"])
    else:
        changed = git_origin.check_out(checkout, wanted["origin"], release, wanted["commit"])
    return {"changed": changed, "commit": wanted["commit"]}


def _mask(module: AnsibleModule, checkout: Path) -> None:
    """Keep a token in the origin's address out of every answer."""
    from ansible.module_utils.at_most_one.release import git_origin

    module.no_log_values.update(git_origin.remote(checkout, module.params["origin"]).secrets)


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            "state": {"type": "str", "choices": ["served", "checked_out"], "required": True},
            "path": {"type": "path", "required": True},
            # With no_log the word "origin" would be masked in every message; _mask takes what is secret in it.
            "origin": {"type": "str", "default": "origin"},
            "branch": {"type": "str"},
            "commit": {"type": "str"},
            "release_path": {"type": "path"},
            "releases": {"type": "path"},
            **RUN_SPEC,
        },
        act,
        needs_psycopg2=False,
        required_if=[("state", "checked_out", ("commit", "release_path"))],
    )


if __name__ == "__main__":
    main()
