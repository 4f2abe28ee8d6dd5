#!/usr/bin/python
"""Ansible module: what Prisma's history really says of the plan's migration, and its one repair."""

from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_history
short_description: Read Prisma's migration history for what it means, and mark a migration rolled back
description:
  - Reads C(_prisma_migrations) in the plan's schema, compares it with the release's migrations and with the catalog,
    and gives one verdict with one repair.
  - A failed row stops every later C(prisma migrate deploy) with P3009. An applied row without its indexes makes Prisma
    say that nothing is pending. Both are seen here.
options:
  state:
    description:
      - V(read) changes nothing.
      - V(rolled_back) sets C(rolled_back_at) on the rows of the plan's migration, so that the next C(prisma migrate
        deploy) applies it again. It refuses while a planned index exists and while a migration runs.
    type: str
    choices: [read, rolled_back]
    default: read
  release_path:
    description:
      - The release whose C(prisma/migrations) the history is compared with.
      - Without it, edited and earlier migrations stay unseen.
    type: path
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.run
attributes:
  check_mode:
    support: full
    description: Says which rows would be marked, planned indexes that are still there included in the answer.
  diff_mode:
    support: full
    description: Shows the migration's rows before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read what Prisma's history says of the plan's migration
  prisma_history:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    release_path: /var/www/aedpics.releases/3f616e0
  register: prisma_state

- name: Ensure that the next deployment applies the migration again
  prisma_history:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: rolled_back
"""

RETURN = r"""
verdict:
  description:
    - One of absent_table, pending, applied, applied_without_indexes, failed, failed_with_indexes, rolled_back, edited,
      ahead, earlier_pending, earlier_failed. docs/prisma-history.md says how each is recognised and repaired.
    - With O(state=rolled_back), only rolled_back or pending.
  returned: success
  type: str
  sample: failed
repair:
  description: The one next step that this verdict asks for; begins with "none" where there is none.
  returned: O(state=read)
  type: str
  sample: >-
    every deploy by hand stops with P3009; the migrate phase marks the row rolled back by itself once nothing of the
    migration is there, then applies it again.
needs_a_person:
  description: Whether no phase of a deployment does that.
  returned: O(state=read)
  type: bool
  sample: false
pending:
  description: The migrations that C(prisma migrate deploy) would apply, in its order.
  returned: O(state=read)
  type: list
  elements: str
  sample: [20251110_add_partial_unique_indexes]
blocking:
  description: Other migrations whose failure stops every deploy.
  returned: O(state=read)
  type: list
  elements: str
  sample: []
row:
  description: The last attempt at the plan's migration; C(logs) are its first lines, without values.
  returned: O(state=read), when there was one
  type: dict
  sample:
    id: 5a2cf2a4-3f3e-4c0e-8a54-2d7e6f0d1c11
    checksum: 0f1e...
    started_at: "2025-11-10T05:30:00+00:00"
    finished_at:
    rolled_back_at:
    applied_steps_count: 0
    logs: ["Database error code: 55P03"]
indexes_exact:
  description: Whether the catalog holds exactly the planned indexes; empty when the verdict does not depend on them.
  returned: O(state=read)
  type: bool
  sample: false
marked:
  description: How many rows were marked, or would be.
  returned: O(state=rolled_back)
  type: int
  sample: 1
existing:
  description: The planned indexes that are there. Without check mode there are none, or the module refuses.
  returned: O(state=rolled_back)
  type: list
  elements: str
  sample: []
statements:
  description: The statement that was run, or would be, with a placeholder for its value.
  returned: O(state=rolled_back)
  type: list
  elements: str
  sample:
    - >-
      UPDATE "aedpics"."_prisma_migrations" SET rolled_back_at = now()
      WHERE migration_name = %s AND rolled_back_at IS NULL
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.at_most_one.plan import Plan, parse
from ansible.module_utils.at_most_one_entry import WRITING_SPEC, held_run, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ansible.module_utils.at_most_one.prisma.migration_history import Row


def act(module: AnsibleModule) -> dict[str, Any]:
    """Do what ``state`` says."""
    states = {"read": _read, "rolled_back": _rolled_back}
    return states[module.params["state"]](module, parse(module.params["plan"]))


def _read(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.migration import readiness

    release = module.params["release_path"]
    found = readiness.read(
        login_of(module), plan, Path(release) if release else None, check=module.check_mode, **timeouts_of(module)
    )
    verdict = found.verdict
    return {
        "changed": False,
        "verdict": verdict.verdict,
        "repair": found.repair,
        "needs_a_person": found.needs_a_person,
        "pending": list(verdict.pending),
        "blocking": list(verdict.failed),
        "row": _row(module, verdict.row) if verdict.row else None,
        "indexes_exact": found.indexes_exact,
    }


def _row(module: AnsibleModule, row: Row) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.prisma.output import first_lines, scrub

    fields = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in asdict(row).items()}
    return {**fields, "logs": first_lines(scrub(row.logs or "", login_of(module)))}


def _rolled_back(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.migration import take_back
    from ansible.module_utils.at_most_one.postgres.connection import connect

    with held_run(module) as hold, connect(login_of(module), **timeouts_of(module)) as connection:
        marked = take_back.mark_history(connection, plan, check=module.check_mode, hold=hold)
    return {
        "changed": bool(marked.rows),
        "verdict": "rolled_back" if marked.rows else "pending",
        "marked": len(marked.rows),
        "existing": list(marked.existing),
        "statements": list(marked.statements),
        "diff": marked.diff(plan.migration),
    }


def main() -> None:
    """Entry point."""
    run(
        {
            **WRITING_SPEC,
            "state": {"type": "str", "choices": ["read", "rolled_back"], "default": "read"},
            "release_path": {"type": "path"},
        },
        act,
    )


if __name__ == "__main__":
    main()
