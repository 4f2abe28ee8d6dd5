#!/usr/bin/python
"""Ansible module: schema and content of the plan's tables as digests, compared with those of another moment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: table_digests
short_description: Read what the plan's tables are now, and compare it with another moment
description:
  - Reads columns, constraints, indexes, triggers and every row of the planned tables, and of those whose references the
    plan re-points, in one read-only transaction. The rows become one digest for each table.
  - It is for a place where nobody else writes, such as a rehearsal. It changes nothing, in check mode or not.
options:
  leave_out:
    description:
      - Columns and values. Rows of a table that has all of these columns, with these values in them, are not read.
      - For the canary, whose rows the checks of a deployment write.
    type: dict
    default: {}
  before:
    description: A RV(digests) of another moment, to compare with.
    type: dict
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: There is no change to show.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read the tables before
  table_digests:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    leave_out: {equipment_serial: 11-0000001}
  register: before

- name: Compare them with now
  table_digests:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    leave_out: {equipment_serial: 11-0000001}
    before: "{{ before.digests }}"
"""

RETURN = r"""
plan_sha256:
  description: What identifies this wording of the plan.
  returned: success
  type: str
  sample: 6b3a55e0261b0304143f805a24924d0c1c44524821305f31d9277843b8a10f4e
digests:
  description: Definitions and digests; C(schema_sha256) is over all definitions, C(content_sha256) over all rows.
  returned: success
  type: dict
  sample:
    schema: {objects: [], migrations: [], usable_indexes: [], fence: false, sha256: 2c26b46b}
    tables: {aedpics.inspection_sessions: {rows: 68, sha256: fcde2b2e}}
    schema_sha256: 2c26b46b
    content_sha256: baa5a096
differences:
  description: What differs from O(before), a line each; none without it.
  returned: success
  type: list
  elements: str
  sample: ["content of aedpics.inspection_sessions: 68 rows then, 69 now, digest fcde2b2edba5 -> baa5a0964d33"]
"""

from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Read and compare."""
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.rehearsal import digests

    before, plan = module.params["before"], parse(module.params["plan"])
    with connect(login_of(module), **timeouts_of(module)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        leave_out = {name: str(value) for name, value in module.params["leave_out"].items()}
        now = digests.take(connection, plan, leave_out)
    return {
        "changed": False,
        "plan_sha256": plan.sha256,
        "digests": now.kept(),
        "differences": digests.differences(before, now) if before else [],
    }


def main() -> None:
    """Arguments in, core called, result out."""
    run({**LOGIN_SPEC, **PLAN_SPEC, "leave_out": {"type": "dict", "default": {}}, "before": {"type": "dict"}}, act)


if __name__ == "__main__":
    main()
