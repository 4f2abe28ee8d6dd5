#!/usr/bin/python
# ruff: noqa: E402 (Ansible wants the documentation before the imports)
"""Ansible module: raise, lower or query the write fence of a plan."""

from __future__ import annotations

DOCUMENTATION = r"""
module: write_fence
short_description: Keep new duplicates out until the unique index can
description:
  - Raises two row triggers on the plan's table that refuse a new duplicate with the error that the plan's unique index
    will give, C(23505) with the index's name as constraint. Rows that are duplicates already can be updated and closed.
  - Raise it before the clean-up, lower it once the unique index is valid.
  - It warns when no index begins with the rule's key, since each new row inside the rule then scans the table.
  - C(INSERT ... ON CONFLICT DO NOTHING) without a target gets the error as well, while the index will skip the row.
  - The index remains the judge; a writer under REPEATABLE READ can pass the fence.
version_added: "1.0.0"
author:
  - the at-most-one maintainers (@at-most-one)
extends_documentation_fragment: [at_most_one.login, at_most_one.plan, at_most_one.run]
options:
  state:
    description:
      - V(raised) waits for the writers in flight and repairs a fence with a missing or disabled trigger. While it waits
        for its lock, new writers queue behind it, for O(lock_timeout_ms) at most per attempt.
      - V(lowered) drops the triggers. While it waits for its lock, new readers queue behind it as well.
      - V(queried) only looks.
    type: str
    choices: [raised, lowered, queried]
    required: true
  lock_attempts:
    description: How often the lock is asked for, with a random pause in between, before the module gives up.
    type: int
    default: 10
attributes:
  check_mode:
    description: Reports the statements that would run and runs none of them.
    support: full
  diff_mode:
    description: Shows the fence's state before and after.
    support: full
"""

EXAMPLES = r"""
- name: Ensure that no new duplicate can be born
  write_fence:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: raised
    run_id: 20251110T053000Z-1a2b3c
    lock_timeout_ms: 500

- name: Ensure that the fence is lowered, now that the index keeps the rule
  write_fence:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: lowered
"""

RETURN = r"""
state:
  description:
    - The fence after this task; in check mode, as it would be.
    - V(partial) means that a trigger is missing or disabled, or that the function is not the one of this plan.
  returned: success
  type: str
  sample: raised
before:
  description: The fence before this task.
  returned: success
  type: str
  sample: lowered
statements:
  description: The SQL that ran; in check mode, that would run.
  returned: success
  type: list
  elements: str
  sample: [LOCK TABLE "aedpics"."inspection_sessions" IN SHARE ROW EXCLUSIVE MODE]
attempts:
  description: How often the lock was asked for; 0 when there was nothing to do.
  returned: success
  type: int
  sample: 1
details:
  description: On failure, what it was about; C(blockers) lists the sessions that held the lock.
  returned: failure
  type: dict
  sample: {attempts: 10, blockers: [{pid: 4711, user: aedpics_admin, state: idle in transaction, age_s: 95}]}
"""

from typing import Any

from ansible.module_utils.at_most_one_entry import WRITING_SPEC, held_run, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.database import connect
    from ansible.module_utils.at_most_one.errors import OperatorError
    from ansible.module_utils.at_most_one.fence import fence_state, lower_fence, raise_fence
    from ansible.module_utils.at_most_one.plan import parse

    plan = parse(module.params["plan"])
    state, lock_attempts = module.params["state"], module.params["lock_attempts"]
    if lock_attempts < 1:
        raise OperatorError(
            f"lock_attempts is {lock_attempts}.", expected="1 or more.", next_step="correct lock_attempts."
        )
    with held_run(module) as hold, connect(login_of(module), **timeouts_of(module)) as connection:
        if state == "queried":
            seen = fence_state(connection, plan)
            return {"changed": False, "state": seen, "before": seen, "statements": [], "attempts": 0}
        change_fence = raise_fence if state == "raised" else lower_fence
        change = change_fence(connection, plan, lock_attempts=lock_attempts, check=module.check_mode, hold=hold)
    for warning in change.warnings:
        module.warn(warning)
    return {
        "changed": change.before != change.state,
        "state": change.state,
        "before": change.before,
        "statements": change.statements,
        "attempts": change.attempts,
        "diff": {"before": f"write fence: {change.before}\n", "after": f"write fence: {change.state}\n"},
    }


def main() -> None:
    run({**WRITING_SPEC, "state": {"type": "str", "choices": ["raised", "lowered", "queried"],
        "required": True}, "lock_attempts": {"type": "int", "default": 10}}, act)  # fmt: skip


if __name__ == "__main__":
    main()
