#!/usr/bin/python
"""Ansible module: is this the server that the plan can be applied to, now?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: database_preflight
short_description: Check the server, the role and the tables before anything is changed
description:
  - Reads the server's version, whether it is a primary, the role's privileges, the plan's tables and columns,
    replica identity, replication lag and long transactions, and fails with every obstacle it finds, not only the first.
  - It finds out whether the connection goes through a pooler in transaction mode, which would give the locks and the
    settings of this session to others. For that it opens a second connection for an instant.
  - It reads what the run would set off by itself, triggers, rules, event triggers and foreign keys, and fails unless
    the plan names it. Then up to 5 surplus rows leave by the statements of the removal and return by those of the
    restore, in a transaction that is rolled back. It fails when one would not come back as it was, and when another
    table is written meanwhile that the plan does not name. Without surplus rows there is nothing to try.
  - It changes nothing, in check mode or not. Sequences of the archive move on.
options:
  max_transaction_age_s:
    description: Seconds; a transaction open for longer stops the run, because locks and index builds wait for it.
    type: int
    default: 60
  max_replication_lag_s:
    description: Seconds; a replica that lags further behind stops the run.
    type: int
    default: 30
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
attributes:
  check_mode:
    support: full
    description: Leaves nothing in the database.
  diff_mode:
    support: none
    description: There is no change to show.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Check the server
  database_preflight:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
"""

RETURN = r"""
facts:
  description: What was read.
  returned: success
  type: dict
  sample:
    version: "15.18"
    in_recovery: false
    replication_lag_s: 0.0
    trial:
      effects: ["trigger audit of aedpics.inspection_sessions (AFTER DELETE FOR EACH ROW: aedpics.audit)"]
      foreign_keys: []
      wrote: [aedpics.audit_log]
      rows: 5
    tables: {inspection_sessions: {kind: table, rows: 68, bytes: 81920, owned: true}}
"""


def act(module: AnsibleModule) -> dict[str, Any]:
    """Read and judge."""
    from ansible.module_utils.at_most_one.plan import parse
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.preflight import out_and_back, server_checks

    limits = server_checks.Limits(module.params["max_transaction_age_s"], module.params["max_replication_lag_s"])
    with connect(login_of(module), **timeouts_of(module)) as connection:
        plan = parse(module.params["plan"])
        facts = server_checks.read(connection, plan, limits)
        tried = asdict(out_and_back.try_out(connection, plan))
    for warning in tried.pop("warnings"):
        module.warn(warning)
    return {"changed": False, "facts": {**facts, "trial": tried}}


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            **LOGIN_SPEC,
            **PLAN_SPEC,
            "max_transaction_age_s": {"type": "int", "default": 60},
            "max_replication_lag_s": {"type": "int", "default": 30},
        },
        act,
    )


if __name__ == "__main__":
    main()
