#!/usr/bin/python
"""Ansible module: a logical backup of the planned tables, before the first row leaves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: table_backup
short_description: Dump the tables that a plan touches, and read the dump again
description:
  - Runs C(pg_dump) in custom format over the planned tables, those whose references the plan re-points, and Prisma's
    history, all as they were at one moment. Then it reads the file and compares tables and numbers of rows.
  - The file is readable by its owner only. The password is in no process list.
  - When every planned index is there and valid, no row can leave any more, and no backup is made.
  - A backup is a product of a run, not a state of the service. It never reports a change.
options:
  directory:
    description: Where the backups are kept. Created with mode 0700.
    type: path
    required: true
  run_id:
    description: The run, which names the file.
    type: str
    required: true
  keep:
    description: How many of this plan's backups stay, the new one included. The older ones are removed.
    type: int
    default: 3
  environment_path:
    description: Directories to search for C(pg_dump), C(pg_restore) and C(node) before E(PATH).
    type: str
    default: ""
  release_path:
    description:
      - The release whose Prisma is going to migrate this database. Before the backup C(prisma migrate status) is
        started there, with an E(DATABASE_URL) that leads to a port of this host. One that does not come there takes its
        address from elsewhere, and could change another database than that of the backup. The module fails then.
      - Without it, and in check mode, Prisma is not started.
    type: path
  status:
    description: What the phase is recorded as. This module itself changes nothing.
    type: str
    choices: [ok, unchanged]
    default: unchanged
  details:
    description: What else the phase is recorded with. RV(backup) is recorded as C(backup).
    type: dict
    default: {}
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.phase
attributes:
  check_mode:
    support: full
    description: Checks programs and free space, and writes and records nothing.
  diff_mode:
    support: none
    description: There is no change to show.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Back the planned tables up
  table_backup:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    directory: /var/www/aedpics.backups
    run_id: 20251110T053000Z-1a2b3c
"""

RETURN = r"""
backup:
  description: The backup.
  returned: success
  type: dict
  contains:
    needed: {description: Whether rows can still leave; without that no backup is made., type: bool}
    path: {description: "The file, in check mode the one that would be written.", type: str}
    tables: {description: "Rows in the file, by table; empty in check mode.", type: dict}
    bytes: {description: "Size of the file, in check mode of the tables.", type: int}
    seconds: {description: How long it took., type: float}
    pruned: {description: Names of the older backups that were removed., type: list, elements: str}
  sample:
    needed: true
    path: /var/www/aedpics.backups/one-active-inspection-session-20251110T053000Z-1a2b3c.dump
    tables: {aedpics.inspection_sessions: 68, aedpics.inspection_schedules: 12, aedpics._prisma_migrations: 5}
    bytes: 9216
    seconds: 0.4
    pruned: []
recorded:
  description: Whether the phase was recorded with it.
  returned: success
  type: bool
  sample: true
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import (
    LOGIN_SPEC,
    PHASE_SPEC,
    PLAN_SPEC,
    held_run,
    login_of,
    record_phase,
    run,
)
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Make it."""
    from ansible.module_utils.at_most_one.preflight import backup
    from ansible.module_utils.at_most_one.prisma import cli

    given, plan = module.params, parse(module.params["plan"])
    wanted = backup.Wanted(
        directory=Path(given["directory"]),
        name=f"{plan.id}-{given['run_id']}.dump",
        keep=given["keep"],
        search_path=given["environment_path"],
    )
    login = login_of(module)
    with held_run(module):  # a large table takes longer than a lease
        if given["release_path"] and not module.check_mode:
            cli.require_own_address(login, plan.schema, Path(given["release_path"]), given["environment_path"])
        made = backup.make(login, plan, wanted, lock_timeout_ms=given["lock_timeout_ms"], check_mode=module.check_mode)
    record_phase(module, given["status"], {**given["details"], "backup": asdict(made)})
    return {"changed": False, "backup": asdict(made), "recorded": given["phase"] is not None and not module.check_mode}


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            **LOGIN_SPEC,
            **PLAN_SPEC,
            **PHASE_SPEC,
            "directory": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "keep": {"type": "int", "default": 3},
            "environment_path": {"type": "str", "default": ""},
            "release_path": {"type": "path"},
            "status": {"type": "str", "choices": ["ok", "unchanged"], "default": "unchanged"},
            "details": {"type": "dict", "default": {}},
        },
        act,
    )


if __name__ == "__main__":
    main()
