#!/usr/bin/python
"""Ansible module: read what a look of the monitor needs to know of the database, part by part."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitor_database_info
short_description: Read the indexes, the fence, Prisma's history, the use of the indexes and the journal
description:
  - What cannot be read does not end it. In the place of that part stands its error, which M(monitor_report) makes a
    finding.
  - It writes nothing.
options:
  release_path:
    description:
      - The release on this host whose migrations Prisma's history is compared with. Without it RV(history) has the
        verdict C(not_kept), as where the indexes are built without Prisma.
    type: path
  unused_days:
    description: Days of statistics without a scan after which an index that enforces nothing is called unused.
    type: float
    default: 30
  bloat_percent:
    description: Estimated percent of pages that an index's rows do not need, from which on rebuilding it is advised.
    type: float
    default: 50
  keep_days:
    description: Days for which archived rows are kept; V(0) for ever.
    type: int
    required: true
  limit:
    description: How many runs of the journal are read, newest first.
    type: int
    default: 100
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read the database
  monitor_database_info:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    release_path: /var/www/aedpics
    keep_days: 90
"""

RETURN = r"""
verified:
  description: The planned indexes and the duplicates, as M(index_set) returns them, or an error with C(msg).
  returned: always
  type: dict
  sample: {indexes: [], exact: true, duplicates_left: 0, summary: 3 of 3 indexes present}
fence:
  description: The write fence, as M(write_fence_info) returns it, or an error.
  returned: always
  type: dict
  sample: {state: lowered, indexes: [], statements: []}
history:
  description:
    - Prisma's history on the plan's migration, as M(prisma_history_info) returns it, or an error. C(against) are the
      statements, by C(number), C(migration) and the index's C(name), in migrations that are yet to be applied, which
      would drop, build or rename a planned index.
  returned: always
  type: dict
  sample: {verdict: applied, repair: null, against: []}
use:
  description:
    - The C(indexes) of the planned tables, by use since the server's statistics were reset, on the primary alone, or an
      error. Each has C(name), C(table), C(planned), C(scans), C(bytes), C(days), C(hit_percent), C(bloat_percent) and
      an C(advice) (rule, fine, wait, unused, reindex, cold).
  returned: always
  type: dict
  sample: {indexes: []}
journal:
  description:
    - The newest runs and the archive, as M(deploy_run_info) returns them, or an error. C(fences) are findings of write
      fences that no run is at work behind, without that of the plan.
  returned: always
  type: dict
  sample: {runs: [], archive: null, fences: []}
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one.plan import Plan, parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, failed_result, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    plan = parse(module.params["plan"])
    parts = {"verified": _verified, "fence": _fence, "history": _history, "use": _use, "journal": _journal}
    return {"changed": False, **{part: _read(read, module, plan) for part, read in parts.items()}}


def _read(read: Callable[[AnsibleModule, Plan], dict[str, Any]], module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    try:
        return read(module, plan)
    except Exception as error:
        failed = failed_result(error)
        if failed is None:
            raise
        return failed


def _verified(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.indexes import verification
    from ansible.module_utils.at_most_one.postgres.connection import connect

    with connect(login_of(module), **timeouts_of(module)) as connection:
        found = verification.inspect(connection, plan)
        connection.rollback()
    return {
        "indexes": [asdict(verdict) for verdict in found.verdicts],
        "exact": found.exact,
        "duplicates_left": found.duplicates_left,
        "summary": found.summary(),
        "phrases": {"summary": found.summary().as_data()},
    }


def _fence(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.fence import write_fence
    from ansible.module_utils.at_most_one.postgres.connection import connect

    with connect(login_of(module), **timeouts_of(module)) as connection:
        found, indexes = write_fence.query(connection, plan)
    return {"state": found.state, "indexes": indexes, "statements": list(found.statements)}


def _history(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.migration import readiness

    if module.params["release_path"] is None:
        return {"verdict": "not_kept", "repair": None, "against": []}
    release = Path(module.params["release_path"])
    found = readiness.read(login_of(module), plan, release, **timeouts_of(module))
    return {"verdict": found.verdict.verdict, "repair": found.repair, "against": list(found.against)}


def _use(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.indexes import usage_stats
    from ansible.module_utils.at_most_one.postgres.connection import connect

    thresholds = usage_stats.Thresholds(module.params["unused_days"], module.params["bloat_percent"])
    with connect(login_of(module), **timeouts_of(module)) as connection:
        found = usage_stats.read(connection, plan, thresholds)
        connection.rollback()
    return {"indexes": [asdict(one) for one in found]}


def _journal(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.runs import archive_age, journal, left_fences, run_status

    with connect(login_of(module), **timeouts_of(module)) as connection:
        runs = journal.read(connection, limit=module.params["limit"])
        rows = run_status.rows_of(connection, [one["run_id"] for one in runs])
        archive = archive_age.summary(connection, module.params["keep_days"])
        fences = [one.as_data() for one in left_fences.read(connection, plan)]
    shown = [{**one, "rows": rows.get(one["run_id"])} for one in runs]
    return {"runs": shown, "archive": archive, "fences": fences}


def main() -> None:
    """Entry point."""
    run(
        {
            **LOGIN_SPEC,
            **PLAN_SPEC,
            "release_path": {"type": "path"},
            "unused_days": {"type": "float", "default": 30.0},
            "bloat_percent": {"type": "float", "default": 50.0},
            "keep_days": {"type": "int", "required": True},
            "limit": {"type": "int", "default": 100},
        },
        act,
    )


if __name__ == "__main__":
    main()
