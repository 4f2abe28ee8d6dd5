#!/usr/bin/python
"""Ansible module: which rules a database may want, by its catalog and by counting; and the plan of a chosen one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rule_candidates_info
short_description: Rank the "at most one" rules that a database may want
description:
  - Combines status columns (enums, flags, texts with few values whose name or check constraint says so) with references
    and natural keys, by the catalog and its statistics, counts the duplicates of the likeliest, and ranks them.
  - It only reads, in read-only transactions with C(ACCESS SHARE) locks. A forecast of the index build is measured on
    temporary tables, which are rolled back; where the role may make none, or on a standby, there is no forecast.
  - Values are read and returned of status columns alone; a condition needs them.
options:
  table:
    description: One table, with or without its schema. Without it every table that the role may read.
    type: str
    default: ""
  key:
    description: The exact columns of the key. Without it references and natural keys are tried.
    type: list
    elements: str
    default: []
  limit:
    description: How many candidates are returned at most.
    type: int
    default: 5
  deadline_s:
    description:
      - Seconds for all counting. What is not counted by then is ranked by the statistics, and C(how) says so.
      - A count that takes longer than O(statement_timeout_ms) becomes that of a sample.
    type: float
    default: 90
  choice:
    description:
      - The number of the candidate whose files are returned; V(0) for none. It is counted exactly if it was not yet.
    type: int
    default: 0
  plan_id:
    description: The id of the plan for O(choice). Small letters, digits and hyphens.
    type: str
    default: ""
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Rank the rules that the database may want
  rule_candidates_info:
    login: "{{ database_login }}"
  register: found

- name: Read the plan of the first one
  rule_candidates_info:
    login: "{{ database_login }}"
    choice: 1
    plan_id: one-open-order-per-customer
"""

RETURN = r"""
candidates:
  description:
    - The candidates, the likeliest first. C(how) is V(exact), V(sample) (each figure is the least that there can be) or
      V(estimate) (by the statistics, without groups).
    - C(write_pause_ms) is the forecast of what writers would wait for a plain build of the index. What is not known is
      null.
  returned: always
  type: list
  elements: dict
  sample:
    - number: 1
      schema: aedpics
      table: inspection_sessions
      key: [equipment_serial]
      condition: status IN ('active', 'paused')
      how: exact
      rows: 36
      keys: 11
      groups: 10
      surplus: 25
      score: 0.51
      table_rows: 66
      table_bytes: 65536
      references: []
      triggers: []
      write_pause_ms: 2
      index_bytes: 1120
      plan_id: one-inspection-sessions-per-equipment-serial
tables:
  description: How many tables were looked at.
  returned: always
  type: int
  sample: 6
found:
  description: How many candidates there are, before counting.
  returned: always
  type: int
  sample: 31
scans:
  description: How many times a whole table was read.
  returned: always
  type: int
  sample: 18
unread:
  description: Tables that could not be read, because somebody holds them exclusively or row level security hides rows.
  returned: always
  type: list
  elements: str
  sample: []
seconds:
  description: How long it took.
  returned: always
  type: float
  sample: 1.2
files:
  description: The plan, the migration and the comment for Prisma's schema, by their paths below C(plans/).
  returned: with O(choice)
  type: dict
  sample: {one-open-order-per-customer.yml: "..."}
"""

from typing import Any

from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, login_of, run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Find and rank; with a choice, also what is to be written for it."""
    from datetime import datetime, timezone

    from ansible.module_utils.at_most_one.discovery import survey, writing

    given, login = module.params, login_of(module)
    request = survey.Request(
        given["table"],
        tuple(given["key"]),
        given["limit"],
        given["deadline_s"],
        given["statement_timeout_ms"] / 1000,
        given["lock_timeout_ms"],
    )
    if given["choice"]:
        writing.require_id(given["plan_id"])
    found = survey.survey(login, request)
    answer = {"changed": False, **found.facts()}
    if given["choice"]:
        when = datetime.now(timezone.utc).strftime("%Y%m%d%H%M%S")
        answer["files"] = survey.choose(login, request, found, given["choice"], given["plan_id"], when).by_path()
    return answer


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            **LOGIN_SPEC,
            "table": {"type": "str", "default": ""},
            "key": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "limit": {"type": "int", "default": 5},
            "deadline_s": {"type": "float", "default": 90.0},
            "choice": {"type": "int", "default": 0},
            "plan_id": {"type": "str", "default": ""},
        },
        act,
    )


if __name__ == "__main__":
    main()
