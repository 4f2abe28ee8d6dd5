#!/usr/bin/python
"""Ansible module: is this the server that the plan can be applied to, now?"""

from __future__ import annotations

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
  - It changes nothing, in check mode or not.
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
    description: Reads only.
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
    tables: {inspection_sessions: {kind: table, rows: 68, bytes: 81920, owned: true}}
"""


def act(module: AnsibleModule) -> dict[str, Any]:
    """Read and judge."""
    from ansible.module_utils.at_most_one import preflight
    from ansible.module_utils.at_most_one.database import connect
    from ansible.module_utils.at_most_one.plan import parse

    limits = preflight.Limits(module.params["max_transaction_age_s"], module.params["max_replication_lag_s"])
    with connect(login_of(module), **timeouts_of(module)) as connection:
        return {"changed": False, "facts": preflight.read(connection, parse(module.params["plan"]), limits)}


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
