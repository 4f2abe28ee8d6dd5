#!/usr/bin/python
"""Ansible module: raise or lower the write fence of a plan."""

from __future__ import annotations

DOCUMENTATION = r"""
module: write_fence
short_description: Keep new duplicates out until the unique index can
description:
  - Builds a unique index like the plan's own from which the surplus rows are exempt, so that no statement and no
    isolation level can add a duplicate. The rows that are exempt can be updated, closed and removed.
  - Raise it before the clean-up, lower it once the unique index is valid. M(write_fence_info) reads it.
  - Who would add a duplicate gets C(23505) with the key's columns in DETAIL, as with the planned index; the name is
    C(at_most_one_fence_) and twelve digits, until it is lowered.
  - The list of exempt rows has 200 rows at most, and before PostgreSQL 18 it has to fit on a page of the catalog. With
    more surplus rows nothing is changed, and RV(surplus_first) says so. Remove them, then raise it.
  - The triggers that an older release of this project has left as its fence are dropped in either case.
version_added: "1.0.0"
author:
  - the at-most-one maintainers (@at-most-one)
extends_documentation_fragment: [at_most_one.login, at_most_one.plan, at_most_one.run]
options:
  state:
    description:
      - V(raised) waits for the writers in flight, and replaces a fence that is damaged, of a changed plan, or that
        exempts rows which are not to leave any more. Readers never wait. New writers queue behind it for
        O(lock_timeout_ms) at most per attempt, and then for the build, unless it is built concurrently.
      - V(lowered) drops the index concurrently, and waits O(lock_timeout_ms) times O(lock_attempts) at most for who
        uses the table. Nobody waits for it. One that cannot be dropped by then is no failure, but a warning that names
        who is in the way; the next call drops it.
    type: str
    choices: [raised, lowered]
    required: true
  lock_attempts:
    description: How often the lock is asked for, with a random pause in between, before the module gives up.
    type: int
    default: 10
  max_write_pause_ms:
    description:
      - Milliseconds that writers may wait for the build. Where the forecast is longer, the index is built concurrently.
    type: int
    default: 500
  deadline_s:
    description: Seconds that a concurrent build may take, its waits for older transactions included.
    type: int
    default: 300
attributes:
  check_mode:
    description: Reports the statements that would run and runs none of them.
    support: full
  diff_mode:
    description: Shows the fence's state before and after.
    support: full
"""

EXAMPLES = r"""
- name: Ensure that the write fence is up
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
    - V(partial) means an index that is not valid or of a changed plan, or triggers of an older release.
  returned: success
  type: str
  sample: raised
before:
  description: The fence before this task.
  returned: success
  type: str
  sample: lowered
statements:
  description: The SQL that ran, or in check mode would run, with the number of the exempt rows for their list.
  returned: success
  type: list
  elements: str
  sample: [LOCK TABLE "aedpics"."inspection_sessions" IN SHARE ROW EXCLUSIVE MODE]
attempts:
  description: How often the lock was asked for, or a concurrent build begun; 0 when there was nothing to do.
  returned: success
  type: int
  sample: 1
exempt:
  description: Number of rows that the fence lets be.
  returned: success
  type: int
  sample: 25
surplus_first:
  description: Whether nothing was changed because the surplus rows are too many for the fence's list.
  returned: success
  type: bool
  sample: false
concurrent:
  description: Whether the index was built concurrently.
  returned: success
  type: bool
  sample: false
details:
  description: On failure, what it was about; C(blockers) lists the sessions that held the lock.
  returned: failure
  type: dict
  sample: {attempts: 10, blockers: [{pid: 4711, user: aedpics_admin, state: idle in transaction, age_s: 95}]}
"""

from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import (
    WRITING_SPEC,
    fence_result,
    held_run,
    login_of,
    lower_fence,
    require_attempts,
    run,
    timeouts_of,
)
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Do what ``state`` says."""
    from ansible.module_utils.at_most_one.fence import write_fence
    from ansible.module_utils.at_most_one.postgres.connection import connect

    wanted = module.params
    plan = parse(wanted["plan"])
    require_attempts(wanted["lock_attempts"])
    if wanted["state"] == "lowered":
        return lower_fence(
            module, plan, lock_timeout_ms=wanted["lock_timeout_ms"], lock_attempts=wanted["lock_attempts"]
        )
    with held_run(module) as hold, connect(login_of(module), **timeouts_of(module)) as connection:
        limits = {name: wanted[name] for name in ("lock_attempts", "max_write_pause_ms", "deadline_s")}
        change = write_fence.raise_fence(connection, plan, **limits, check=module.check_mode, hold=hold)
    return fence_result(module, change)


def main() -> None:
    run(
        {
            **WRITING_SPEC,
            "state": {"type": "str", "choices": ["raised", "lowered"], "required": True},
            "lock_attempts": {"type": "int", "default": 10},
            "max_write_pause_ms": {"type": "int", "default": 500},
            "deadline_s": {"type": "int", "default": 300},
        },
        act,
    )


if __name__ == "__main__":
    main()
