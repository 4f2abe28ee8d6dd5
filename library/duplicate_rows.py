#!/usr/bin/python
"""Ansible module: report, remove and restore the surplus rows of a plan."""

from __future__ import annotations

DOCUMENTATION = r"""
module: duplicate_rows
short_description: Report, remove and restore the surplus rows of an "at most one" rule
description:
  - Only rows inside the plan's predicate are candidates. Of each group of rows with the same key the first in the
    plan's order stays, then the one with the lowest primary key; the others are surplus.
  - Removal takes the exact rows of a reviewed report. Those that are still surplus under a row lock enter
    C(at_most_one.archived_row) whole and leave their table; a row that was closed meanwhile stays.
  - It goes in batches, each a transaction of its own. A stop between two leaves whole batches; run it again to go on.
    C(pg_stat_activity.application_name) says how far it is.
  - Neither the module nor the result ever holds all rows, unless O(rows) or a report without O(path) is asked for.
version_added: "1.0.0"
author:
  - the at-most-one maintainers (@at-most-one)
extends_documentation_fragment: [at_most_one.login, at_most_one.plan, at_most_one.phase]
options:
  state:
    description:
      - V(reported) reads one snapshot and changes nothing in the database. With O(path) it writes a file.
      - V(removed) removes the surplus rows among those of O(path) or among O(rows).
      - V(cleaned) is the clean-up phase. Unless the planned indexes hold it raises the write fence, as M(write_fence)
        does. Then it removes the surplus rows, those of O(reviewed) or all of them, and those that have become surplus
        meanwhile, in a few rounds. It fails when a row is left, or when a planned one is neither archived nor known to
        be changed by somebody else. What the fence could not exempt leaves before it is raised.
      - V(restored) puts back the rows that O(archived_by), or every run of the plan, archived, each byte for byte, in
        batches. The table's own constraints, indexes and triggers judge every row; O(restore) says what becomes of the
        others when one cannot return. Lower the fence and drop the index first.
    type: str
    choices: [reported, removed, cleaned, restored]
    required: true
  limit:
    description: How many groups RV(groups) holds at most. The counts, RV(rows) and RV(digest) are always complete.
    type: int
    default: 1000
  path:
    description:
      - A clean-up plan. In a playbook it is a file of the control node, which the action of this name brings from and
        to the host where the module runs. It is read and written as a stream.
      - V(reported) writes it, JSON with one row per line in its last key, readable by owner and group. Of a row it has
        the primary key and, behind it, a hash of the content. It appears whole or not at all, also in check mode.
      - V(removed) reads it. Any order of keys and any white space will do.
    type: path
  only_unchanged:
    description:
      - For V(removed) with O(path). A row whose content has changed since the file was written stays, RV(unarchived)
        names it, and RV(rows_left) counts it. Turn it off only for a file that nobody reviews.
    type: bool
    default: true
  preview:
    description:
      - For V(reported) with O(path). Return also what has to be known before anything is written, RV(exact) and
        RV(preview), or RV(refusal). The removal is tried as in check mode, with the same limits.
      - O(phase) is recorded when there is nothing to do, with no surplus row and RV(exact), and the run has not cleaned
        up before.
    type: bool
    default: false
  reviewed:
    description:
      - The clean-up plan whose rows are to leave, with the content that was reviewed. For V(reported) with O(preview);
        without it, the one just written. For V(cleaned); without it, every surplus row.
      - In a playbook it is a file of the control node, as O(path) is.
    type: path
  header:
    description: What else the file of V(reported) says, ahead of the report's own keys.
    type: dict
    default: {}
  rows:
    description: Primary keys of the reviewed rows, as RV(rows) of V(reported) gives them; for few rows.
    type: list
    elements: list
  digest:
    description: RV(digest) of the reviewed report. It must match the rows. Required with O(rows).
    type: str
  run_id:
    description:
      - The run that does this, as M(deploy_run) opened it. V(removed) and V(cleaned) require it, and archive the rows
        under it. V(cleaned) adds to what the run's earlier clean-ups have recorded.
      - Each transaction that writes begins by making sure that the run still holds its plan, and nobody can take it
        over before that transaction ends. The lease is renewed meanwhile. A run that was taken over writes no more.
    type: str
  archived_by:
    description: For V(restored), the run whose rows come back; without it, what every run of the plan archived.
    type: str
  restore:
    description:
      - For V(restored). With V(all), a row that cannot return refuses all of them before the first one.
      - With V(possible), the others return. Those that cannot stay in the archive and are listed in RV(left), each with
        its reason; a later call tries them again.
    type: str
    choices: [all, possible]
    default: all
  max_rows:
    description: The ceiling. More O(rows) than this stop the task before anything is written. Default is the plan's.
    type: int
  batch_target_ms:
    description: Milliseconds that one batch may last, so that a writer may have to wait for its rows.
    type: int
    default: 50
  max_replica_lag_s:
    description: Seconds; while a replica is further behind, no batch begins.
    type: int
    default: 30
  max_replica_wait_s:
    description: Seconds to wait for such a replica, all in all, before the task stops with its name.
    type: int
    default: 600
  expected_groups:
    description: More duplicate groups than this stop the task; fewer are only reported. Default is the plan's.
    type: int
  expected_rows:
    description: More surplus rows than this stop the task; fewer are only reported. Default is the plan's.
    type: int
  lock_attempts:
    description: As O(write_fence#module:lock_attempts), for V(cleaned).
    type: int
    default: 10
  max_write_pause_ms:
    description: As O(write_fence#module:max_write_pause_ms), for V(cleaned).
    type: int
    default: 500
  deadline_s:
    description: As O(write_fence#module:deadline_s), for V(cleaned).
    type: int
    default: 300
attributes:
  check_mode:
    description:
      - Reads what would go, takes no lock on rows, leaves nothing in the database.
      - V(restored) does the real work in one transaction that is rolled back, so that its figures are true. It waits
        for a lock one second at most. The table's triggers run; what they do outside of the transaction, such as
        C(nextval), stays. Until it ends, who deletes a row that a returning one refers to waits for it.
    support: full
  diff_mode:
    description:
      - Shows the rows of the groups in question before and after, at most 1000 rows; with V(cleaned) the fence alone,
        because the report has shown the rows.
    support: full
"""

EXAMPLES = r"""
- name: Read the surplus rows
  duplicate_rows:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: reported
    path: "{{ playbook_dir }}/cleanup_plan.json"

- name: Ensure that the reviewed rows are archived and removed
  duplicate_rows:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: removed
    path: "{{ playbook_dir }}/cleanup_plan.json"
    run_id: 20251110T053000Z-1a2b3c

- name: Ensure that every surplus row is archived and removed, behind the write fence
  duplicate_rows:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: cleaned
    phase: cleanup
    run_id: 20251110T053000Z-1a2b3c

- name: Ensure that the archived rows are back
  duplicate_rows:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: restored
    archived_by: 20251110T053000Z-1a2b3c
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
    surplus: {description: "The same of each other row, best first; the first of them.", type: list, elements: dict}
    surplus_count: {description: "How many other rows there are.", type: int}
  sample:
    - key: {equipment_serial: 11-0010656}
      keep: {id: a1b2c3d4-0000-4000-8000-000000000001, status: active, started_at: "2025-11-08 14:30:00+00"}
      surplus: [{id: e5f6a7b8-0000-4000-8000-000000000002, status: paused, started_at: "2025-11-03 09:10:00+00"}]
      surplus_count: 1
truncated: {description: "Whether RV(groups) is cut off at O(limit) groups, or at 10000 rows.",
  returned: state is reported, type: bool, sample: false}
group_count: {description: "Number of duplicate groups.", returned: state is reported, type: int,
  sample: 10}
row_count: {description: "Number of surplus rows.", returned: state is reported, type: int,
  sample: 25}
open_total: {description: "Number of rows inside the predicate, the surplus ones included.",
  returned: state is reported, type: int, sample: 35}
rows:
  description: Primary keys of all surplus rows, sorted.
  returned: state is reported, without path
  type: list
  elements: list
  sample: [[e5f6a7b8-0000-4000-8000-000000000002]]
digest:
  description: Names the exact set of surplus rows, whatever their order.
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
exact: {description: "Whether exactly the planned indexes are there, all valid, ready and live.", returned: preview,
  type: bool, sample: false}
preview:
  description: What V(removed) would return; empty when no row is surplus, and when it would be refused.
  returned: preview
  type: dict
  sample: {removed: 25, rows_left: 0, kept_meanwhile: 0, gone_meanwhile: 0, unarchived: []}
findings:
  description: What RV(refusal) consists of.
  returned: O(state=reported) with O(preview)
  type: list
  elements: dict
  sample: []
refusal:
  description: Why V(removed) would fail, as its error would say it; empty when it would not. It is no failure here,
    so that the report can be shown first.
  returned: preview
  type: str
  sample: ""
sum:
  description: What the run's clean-up has planned and done so far, each clean-up of the run added up.
  returned: preview, or state is cleaned; on failure, too
  type: dict
  sample: {groups: 10, planned: 25, removed: 25, archived: 25, kept_meanwhile: 0, gone_meanwhile: 0, batches: 1}
fence_raised: {description: "Whether the write fence was raised, and was not up before.",
  returned: "state is cleaned; on failure, too", type: bool, sample: true}
removed: {description: "Number of rows removed, or updated as the plan says; in check mode, that would be.",
  returned: state is removed or cleaned, type: int, sample: 25}
archived: {description: "Number of rows that entered the archive. Always the same as RV(removed).",
  returned: state is removed or cleaned, type: int, sample: 25}
kept_meanwhile: {description: "Number of given rows that stayed because they are no longer surplus.",
  returned: state is removed, type: int, sample: 0}
kept_examples: {description: "Primary keys of at most 1000 of them.",
  returned: state is removed, type: list, elements: list, sample: []}
unarchived:
  description:
    - Of at most 1000 given rows that this task did not archive, the primary key and why.
    - V(outside) is no longer in the rule, V(keeper) is the row of its group that stays now, V(changed) is still surplus
      but was changed since the review, or again and again, V(archived) is in the archive of an earlier run, V(gone) was
      removed by somebody else.
  returned: state is removed
  type: list
  elements: dict
  sample: [{row: [e5f6a7b8-0000-4000-8000-000000000002], why: outside}]
gone_meanwhile: {description: "Number of given rows that are not in the table any more, whoever removed them.",
  returned: state is removed, type: int, sample: 0}
removed_examples: {description: "Primary keys of at most 1000 removed rows.",
  returned: state is removed, type: list, elements: list, sample: [[e5f6a7b8-0000-4000-8000-000000000002]]}
repointed: {description: "Number of rows of other tables that point to a keeper now (C(surplus.references=repoint)).",
  returned: state is removed, type: int, sample: 0}
batches: {description: "Number of transactions that it took.", returned: state is removed or restored, type: int,
  sample: 1}
seconds: {description: "How long it took, all in all.", returned: state is removed, type: float, sample: 0.2}
longest_batch_ms: {description: "Longest of the batches, in milliseconds; no writer waited longer for these rows.",
  returned: state is removed or restored, type: int, sample: 12}
groups_left: {description: "Duplicate groups counted after the removal; in check mode, that would be left.",
  returned: state is removed, type: int, sample: 0}
rows_left: {description: "Surplus rows counted after the removal; in check mode, that would be left.",
  returned: state is removed, type: int, sample: 0}
restored: {description: "Number of rows put back; in check mode, that would be.",
  returned: state is restored, type: int, sample: 25}
restored_examples: {description: "Primary keys of at most 1000 of them.",
  returned: state is restored, type: list, elements: list, sample: [[e5f6a7b8-0000-4000-8000-000000000002]]}
pointed_back: {description: "Number of rows of other tables that point to a restored row again.",
  returned: state is restored, type: int, sample: 0}
refused:
  description: Empty on success. With O(restore=all), when rows cannot return, the task fails and RV(details) lists
    them as C(refused), at most 1000.
  returned: state is restored
  type: list
  elements: list
  sample: []
left:
  description:
    - What cannot return and stays in the archive, by table, C(reason) and C(name), with C(count) rows, the primary keys
      (C(rows)) of at most 100, and all of it in one phrase (C(said)).
    - C(reason) is one of taken (the primary key, by its index), rule (the plan's unique index), constraint, trigger (a
      function that raises an error), changed_value (columns that would not come back as archived), swallowed (a trigger
      keeps the row out), writes (triggers write to the named tables when the row returns, or to other rows of its own),
      changed_since (updated rows that are no longer as the clean-up left them), moved (no longer points to the row that
      stayed), column (columns that the table no longer has), error (SQLSTATE).
  returned: state is restored
  type: list
  elements: dict
  sample:
    - {table: aedpics.inspection_sessions, reason: constraint, name: inspection_sessions_inspector_id_fkey, count: 1,
       rows: [[e5f6a7b8-0000-4000-8000-000000000002]],
       said: "1 of aedpics.inspection_sessions: constraint inspection_sessions_inspector_id_fkey rejects them"}
left_count: {description: "How many rows of the plan's table RV(left) counts.",
  returned: state is restored, type: int, sample: 0}
statements:
  description: The SQL that changed something, or in check mode would, with the names of parameters for values.
  returned: state is removed, cleaned or restored
  type: list
  elements: str
  sample: [DELETE FROM "aedpics"."inspection_sessions" USING surplus WHERE "inspection_sessions"."id" = surplus."p0"]
details:
  description: On failure, what it was about, by names, counts and primary keys.
  returned: failure
  type: dict
  sample: {rows: 60, ceiling: 52}
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ansible.module_utils.at_most_one.plan import Plan, parse
from ansible.module_utils.at_most_one_entry import (
    PHASE_SPEC,
    WRITING_SPEC,
    fail,
    fence_diff,
    held_run,
    login_of,
    record_phase,
    refusal,
    require_attempts,
    run,
    timeouts_of,
)
from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ansible.module_utils.at_most_one.cleanup.phase import Limits, Progress
    from ansible.module_utils.at_most_one.duplicates.batches import Pace
    from ansible.module_utils.at_most_one.duplicates.groups import Group
    from ansible.module_utils.at_most_one.errors import OperatorError
    from ansible.module_utils.at_most_one.postgres.connection import Connection, Hold

ARGUMENTS: dict[str, Any] = {
    **WRITING_SPEC,
    **PHASE_SPEC,
    "state": {"type": "str", "choices": ["reported", "removed", "cleaned", "restored"], "required": True},
    "limit": {"type": "int", "default": 1000},
    "path": {"type": "path"},
    "only_unchanged": {"type": "bool", "default": True},
    "preview": {"type": "bool", "default": False},
    "reviewed": {"type": "path"},
    "header": {"type": "dict", "default": {}},
    "rows": {"type": "list", "elements": "list"},
    "digest": {"type": "str"},
    "archived_by": {"type": "str"},
    "restore": {"type": "str", "choices": ["all", "possible"], "default": "all"},
    "max_rows": {"type": "int"},
    "batch_target_ms": {"type": "int", "default": 50},
    "max_replica_lag_s": {"type": "int", "default": 30},
    "max_replica_wait_s": {"type": "int", "default": 600},
    "expected_groups": {"type": "int"},
    "expected_rows": {"type": "int"},
    "lock_attempts": {"type": "int", "default": 10},
    "max_write_pause_ms": {"type": "int", "default": 500},
    "deadline_s": {"type": "int", "default": 300},
}
REQUIRED = [
    ("state", "removed", ["run_id"]),
    ("state", "removed", ["path", "rows"], True),
    ("state", "cleaned", ["run_id"]),
    ("preview", True, ["path", "run_id"]),
]


def act(module: AnsibleModule) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.postgres.connection import connect

    plan = parse(module.params["plan"])
    do = {"reported": report, "removed": remove, "cleaned": clean, "restored": restore}[module.params["state"]]
    with held_run(module) as hold, connect(login_of(module), **timeouts_of(module)) as connection:
        return do(module, connection, plan, hold)


def report(module: AnsibleModule, connection: Connection, plan: Plan, _hold: Hold) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.duplicates import surplus_rows
    from ansible.module_utils.at_most_one.indexes import verification

    limit, path, preview = (module.params[name] for name in ("limit", "path", "preview"))
    exact = False
    if preview:
        exact = verification.inspect(connection, plan).exact
        connection.rollback()
    if path is None:
        return {"changed": False, **asdict(surplus_rows.report(connection, plan, limit=limit))}
    found = _written(module, connection, plan, path)
    return {"changed": False, **found, **(_preview(module, connection, plan, found, exact=exact) if preview else {})}


def _written(module: AnsibleModule, connection: Connection, plan: Plan, path: str) -> dict[str, Any]:
    """Write the report to ``path``; return it without its rows."""
    from ansible.module_utils.at_most_one.duplicates import plan_file, surplus_rows

    result: dict[str, Any] = {}

    def fill(hand_over: Callable[[str], None]) -> dict[str, Any]:
        result.update(
            asdict(surplus_rows.report(connection, plan, limit=module.params["limit"], into=hand_over)),
        )
        del result["rows"]
        return {
            **module.params["header"],
            **{name: result[name] for name in ("groups", "group_count", "row_count", "digest")},
        }

    plan_file.write(path, fill)
    return result


def _preview(
    module: AnsibleModule, connection: Connection, plan: Plan, found: dict[str, Any], *, exact: bool
) -> dict[str, Any]:
    """Try the removal in check mode; record the phase when there is nothing to remove and nothing to build."""
    from ansible.module_utils.at_most_one.cleanup import phase

    run_id, path, reviewed = (module.params[name] for name in ("run_id", "path", "reviewed"))
    preview: dict[str, Any] = {}
    refused = None
    if found["row_count"]:
        preview, refused = phase.preview(connection, plan, run_id, _limits(module), path, reviewed)
    before = phase.earlier(connection, run_id)
    planned = asdict((before or phase.Account()).plus({name: found[name] for name in phase.COUNTED}))
    if exact and not found["row_count"] and before is None:
        record_phase(module, "unchanged", planned)
    return {"exact": exact, "preview": preview, **_refused(refused), "sum": planned}


def _refused(stop: OperatorError | None) -> dict[str, Any]:
    """Why the removal would be refused, as a text and as what the control node translates."""
    if stop is None:
        return {"refusal": "", "findings": []}
    said = refusal(stop)
    return {"refusal": said["msg"], "findings": said["findings"]}


def clean(module: AnsibleModule, connection: Connection, plan: Plan, hold: Hold) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.cleanup import phase
    from ansible.module_utils.at_most_one.runs import control

    run_id, reviewed = module.params["run_id"], module.params["reviewed"]
    require_attempts(module.params["lock_attempts"])
    done = phase.Progress(phase.earlier(connection, run_id) or phase.Account())
    try:
        phase.clean(
            *(connection, plan, run_id, _limits(module), done),
            reviewed=reviewed,
            check=module.check_mode,
            hold=hold,
            checkpoint=control.checkpoint(None if module.check_mode else run_id),
        )
        record_phase(module, "ok" if done.changed else "unchanged", asdict(done.account))
    except Exception as error:  # whole batches may have gone: who decides about the way back has to know them
        fail(module, error, **_cleaned(done))
    for warning in done.warnings:
        module.warn(warning)
    return _cleaned(done)


def _cleaned(done: Progress) -> dict[str, Any]:
    result = {
        "changed": done.changed,
        "sum": asdict(done.account),
        "removed": done.account.removed,
        "archived": done.account.archived,
        "fence_raised": done.fence_raised,
        "statements": done.statements,
    }
    if done.fence:
        result["diff"] = fence_diff(done.fence)
    return result


def _limits(module: AnsibleModule) -> Limits:
    from ansible.module_utils.at_most_one.cleanup.phase import Limits

    names = ("max_rows", "expected_groups", "expected_rows", "lock_attempts", "max_write_pause_ms", "deadline_s")
    return Limits(pace=_pace(module), **{name: module.params[name] for name in names})


def _pace(module: AnsibleModule) -> Pace:
    from ansible.module_utils.at_most_one.duplicates.batches import Pace

    return Pace(
        target_ms=module.params["batch_target_ms"],
        max_replica_lag_s=module.params["max_replica_lag_s"],
        max_replica_wait_s=module.params["max_replica_wait_s"],
    )


def remove(module: AnsibleModule, connection: Connection, plan: Plan, hold: Hold) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.duplicates import surplus_rows
    from ansible.module_utils.at_most_one.fence import write_fence

    rows, digest, only_unchanged = _given(module)
    removal = surplus_rows.remove(
        *(connection, plan),
        rows=rows,
        digest=digest,
        pace=_pace(module),
        **{name: module.params[name] for name in ("run_id", "max_rows", "expected_groups", "expected_rows")},
        only_unchanged=only_unchanged,
        check=module.check_mode,
        describe=module._diff,
        hold=hold,
    )
    result, warnings = asdict(removal), list(removal.warnings)
    del result["groups"], result["warnings"]
    if not module.check_mode:
        # What the fence exempts and has not left is to be in it from now on.
        tightened = write_fence.tighten(connection, plan, hold=hold)
        result["rows_left"] = max(removal.rows_left, tightened.exempt)
        warnings += tightened.warnings
    for warning in warnings:
        module.warn(warning)
    gone = {tuple(row) for row in removal.removed_examples}
    return {
        "changed": bool(removal.statements),
        **result,
        "diff": _diff(plan, *(_lines(plan, removal.groups, gone, after=after) for after in (False, True))),
    }


def _given(module: AnsibleModule) -> tuple[Iterable[list[str]], str, bool]:
    """The rows that are to leave, their digest, and whether only unchanged ones are."""
    from ansible.module_utils.at_most_one.duplicates.plan_file import RowsFile

    path, rows, digest = (module.params[name] for name in ("path", "rows", "digest"))
    if path is None:
        return ([str(part) for part in row] for row in rows), digest or "", False
    reviewed = RowsFile(path)
    return reviewed.rows(), digest or reviewed.digest(), module.params["only_unchanged"]


def restore(module: AnsibleModule, connection: Connection, plan: Plan, hold: Hold) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.duplicates.restore import restore as put_back
    from ansible.module_utils.at_most_one.system.strict_zip import strict_zip

    restoration = put_back(
        connection,
        plan,
        run_id=module.params["archived_by"],
        check=module.check_mode,
        possible=module.params["restore"] == "possible",
        hold=hold,
    )
    lines = (" ".join(_pairs(dict(strict_zip(plan.primary_key, row)))) for row in restoration.rows)
    return {
        "changed": bool(restoration.restored or restoration.pointed_back),
        "restored": restoration.restored,
        "restored_examples": restoration.rows,
        "pointed_back": restoration.pointed_back,
        "refused": [],
        "left": [{**asdict(left), "said": str(left)} for left in restoration.left],
        "left_count": sum(left.count for left in restoration.left if left.table == f"{plan.schema}.{plan.table}"),
        **{name: getattr(restoration, name) for name in ("batches", "longest_batch_ms", "statements")},
        "diff": _diff(plan, "", "".join(f"{line}\n" for line in lines)),
    }


def _diff(plan: Plan, before: str, after: str) -> dict[str, str]:
    header = f"rows of {plan.schema}.{plan.table}"
    return {"before_header": header, "after_header": header, "before": before, "after": after}


def _lines(plan: Plan, groups: Collection[Group], gone: Collection[tuple[str, ...]], *, after: bool) -> str:
    """The rows of every shown group that loses one, a line each; ``after``: without those that go."""
    from ansible.module_utils.at_most_one.system.strict_zip import strict_zip

    lines = []
    for group in groups:
        primary_keys = [tuple(row[name] for name in plan.primary_key) for row in (group.keep, *group.surplus)]
        if not any(primary_key in gone for primary_key in primary_keys):
            continue
        lines.append(" ".join(_pairs(group.key)))
        for row, primary_key in strict_zip((group.keep, *group.surplus), primary_keys):
            if not (after and primary_key in gone):
                lines.append("  " + " ".join(_pairs(row)))
    return "".join(f"{line}\n" for line in lines)


def _pairs(row: dict[str, str | None]) -> list[str]:
    return [f"{name}={'null' if value is None else value}" for name, value in row.items()]


def main() -> None:
    run(ARGUMENTS, act, required_if=REQUIRED)


if __name__ == "__main__":
    main()
