#!/usr/bin/python
# ruff: noqa: E402 (Ansible wants the documentation before the imports)
"""Ansible module: report, remove and restore the surplus rows of a plan."""

from __future__ import annotations

DOCUMENTATION = r"""
module: duplicate_rows
short_description: Report, remove and restore the surplus rows of an "at most one" rule
description:
  - Only rows inside the plan's predicate are candidates. Of each group of rows with the same key the first in the
    plan's order stays, then the one with the lowest primary key; the others are surplus.
  - Removal takes the exact rows of a reviewed report. Those that are still surplus under a row lock enter
    C(at_most_one.archived_row) whole and leave their table, in one transaction; a row that was closed meanwhile stays.
version_added: "1.0.0"
author:
  - the at-most-one maintainers (@at-most-one)
extends_documentation_fragment: [at_most_one.login, at_most_one.plan]
options:
  state:
    description:
      - V(reported) reads one snapshot and changes nothing.
      - V(removed) removes the surplus rows among O(rows).
      - V(restored) puts back the rows that O(run_id), or every run of the plan, archived, all or none. It refuses
        when a primary key is taken or the plan's unique index would reject a row. Lower the fence and drop the
        index first.
    type: str
    choices: [reported, removed, restored]
    required: true
  limit:
    description: How many groups RV(groups) holds at most. The counts, RV(rows) and RV(digest) are always complete.
    type: int
    default: 1000
  rows:
    description: Primary keys of the reviewed rows, as RV(rows) of V(reported) gives them. Required by V(removed).
    type: list
    elements: list
  digest:
    description: RV(digest) of the reviewed report. It must match O(rows). Required by V(removed).
    type: str
  run_id:
    description:
      - The deployment's run, under which rows are archived. Required by V(removed).
      - V(restored) without it puts back what every run of the plan archived.
    type: str
  max_rows:
    description: The ceiling. More O(rows) than this stop the task before anything is written. Default is the plan's.
    type: int
  expected_groups:
    description: More duplicate groups than this stop the task; fewer are only reported. Default is the plan's.
    type: int
  expected_rows:
    description: More surplus rows than this stop the task; fewer are only reported. Default is the plan's.
    type: int
attributes:
  check_mode:
    description: Reads what would go or come back, takes no lock on rows, writes nothing.
    support: full
  diff_mode:
    description: Shows the rows of the groups in question before and after, at most 1000 groups.
    support: full
"""

EXAMPLES = r"""
- name: Read the surplus rows
  duplicate_rows:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: reported
  register: reported

- name: Ensure that the surplus rows are archived and removed
  duplicate_rows:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: removed
    rows: "{{ reported.rows }}"
    digest: "{{ reported.digest }}"
    run_id: 20251110T053000Z-1a2b3c

- name: Ensure that the archived rows are back
  duplicate_rows:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: restored
    run_id: 20251110T053000Z-1a2b3c
"""

RETURN = r"""
groups:
  description: The duplicate groups in the order of their keys. Every value is text, or null.
  returned: state is reported
  type: list
  elements: dict
  contains:
    key: {description: The key's columns., type: dict}
    keep: {description: Primary key and shown columns of the row that stays., type: dict}
    surplus: {description: "The same of each other row, best first.", type: list, elements: dict}
  sample:
    - key: {equipment_serial: 11-0010656}
      keep: {id: a1b2c3d4-0000-4000-8000-000000000001, status: active, started_at: "2025-11-08 14:30:00+00"}
      surplus: [{id: e5f6a7b8-0000-4000-8000-000000000002, status: paused, started_at: "2025-11-03 09:10:00+00"}]
truncated:
  description: Whether RV(groups) is cut off at O(limit).
  returned: state is reported
  type: bool
  sample: false
group_count:
  description: Number of duplicate groups.
  returned: state is reported
  type: int
  sample: 10
row_count:
  description: Number of surplus rows.
  returned: state is reported
  type: int
  sample: 25
open_total:
  description: Number of rows inside the predicate, the surplus ones included.
  returned: state is reported
  type: int
  sample: 35
rows:
  description: Primary keys of all surplus rows, sorted.
  returned: state is reported
  type: list
  elements: list
  sample: [[e5f6a7b8-0000-4000-8000-000000000002]]
digest:
  description: SHA-256 over RV(rows).
  returned: state is reported
  type: str
  sample: 9a0364b9e99bb480dd25e1f0284c8555f5e2b6d9f4c8e6d6f4e1a0f8f8b6d6a1
referenced:
  description: Every foreign key into the table, and how many rows point through it to a surplus row.
  returned: state is reported
  type: list
  elements: dict
  sample:
    - {constraint: photos_session_id_fkey, table: aedpics.photos, columns: [session_id], on_delete: CASCADE, rows: 0}
removed:
  description: Number of rows removed; in check mode, that would be.
  returned: state is removed
  type: int
  sample: 25
archived:
  description: Number of rows that entered the archive. Always the same as RV(removed).
  returned: state is removed
  type: int
  sample: 25
kept_meanwhile:
  description: Primary keys among O(rows) that stayed because they are no longer surplus.
  returned: state is removed
  type: list
  elements: list
  sample: []
gone_meanwhile:
  description: Primary keys among O(rows) that are no longer in the table, removed before by this plan or by others.
  returned: state is removed
  type: list
  elements: list
  sample: []
groups_left:
  description: Duplicate groups counted after the removal; in check mode, that would be left.
  returned: state is removed
  type: int
  sample: 0
rows_left:
  description: Surplus rows counted after the removal; in check mode, that would be left.
  returned: state is removed
  type: int
  sample: 0
restored:
  description: Number of rows put back; in check mode, that would be.
  returned: state is restored
  type: int
  sample: 25
refused:
  description: Empty on success. When rows cannot return, the task fails and RV(details) lists them as C(refused).
  returned: state is restored
  type: list
  elements: list
  sample: []
statements:
  description: The SQL that changed something, or in check mode would, with the names of parameters for values.
  returned: state is removed or restored
  type: list
  elements: str
  sample: [DELETE FROM "aedpics"."inspection_sessions" USING surplus WHERE "inspection_sessions"."id" = surplus."p0"]
details:
  description: On failure, what it was about, by names, counts and primary keys.
  returned: failure
  type: dict
  sample: {rows: 60, ceiling: 52}
"""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule

ARGUMENTS: dict[str, Any] = {
    **LOGIN_SPEC,
    **PLAN_SPEC,
    "state": {"type": "str", "choices": ["reported", "removed", "restored"], "required": True},
    "limit": {"type": "int", "default": 1000},
    "rows": {"type": "list", "elements": "list"},
    "digest": {"type": "str"},
    "run_id": {"type": "str"},
    "max_rows": {"type": "int"},
    "expected_groups": {"type": "int"},
    "expected_rows": {"type": "int"},
}
REQUIRED = [("state", "removed", ["rows", "digest", "run_id"])]


def act(module: AnsibleModule) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.database import connect
    from ansible.module_utils.at_most_one.plan import parse

    plan = parse(module.params["plan"])
    do = {"reported": report, "removed": remove, "restored": restore}[module.params["state"]]
    with connect(login_of(module), **timeouts_of(module)) as connection:
        return do(module, connection, plan)


def report(module: AnsibleModule, connection: Any, plan: Any) -> dict[str, Any]:
    from ansible.module_utils.at_most_one import duplicates

    found = duplicates.report(connection, plan, limit=module.params["limit"])
    return {"changed": False, **asdict(found)}


def remove(module: AnsibleModule, connection: Any, plan: Any) -> dict[str, Any]:
    from ansible.module_utils.at_most_one import duplicates

    removal = duplicates.remove(
        connection,
        plan,
        rows=[[str(part) for part in row] for row in module.params["rows"]],
        check=module.check_mode,
        **{name: module.params[name] for name in ("digest", "run_id", "max_rows", "expected_groups", "expected_rows")},
    )
    gone = {tuple(row) for row in removal.removed_examples}
    return {
        "changed": bool(removal.statements),
        "removed": removal.removed,
        "archived": removal.archived,
        "kept_meanwhile": removal.kept_meanwhile,
        "gone_meanwhile": removal.gone_meanwhile,
        "groups_left": removal.groups_left,
        "rows_left": removal.rows_left,
        "statements": removal.statements,
        "diff": {
            "before_header": f"rows of {plan.schema}.{plan.table}",
            "after_header": f"rows of {plan.schema}.{plan.table}",
            "before": _lines(plan, removal.groups, gone, after=False),
            "after": _lines(plan, removal.groups, gone, after=True),
        },
    }


def restore(module: AnsibleModule, connection: Any, plan: Any) -> dict[str, Any]:
    from ansible.module_utils.at_most_one import archive

    restoration = archive.restore(connection, plan, run_id=module.params["run_id"], check=module.check_mode)
    lines = (" ".join(_pairs(dict(zip(plan.primary_key, row, strict=True)))) for row in restoration.rows)
    return {
        "changed": bool(restoration.rows),
        "restored": len(restoration.rows),
        "refused": [],
        "statements": restoration.statements,
        "diff": {
            "before_header": f"rows of {plan.schema}.{plan.table}",
            "after_header": f"rows of {plan.schema}.{plan.table}",
            "before": "",
            "after": "".join(f"{line}\n" for line in lines),
        },
    }


def _lines(plan: Any, groups: Collection[Any], gone: Collection[tuple[str, ...]], *, after: bool) -> str:
    """The rows of every group that loses one, a line each; ``after``: without those that go."""
    lines = []
    for group in groups:
        primary_keys = [tuple(row[name] for name in plan.primary_key) for row in (group.keep, *group.surplus)]
        if not any(primary_key in gone for primary_key in primary_keys):
            continue
        lines.append(" ".join(_pairs(group.key)))
        for row, primary_key in zip((group.keep, *group.surplus), primary_keys, strict=True):
            if not (after and primary_key in gone):
                lines.append("  " + " ".join(_pairs(row)))
    return "".join(f"{line}\n" for line in lines)


def _pairs(row: dict[str, str | None]) -> list[str]:
    return [f"{name}={'null' if value is None else value}" for name, value in row.items()]


def main() -> None:
    run(ARGUMENTS, act, required_if=REQUIRED)


if __name__ == "__main__":
    main()
