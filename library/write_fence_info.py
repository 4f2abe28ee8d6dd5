#!/usr/bin/python
"""Ansible module: read whether the write fence of a plan is up."""

from __future__ import annotations

DOCUMENTATION = r"""
module: write_fence_info
short_description: Read whether a plan's write fence is up
description:
  - Reads the catalog for the indexes that M(write_fence) builds, and for the triggers of an older release.
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read whether the fence is up
  write_fence_info:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
  register: fence
"""

RETURN = r"""
state:
  description: V(raised), V(lowered), or V(partial) as RV(write_fence#module:state) has it.
  returned: success
  type: str
  sample: raised
indexes:
  description: Names of the fence's indexes, whatever their state.
  returned: success
  type: list
  elements: str
  sample: [at_most_one_fence_0123456789ab]
statements:
  description: The SQL that would drop it.
  returned: success
  type: list
  elements: str
  sample: [DROP INDEX CONCURRENTLY "aedpics"."at_most_one_fence_0123456789ab"]
"""

from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.fence import write_fence
    from ansible.module_utils.at_most_one.postgres.connection import connect

    plan = parse(module.params["plan"])
    with connect(login_of(module), **timeouts_of(module)) as connection:
        found, indexes = write_fence.query(connection, plan)
    return {"changed": False, "state": found.state, "indexes": indexes, "statements": list(found.statements)}


def main() -> None:
    """Entry point."""
    run({**LOGIN_SPEC, **PLAN_SPEC}, act)


if __name__ == "__main__":
    main()
