#!/usr/bin/python
"""Ansible module: how the indexes of the planned tables are used, and what that suggests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: index_use
short_description: Read how the indexes of the planned tables are used, and what that suggests
description:
  - Reads scans, size, share of blocks found in memory and an estimate of bloat for every index of the planned tables.
  - The figures are the server's statistics. They count from the last reset of its statistics, and on this server alone.
options:
  unused_days:
    description: An index without a scan in so many days of statistics is called unused.
    type: float
    default: 30
  bloat_percent:
    description: From this estimate on, an index of at least 10 MiB is worth rebuilding.
    type: float
    default: 50
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
attributes:
  check_mode:
    support: full
    description: Only ever reads.
  diff_mode:
    support: none
    description: It changes nothing.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read how the indexes are used
  index_use:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
"""

RETURN = r"""
indexes:
  description:
    - Every index of the planned tables. C(advice) is V(rule) (it enforces uniqueness and stays, used or not), V(fine),
      V(wait) (no scan, but the statistics are young), V(unused), V(reindex) (bloated) or V(cold) (read from disk).
    - C(hit_percent) and C(bloat_percent) are null where there is no basis for them.
  returned: always
  type: list
  elements: dict
  sample:
    - name: idx_inspection_schedules_active
      table: inspection_schedules
      planned: true
      scans: 1204
      bytes: 65536
      hit_percent: 99.8
      bloat_percent: 12
      days: 31.2
      advice: fine
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.indexes import usage_stats
    from ansible.module_utils.at_most_one.postgres.connection import connect

    thresholds = usage_stats.Thresholds(module.params["unused_days"], module.params["bloat_percent"])
    with connect(login_of(module), **timeouts_of(module)) as connection:
        found = usage_stats.read(connection, parse(module.params["plan"]), thresholds)
        connection.rollback()
    return {"changed": False, "indexes": [asdict(one) for one in found]}


def main() -> None:
    """Entry point."""
    run(
        {
            **LOGIN_SPEC,
            **PLAN_SPEC,
            "unused_days": {"type": "float", "default": 30.0},
            "bloat_percent": {"type": "float", "default": 50.0},
        },
        act,
    )


if __name__ == "__main__":
    main()
