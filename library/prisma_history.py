#!/usr/bin/python
"""Ansible module: mark the plan's migration rolled back in Prisma's history."""

from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_history
short_description: Mark the plan's migration rolled back in Prisma's history
description:
  - Sets C(rolled_back_at) on the rows of the plan's migration in C(_prisma_migrations), so that the next C(prisma
    migrate deploy) applies it again. M(prisma_history_info) says whether that is what repairs the history.
  - It refuses while a planned index exists and while a migration runs.
options:
  state:
    description: V(rolled_back) marks each row of the migration that is not marked yet.
    type: str
    choices: [rolled_back]
    required: true
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
- name: Ensure that the next deployment applies the migration again
  prisma_history:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: rolled_back
"""

RETURN = r"""
verdict:
  description: What the history says then, V(rolled_back), or V(pending) where there was no row to mark.
  returned: success
  type: str
  sample: rolled_back
marked:
  description: How many rows were marked, or would be.
  returned: success
  type: int
  sample: 1
existing:
  description: The planned indexes that are there. Without check mode there are none, or the module refuses.
  returned: success
  type: list
  elements: str
  sample: []
statements:
  description: The statement that was run, or would be, with a placeholder for its value.
  returned: success
  type: list
  elements: str
  sample:
    - >-
      UPDATE "aedpics"."_prisma_migrations" SET rolled_back_at = now()
      WHERE migration_name = %s AND rolled_back_at IS NULL
"""

from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import WRITING_SPEC, held_run, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Mark the rows, or say which ones would be."""
    from ansible.module_utils.at_most_one.migration import take_back
    from ansible.module_utils.at_most_one.postgres.connection import connect

    plan = parse(module.params["plan"])
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
    run({**WRITING_SPEC, "state": {"type": "str", "choices": ["rolled_back"], "required": True}}, act)


if __name__ == "__main__":
    main()
