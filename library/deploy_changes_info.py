#!/usr/bin/python
"""Ansible module: read what a deployment has changed so far, and so what there is to take back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_changes_info
short_description: Read what a deployment has changed so far
description:
  - Reads the journal, the catalog and the archive. With O(run_id) it says what that run has changed, together with the
    unfinished runs that it goes on from; without, what the last deployment of O(plan) has changed.
options:
  run_id:
    description: The run, as M(deploy_run) opened it.
    type: str
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read what there is to take back
  deploy_changes_info:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
  register: found
"""

RETURN = r"""
reached:
  description: What is there to be taken back.
  returned: success
  type: dict
  contains:
    runs: {description: "The runs that reached it, newest first.", type: list, elements: str}
    commit_before: {description: The commit that the first of them found., type: str}
    commit_after: {description: The commit that they brought., type: str}
    database: {description: Whether the journal says that they touched rows or indexes., type: bool}
    hosts: {description: What each host served when the first of them began., type: dict}
    point: {description: "nothing, rows or migration, by the catalog and the archive.", type: str}
    built: {description: The planned indexes that they built., type: list, elements: str}
    there: {description: "The planned indexes that there are now, whoever built them.", type: list, elements: str}
    kept: {description: The planned indexes that were there before; they are not theirs., type: list, elements: str}
    applied: {description: Whether the plan's migration counts as applied and did not before., type: bool}
    fence: {description: Whether their write fence is up., type: bool}
    content:
      description:
        - Their archived rows compared with the table. C(archived), C(pending) (not put back), C(back) (as archived),
          C(changed) and C(absent) (put back, and changed or removed since by the service).
        - C(elsewhere) counts rows that were not put back and are of another table than the plan names, by table.
        - C(taken) lists primary keys of pending rows in whose place newer data is. C(archived_sha256) and
          C(table_sha256) are over the same columns of both sides.
      type: dict
    differences:
      description: What of the catalog and of Prisma's history is gone (-) or new (+) since the first of them began.
      type: list
      elements: str
    recorded: {description: Whether that beginning is recorded; without it nothing can be compared., type: bool}
    left_behind:
      description: C(runs) that were taken back and whose rows are not all back, and their C(content).
      type: dict
    unplanned:
      description: Indexes that they have verified, that are still there and that the plan names no more.
      type: list
      elements: str
    purged:
      description: Those of C(runs) whose archived rows a purge has removed, with C(at) and how many C(rows).
      type: list
      elements: dict
    begun_before:
      description: By run, rows that runs on the way to another commit have archived; a further rollback puts them back.
      type: dict
    in_the_way: {description: Runs of other plans that are at work or serve on top., type: list, elements: str}
    at_work: {description: Runs of the plan that have not ended., type: list, elements: str}
  sample: {runs: [20251110T053000Z-1a2b3c], point: migration, built: [idx_inspection_schedules_active], applied: true}
"""

from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.runs import reached

    plan = parse(module.params["plan"])
    with connect(login_of(module), **timeouts_of(module)) as connection:
        return {"changed": False, "reached": reached.read(connection, plan, module.params["run_id"])}


def main() -> None:
    """Entry point."""
    run({**LOGIN_SPEC, **PLAN_SPEC, "run_id": {"type": "str"}}, act)


if __name__ == "__main__":
    main()
