#!/usr/bin/python
"""Ansible module: the plan's indexes, exactly: verified by definition, built by Prisma, or taken away."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: index_set
short_description: Verify, build or remove exactly the indexes of a plan
description:
  - Compares the planned indexes with the catalog by definition, never by name alone. The expected index is built on an
    empty temporary copy of its table, in a savepoint that is rolled back, and both are rendered in one session.
  - An index of the planned name in another schema does not count. An index that matches the plan's family without being
    planned or a known neighbour is a fault.
options:
  state:
    description:
      - V(verified) changes nothing and fails on any fault, see O(fail).
      - V(present) runs C(prisma migrate deploy) in O(release_path) unless the indexes are exactly there and Prisma's
        history says so. The result is judged by the exit code and by the catalog. Writers on the planned tables wait
        while an index is built.
      - V(absent) drops the planned indexes with C(DROP INDEX CONCURRENTLY). Nobody waits for it, but it waits for every
        transaction that uses the table. Prisma's history must be marked afterwards, see M(prisma_history).
    type: str
    choices: [verified, present, absent]
    default: verified
  fail:
    description:
      - With O(state=verified), whether anything but exactly the planned indexes, all valid, and no duplicate is an
        error.
      - With V(false) the faults are only returned.
    type: bool
    default: true
  strategy:
    description: How O(state=present) builds. V(prisma) lets C(prisma migrate deploy) do it.
    type: str
    choices: [prisma]
    default: prisma
  release_path:
    description: The release whose C(prisma/) and C(node_modules/) are used. Required with O(state=present).
    type: path
  environment_path:
    description: Put in front of PATH for Prisma, so that it finds C(node).
    type: str
  attempts:
    description:
      - With O(state=present), how often a build is tried whose lock was not obtained within O(lock_timeout_ms).
      - Each attempt makes writers wait for as long as it waits itself.
    type: int
    default: 5
  deadline_s:
    description:
      - With O(state=present), the longest time for all attempts together, waits for another migration included.
      - With O(state=absent), the longest time for one drop. An index whose drop was cut short stays behind INVALID, and
        is dropped by the next run.
    type: int
    default: 300
  prisma_timeout_s:
    description: The longest time for one call of Prisma. Then it is ended, and the catalog says how far it came.
    type: int
    default: 180
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
attributes:
  check_mode:
    support: full
    description: Says what would be built or dropped. Prisma is not called.
  diff_mode:
    support: full
    description: Shows the definitions that are there before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Ensure that the planned indexes are there
  index_set:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: present
    release_path: /var/www/aedpics.releases/3f616e0
    lock_timeout_ms: 2000

- name: Check that exactly the planned indexes are there, and no duplicate
  index_set:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: verified

- name: Ensure that the planned indexes are gone
  index_set:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: absent
"""

RETURN = r"""
indexes:
  description: One entry for each planned index, and one for each unexpected index of the family, after any change.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Name of the index., type: str}
    verdict: {description: "present, missing, different, invalid or unexpected.", type: str}
    parts: {description: "What differs from the plan: part, expected, seen.", type: list, elements: dict}
    valid: {description: Whether queries may use it; a unique one may still reject duplicates when false., type: bool}
    ready: {description: Whether it is kept up to date and rejects duplicates., type: bool}
    live: {description: Whether it is not being dropped., type: bool}
    building: {description: "pid, phase and percent of the build that is running now, if there is one.", type: dict}
    definition: {description: The definition as the catalog renders it., type: str}
  sample:
    - name: idx_inspection_schedules_active
      verdict: different
      parts: [{part: predicate, expected: "(status <> 'cancelled'::aedpics.schedule_status)", seen: none}]
      valid: true
      ready: true
      live: true
      building:
      definition: >-
        CREATE INDEX idx_inspection_schedules_active ON aedpics.inspection_schedules
        USING btree (aed_data_id, scheduled_for)
exact:
  description: Whether exactly the planned indexes are there, all valid, ready and live.
  returned: success
  type: bool
  sample: true
duplicates_left:
  description: How many groups of rows break the plan's rule.
  returned: success
  type: int
  sample: 0
summary:
  description: The same in one line for a person.
  returned: success
  type: str
  sample: 3 of 3 planned indexes present and valid, 0 unexpected, 0 duplicate groups
statements:
  description: The statements that were run, or would be. With O(state=present) Prisma runs its own wording of them.
  returned: O(state=present) or O(state=absent)
  type: list
  elements: str
  sample:
    - DROP INDEX CONCURRENTLY IF EXISTS "aedpics"."idx_inspection_schedules_active"
history:
  description: Prisma's history on the plan's migration, see M(prisma_history).
  returned: O(state=present)
  type: str
  sample: applied
pending:
  description: The migrations that C(prisma migrate deploy) applied, or would.
  returned: O(state=present)
  type: list
  elements: str
  sample: [20251110_add_partial_unique_indexes]
repaired:
  description:
    - Whether the migration had failed before, as after a kill, and nothing of it was there. Its row in Prisma's history
      is then marked rolled back first.
  returned: O(state=present)
  type: bool
  sample: false
attempts:
  description: How often Prisma was called.
  returned: O(state=present)
  type: int
  sample: 1
seconds:
  description: How long that took, waits included.
  returned: O(state=present)
  type: float
  sample: 1.4
write_pause_ms:
  description: The longest wait of a writer on the planned tables, sampled about ten times a second.
  returned: O(state=present)
  type: int
  sample: 0
"""


def act(module: AnsibleModule) -> dict[str, Any]:
    """Do what ``state`` says."""
    from ansible.module_utils.at_most_one.plan import parse

    states = {"verified": _verified, "present": _present, "absent": _absent}
    return states[module.params["state"]](module, parse(module.params["plan"]))


def _inspect(module: AnsibleModule, plan: Any) -> Any:
    from ansible.module_utils.at_most_one import indexes
    from ansible.module_utils.at_most_one.database import connect

    with connect(login_of(module), **timeouts_of(module)) as connection:
        inspection = indexes.inspect(connection, plan)
        connection.rollback()
    return inspection


def _report(inspection: Any) -> dict[str, Any]:
    return {
        "indexes": [asdict(verdict) for verdict in inspection.verdicts],
        "exact": inspection.exact,
        "duplicates_left": inspection.duplicates_left,
        "summary": inspection.summary(),
    }


def _definitions(inspection: Any) -> str:
    return "".join(f"{verdict.definition};\n" for verdict in inspection.verdicts if verdict.definition)


def _verified(module: AnsibleModule, plan: Any) -> dict[str, Any]:
    from ansible.module_utils.at_most_one import indexes

    inspection = _inspect(module, plan)
    if module.params["fail"]:
        indexes.require_exact(inspection, plan)
    return {"changed": False, **_report(inspection)}


def _present(module: AnsibleModule, plan: Any) -> dict[str, Any]:
    from ansible.module_utils.at_most_one import indexes, prisma, prisma_cli
    from ansible.module_utils.at_most_one.database import connect
    from ansible.module_utils.at_most_one.locks import Watch

    release = Path(module.params["release_path"])
    migrations = prisma.read_migrations(release, may_be_unbuilt=module.check_mode)
    before = _inspect(module, plan)
    with connect(login_of(module), **timeouts_of(module)) as connection:
        verdict = prisma.judge(prisma.read_history(connection, plan.schema), migrations, plan.migration, before.exact)
        missing = {found.name for found in before.verdicts if found.verdict == "missing"}
        statements = [
            indexes.create_statement(index, plan.schema).as_string(connection)
            for index in plan.indexes
            if index.name in missing
        ]
    result = {"history": verdict.verdict, "pending": [], "repaired": False, "attempts": 0, "seconds": 0.0}
    result["write_pause_ms"] = 0
    if before.exact and not before.duplicates_left and verdict.verdict == "applied":
        return {"changed": False, "statements": [], **result, **_report(before)}

    # Nothing of a failed migration is there: PostgreSQL rolled it back. Its row is all that keeps it from a new start.
    result["repaired"] = verdict.verdict == "failed" and not before.existing
    if not result["repaired"]:
        prisma.require_deployable(verdict, plan.migration)
    indexes.require_buildable(before, plan, duplicates_may_go=module.check_mode)
    result["pending"] = list(verdict.pending)
    planned = _definitions(before) + "".join(f"{statement};\n" for statement in statements)
    if module.check_mode:
        diff = {"before": _definitions(before), "after": planned}
        return {"changed": True, "statements": statements, **result, **_report(before), "diff": diff}

    def catalog(connection: Any) -> Any:
        inspection = indexes.inspect(connection, plan)
        return prisma.Built(inspection.exact, inspection.existing, inspection.duplicates_left)

    limits = prisma_cli.Limits(
        attempts=module.params["attempts"],
        deadline_s=module.params["deadline_s"],
        timeout_s=module.params["prisma_timeout_s"],
        lock_timeout_ms=module.params["lock_timeout_ms"],
    )
    if result["repaired"]:
        with connect(login_of(module), **timeouts_of(module)) as connection:
            prisma.mark_rolled_back(connection, plan.schema, plan.migration, before.existing)
    with connect(login_of(module), **timeouts_of(module), autocommit=True) as connection:
        watch = Watch(connection, plan.schema, sorted({index.table for index in plan.indexes}))
        deployed = prisma_cli.deploy(
            login_of(module),
            plan,
            release,
            limits,
            catalog=catalog,
            watch=watch,
            environment_path=module.params["environment_path"],
        )
    after = _inspect(module, plan)
    indexes.require_exact(after, plan)
    return {
        "changed": True,
        "statements": statements,
        **result,
        "history": deployed.verdict.verdict,
        "attempts": deployed.attempts,
        "seconds": deployed.seconds,
        "write_pause_ms": watch.write_pause_ms,
        **_report(after),
        "diff": {"before": _definitions(before), "after": _definitions(after)},
    }


def _absent(module: AnsibleModule, plan: Any) -> dict[str, Any]:
    from ansible.module_utils.at_most_one import indexes
    from ansible.module_utils.at_most_one.database import connect

    before = _inspect(module, plan)
    deadline_ms = module.params["deadline_s"] * 1000
    with connect(login_of(module), lock_timeout_ms=0, statement_timeout_ms=deadline_ms, autocommit=True) as connection:
        statements = indexes.drop(connection, plan, before, check=module.check_mode)
    after = before if module.check_mode else _inspect(module, plan)
    if not module.check_mode:
        indexes.require_absent(after, plan)
    gone = "".join(
        f"{found.definition};\n" for found in before.verdicts if found.definition and found.verdict == "unexpected"
    )
    return {
        "changed": bool(statements),
        "statements": statements,
        **_report(after),
        "diff": {"before": _definitions(before), "after": gone},
    }


def main() -> None:
    """Entry point."""
    run(
        {
            **LOGIN_SPEC,
            **PLAN_SPEC,
            "state": {"type": "str", "choices": ["verified", "present", "absent"], "default": "verified"},
            "fail": {"type": "bool", "default": True},
            "strategy": {"type": "str", "choices": ["prisma"], "default": "prisma"},
            "release_path": {"type": "path"},
            "environment_path": {"type": "str"},
            "attempts": {"type": "int", "default": 5},
            "deadline_s": {"type": "int", "default": 300},
            "prisma_timeout_s": {"type": "int", "default": 180},
        },
        act,
        required_if=[("state", "present", ("release_path",))],
    )


if __name__ == "__main__":
    main()
