#!/usr/bin/python
"""Ansible module: what a deployment did in the database, taken back, proven and recorded."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_rollback
short_description: Take back what a deployment did in the database
description:
  - Lowers the write fence, drops the planned indexes with C(DROP INDEX CONCURRENTLY), marks the migration rolled back
    in Prisma's history and puts the archived rows back, in this order. What is done already is left alone, so that the
    same call again goes on where one was cut short.
  - With O(history) the tool is asked first and told last, where one of the runs of O(archived_by) has had it record
    the migration. It refuses while later migrations are applied.
  - Then reads indexes, history, catalog and archive again, and fails unless all of it is taken back.
  - A fence that cannot be dropped within 30 seconds is no failure, but a warning that names who is in the way.
options:
  rule:
    description: >-
      Whether the fence, the history and the indexes that were not there before the deployment are taken back; with
      V(false) only rows return.
    type: bool
    required: true
  restore_rows:
    description: Whether archived rows return. In the end each of them has to be back that can return.
    type: bool
    default: true
  archived_by:
    description: The runs whose archived rows return; an empty list is every run of O(plan).
    type: list
    elements: str
    default: []
  restore:
    description: As O(duplicate_rows#module:restore).
    type: str
    choices: [all, possible]
    default: all
  left_behind:
    description: Whether the rows are those that earlier rollbacks had to leave, and not the last deployment's.
    type: bool
    default: false
  rows_timeout_ms:
    description: The longest run, in milliseconds, of a statement that puts rows back. A batch that outlasts it is made
      smaller.
    type: int
    default: 60000
  failed_run:
    description: A run that failed, to compare with what it found. Without it that is the last deployment of O(plan).
    type: str
  as_before:
    description: Whether it is an error when catalog or history differ from what that run found.
    type: bool
    default: false
  phase_details:
    description: What else to keep about O(phase), beside what the call found and did. Without secrets.
    type: dict
    default: {}
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.run
  - at_most_one.phase
  - at_most_one.history
attributes:
  check_mode:
    support: full
    description: Says what would be dropped and marked. The rows return in a transaction that is rolled back.
  diff_mode:
    support: full
    description: Shows fence, definitions and the migration's rows before and after, and the rows that return.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Ensure that the database is as before the deployment
  database_rollback:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    rule: true
    archived_by: [20251110T053000Z-1a2b3c]
    restore: possible
    run_id: 20251110T070000Z-5d6e7f
    phase: rollback
"""

RETURN = r"""
indexes:
  description: The planned indexes, read in the end, as M(index_set) returns them. On failure they are in C(details).
  returned: always
  type: list
  elements: dict
  sample: [{name: idx_inspection_schedules_active, verdict: missing}]
duplicates_left:
  description: How many groups of rows break the plan's rule.
  returned: success
  type: int
  sample: 10
summary:
  description: Indexes and returned rows in one line for a person.
  returned: success
  type: str
  sample: 0 of 3 planned indexes present and valid, 0 unexpected, 10 duplicate groups, 25 rows put back
sentence:
  description: What was taken back, in whole English phrases, for the error of a run that has taken itself back.
  returned: success
  type: str
  sample: >-
    3 indexes dropped, 25 rows restored, 0 kept in the archive. The catalog and Prisma's history are as before
    (compared).
phrases:
  description: RV(sentence) by its name, as the phrase that a translation is made of.
  returned: success
  type: dict
  sample: {sentence: {template: "{dropped} indexes dropped.", values: {dropped: 3}}}
history:
  description: Prisma's history on the plan's migration, see M(prisma_history_info).
  returned: success
  type: str
  sample: rolled_back
fence:
  description: The fence in the end, see M(write_fence); C(lowered) without O(rule).
  returned: success
  type: str
  sample: lowered
statements:
  description: The statements that were run, or would be.
  returned: success
  type: list
  elements: str
  sample:
    - DROP INDEX CONCURRENTLY IF EXISTS "aedpics"."idx_inspection_schedules_active"
told:
  description: The command by which the tool of O(history) was told that the migration is not applied, or would be.
    Empty where no run has had it record the migration.
  returned: success
  type: str
  sample: ""
restored:
  description: How many rows were put back, or would be.
  returned: success
  type: int
  sample: 25
left:
  description: What cannot return, by reason, as M(duplicate_rows) returns it.
  returned: success
  type: list
  elements: dict
  sample: []
left_count:
  description: How many rows of the plan's table that are.
  returned: success
  type: int
  sample: 0
content:
  description: What has become of the archived rows in question, see RV(deploy_run#module:reached).
  returned: success
  type: dict
  sample: {archived: 25, pending: 0, back: 25, changed: 0, absent: 0, taken: []}
reached:
  description: What is still there of the deployment, see RV(deploy_run#module:reached).
  returned: success
  type: dict
  sample: {point: nothing, differences: [], recorded: true}
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import (
    HISTORY_SPEC,
    PHASE_SPEC,
    WRITING_SPEC,
    held_run,
    history_of,
    login_of,
    record_phase,
    run,
    timeouts_of,
)
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Take back, show and record."""
    from ansible.module_utils.at_most_one.findings import joined, say
    from ansible.module_utils.at_most_one.migration import take_back

    given, plan = module.params, parse(module.params["plan"])
    wanted = take_back.Wanted(
        archived_by=tuple(given["archived_by"]),
        possible=given["restore"] == "possible",
        history=history_of(module, plan),
        **{
            name: given[name]
            for name in ("rule", "restore_rows", "left_behind", "rows_timeout_ms", "failed_run", "as_before")
        },
        **timeouts_of(module),
    )
    with held_run(module) as hold:
        done = take_back.take_back(login_of(module), plan, wanted, warn=module.warn, check=module.check_mode, hold=hold)
    rows = {
        "restored": sum(one.restored for one in done.restored),
        "left": [{**asdict(left), "said": str(left)} for one in done.restored for left in one.left],
        "left_count": done.left_count,
    }
    content = take_back.content_of(wanted, done.reached)
    differences = list(done.reached["differences"])
    record_phase(module, "ok", {**given["phase_details"], **rows, "content": content, "differences": differences})
    restored = say("{rows} rows put back", rows=rows["restored"])
    summary = joined([done.inspection.summary(), restored], ", ")
    return {
        "changed": done.changed,
        "indexes": [asdict(verdict) for verdict in done.inspection.verdicts],
        "duplicates_left": done.inspection.duplicates_left,
        "summary": summary,
        "sentence": done.sentence,
        "phrases": {"sentence": done.sentence.as_data(), "summary": summary.as_data()},
        "history": done.history,
        "fence": done.fence.state if done.fence else "lowered",
        "statements": done.statements,
        "told": done.told,
        **rows,
        "content": content,
        "reached": done.reached,
        "diff": done.diff(plan),
    }


def main() -> None:
    """Entry point."""
    run(
        {
            **WRITING_SPEC,
            **PHASE_SPEC,
            **HISTORY_SPEC,
            "phase_details": {"type": "dict", "default": {}},
            "rule": {"type": "bool", "required": True},
            "restore_rows": {"type": "bool", "default": True},
            "archived_by": {"type": "list", "elements": "str", "default": []},
            "restore": {"type": "str", "choices": ["all", "possible"], "default": "all"},
            "left_behind": {"type": "bool", "default": False},
            "rows_timeout_ms": {"type": "int", "default": 60_000},
            "failed_run": {"type": "str"},
            "as_before": {"type": "bool", "default": False},
        },
        act,
        required_by={"phase": ("run_id",)},
    )


if __name__ == "__main__":
    main()
