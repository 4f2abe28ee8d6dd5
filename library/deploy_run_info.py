#!/usr/bin/python
"""Ansible module: read the journal of deployments, and how old the archive is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_run_info
short_description: Read the last runs of the journal
description:
  - Reads the journal that M(deploy_run) keeps. There are no runs where nothing was ever deployed.
options:
  run_id:
    description: Only this run.
    type: str
  plan:
    description: Only the runs of this plan.
    type: dict
  limit:
    description: How many runs are returned at most.
    type: int
    default: 20
  keep_days:
    description: For how many days archived rows are kept, to return RV(archive). V(0) is for ever.
    type: int
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read the last runs of every plan
  deploy_run_info:
    login: "{{ database_login }}"
  register: journal
"""

RETURN = r"""
runs:
  description: >-
    The last runs, newest first. C(dead_since) is set for an unfinished run whose lease has ended or whose process is
    gone. C(rows) counts its rows that are C(archived) and C(restored); the last came back at C(restored_at).
    C(error_phrase) is the first error of C(error) as a phrase, with its identifiers, for the language of whoever reads.
  returned: success
  type: list
  elements: dict
  sample: [{run_id: 20251110T053000Z-1a2b3c, outcome: deployed, dead_since: null, rows: {archived: 25, restored: 0}}]
fences:
  description: Of each write fence that no run is at work behind a phrase that names it and the command that drops it.
  returned: success
  type: list
  elements: dict
  sample: []
archive:
  description: >-
    The archived rows of every plan: their size, the age of the oldest, and what purge.yml would remove, by plan. Null
    where nothing of this release is archived yet.
  returned: with O(keep_days)
  type: dict
  sample:
    keep_days: 90
    bytes: 65536
    rows: 50
    oldest_days: 120.4
    overdue: [{plan_id: one-active-inspection-session, rows: 25, runs: 1}]
"""

from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.findings import warning
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.runs import archive_age, journal, left_fences, run_error, run_status

    given = module.params
    plan_id = parse(given["plan"]).id if given["plan"] is not None else None
    with connect(login_of(module), **timeouts_of(module)) as connection:
        runs = journal.read(connection, run_id=given["run_id"], plan_id=plan_id, limit=given["limit"])
        rows = run_status.rows_of(connection, [one["run_id"] for one in runs])
        phrases = {one["run_id"]: run_error.of(one).as_data() for one in runs}
        found: dict[str, Any] = {
            "runs": [{**one, "rows": rows.get(one["run_id"]), "error_phrase": phrases[one["run_id"]]} for one in runs],
            "fences": [warning(left).as_data() for left in left_fences.read(connection)],
        }
        if given["keep_days"] is not None:
            found["archive"] = archive_age.summary(connection, given["keep_days"])
    return {"changed": False, **found}


def main() -> None:
    """Entry point."""
    run(
        {
            **LOGIN_SPEC,
            "run_id": {"type": "str"},
            "plan": {"type": "dict"},
            "limit": {"type": "int", "default": 20},
            "keep_days": {"type": "int"},
        },
        act,
    )


if __name__ == "__main__":
    main()
