#!/usr/bin/python
"""Ansible module: read which commit a host serves, from where, and which one the git origin has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: git_origin_info
short_description: Read which commit is served, what was changed in it, and the origin's newest one
description:
  - Reads what O(path) leads to. Only with O(branch) the origin is asked, with the token of its address kept out of
    every command line, as M(git_origin) does it.
options:
  path:
    description: The checkout that is deployed now, whose remotes are known, or a link to it.
    type: path
    required: true
  origin:
    description: The name of one of its remotes, or an address.
    type: str
    default: origin
  branch:
    description: The branch whose newest commit to ask for.
    type: str
  releases:
    description: The directory of the releases, to return RV(run_number) and RV(releases).
    type: path
extends_documentation_fragment:
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read which commit is served and which one is wanted
  git_origin_info:
    path: /var/www/aedpics
    branch: main
  register: origin
"""

RETURN = r"""
wanted:
  description: The newest commit of O(branch).
  returned: with O(branch)
  type: str
  sample: 3f616e0d1b7f0c4b8f6d6a1d9b0f7c3f1e2d4c5b
commit:
  description: The commit that is served.
  returned: success
  type: str
  sample: 3f616e0d1b7f0c4b8f6d6a1d9b0f7c3f1e2d4c5b
release:
  description: The directory that O(path) leads to, or O(path) itself where it is no link.
  returned: success
  type: str
  sample: /var/www/aedpics.releases/1c5af34
in_place:
  description: Whether O(path) is the checkout itself.
  returned: success
  type: bool
  sample: false
modified:
  description:
    - What was changed by hand in it, a line of C(git status) each. Files that git does not know do not count, nor those
      that the release's own build has changed.
  returned: success
  type: list
  elements: str
  sample: [" M src/app/page.tsx"]
changes:
  description:
    - What shows that something else than this tool has deployed into the release. Its checkout is at another commit
      than its name says, or its C(.next/BUILD_ID) is another one than when it was built.
  returned: success
  type: list
  elements: str
  sample: []
phrases:
  description: RV(changes) by its name, all of them as one phrase.
  returned: success
  type: dict
  sample: {changes: {template: "", values: {}}}
run_number:
  description: The number of the last run that wrote on this host, 0 where none has; see M(release_link).
  returned: with O(releases)
  type: int
  sample: 42
releases:
  description: O(releases) as C(path), and as C(kept) the commits of the releases in it.
  returned: with O(releases)
  type: dict
  sample: {path: /var/www/aedpics.releases, kept: [3f616e0d1b7f0c4b8f6d6a1d9b0f7c3f1e2d4c5b]}
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.findings import joined
    from ansible.module_utils.at_most_one.release import git_origin, retention
    from ansible.module_utils.at_most_one.system import run_token

    given = module.params
    checkout = Path(given["path"])
    found: dict[str, Any] = {}
    if given["releases"]:
        found["run_number"] = run_token.last_number(Path(given["releases"]))
        found["releases"] = {"path": given["releases"], "kept": retention.kept(Path(given["releases"]))}
    if given["branch"]:
        module.no_log_values.update(git_origin.remote(checkout, given["origin"]).secrets)
        found["wanted"] = git_origin.newest(checkout, given["origin"], given["branch"])
    served = git_origin.served(checkout)
    return {"changed": False, **found, **asdict(served), "phrases": {"changes": joined(served.changes).as_data()}}


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            "path": {"type": "path", "required": True},
            # With no_log the word "origin" would be masked in every message; act takes what is secret in it.
            "origin": {"type": "str", "default": "origin"},
            "branch": {"type": "str"},
            "releases": {"type": "path"},
        },
        act,
        needs_psycopg2=False,
    )


if __name__ == "__main__":
    main()
