#!/usr/bin/python
"""Ansible module: remove archived rows and backups that are past their time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: archive_purge
short_description: Remove archived rows and backups that no rollback needs any more
description:
  - Removes what runs of O(plan) have archived more than O(keep_days) ago, and the backups of the same runs on this
    host.
  - Never of a run that rollback.yml may still take back, of one that is open, or of one whose rows are not all back.
  - Holds the plan as a run does, so that none is at work beside it. It takes over a purge that has died, and no other
    run.
  - Rows go in batches. Each commits together with its count in the journal, in the phase C(purged) of the run whose
    rows they were. The journal itself stays.
  - With nothing to remove it opens no run.
options:
  environment:
    description: Name of the environment. Backups of the runs of another one are left alone.
    type: str
    required: true
  who:
    description: Who purges, such as a login name. The journal keeps it.
    type: str
    required: true
  controller:
    description: Host name of the machine that runs ansible-playbook, as C(hostname) prints it.
    type: str
    required: true
  controller_pid:
    description: Process id of ansible-playbook there.
    type: int
    required: true
  takeover:
    description: Take the plan from a purge that is known to be dead although its lease still runs.
    type: bool
    default: false
  lease_minutes:
    description: For how long after its last sign of life this purge may not be replaced.
    type: int
    default: 30
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.purge
attributes:
  check_mode:
    support: full
    description: Lists the same, removes nothing, and fails where another run holds the plan.
  diff_mode:
    support: full
    description: Shows the runs whose rows go, with their number, and the backups.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Ensure that nothing is archived for longer than it is needed
  archive_purge:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    keep_days: 90
    confirmed: true
    environment: production
    who: "{{ lookup('env', 'USER') }}"
    controller: "{{ lookup('pipe', 'hostname') }}"
    controller_pid: "{{ lookup('pipe', 'echo $PPID') }}"
"""

RETURN = r"""
runs:
  description:
    - The plan's runs, newest first. C(why) a run stays is C(open), C(rollback) (rollback.yml takes it back),
      C(left_behind) or C(half_restored) (a rollback has not put back all of its rows), C(every_run) (no deployment is
      left to take back, so that rollback.yml puts back the rows of every run), C(never) (O(keep_days) is 0), C(young);
      empty where it goes.
    - C(purged) is what an earlier purge has removed of it.
  returned: success
  type: list
  elements: dict
  sample:
    - run_id: 20251110T053000Z-1a2b3c
      plan_id: one-active-inspection-session
      environment: production
      outcome: deployed
      started_at: "2025-11-10T05:30:00.000Z"
      rows: 25
      repointed: 0
      bytes: 14200
      age_days: 120.4
      why: ""
      purged: null
files:
  description:
    - The backups of the runs that go, on this host. C(why) one stays is C(not_a_file), C(owner), C(writable) (others
      may have written it) or C(changed) (it is not what its run has recorded); empty where it goes.
  returned: success
  type: list
  elements: dict
  sample:
    - run_id: 20251110T053000Z-1a2b3c
      path: /var/www/aedpics.backups/one-active-inspection-session-20251110T053000Z-1a2b3c.dump
      bytes: 9216
      age_days: 120.4
      why: ""
past:
  description: The runs of O(environment) that are past their time. What else they have left may go.
  returned: success
  type: list
  elements: str
  sample: [20251110T053000Z-1a2b3c]
removed:
  description: How many archived rows were removed; in check mode, and without O(confirmed), how many would be.
  returned: success
  type: int
  sample: 25
purge_run:
  description: The run that the journal has for this; empty where nothing was removed.
  returned: success
  type: str
  sample: 20260310T053000Z-4d5e6f
"""

from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, PURGE_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """List, and remove."""
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.runs import journal, purge
    from ansible.module_utils.at_most_one.runs.controllers import Controller

    given, plan = module.params, parse(module.params["plan"])
    if given["confirmed"]:
        opening = journal.Opening(
            plan=plan,
            environment=given["environment"],
            who=given["who"],
            controller=Controller(given["controller"], given["controller_pid"]),
            lease_minutes=given["lease_minutes"],
        )
        options = {"takeover": given["takeover"], "check": module.check_mode, "timeouts": timeouts_of(module)}
        done = purge.purge(login_of(module), opening, given["keep_days"], **options)
    else:
        with connect(login_of(module), **timeouts_of(module)) as connection:
            done = purge.Purged(purge.look(connection, plan.id, given["environment"], given["keep_days"]))
    found, run_id = done.found, done.run_id
    lines = [f"{one.run_id}: {one.rows} archived rows, {one.repointed} of references" for one in found.runs if one.goes]
    lines += [one.path for one in found.backups if not one.why]
    return {
        "changed": given["confirmed"] and found.changes,
        "runs": [one.public() for one in found.runs],
        "files": [one.public() for one in found.backups],
        "past": found.past(given["environment"]),
        "removed": sum(one.rows for one in found.runs if one.goes),
        "purge_run": run_id,
        "diff": {"before": "".join(f"{line}\n" for line in lines), "after": ""} if given["confirmed"] else {},
    }


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            **LOGIN_SPEC,
            **PLAN_SPEC,
            **PURGE_SPEC,
            "environment": {"type": "str", "required": True},
            "who": {"type": "str", "required": True},
            "controller": {"type": "str", "required": True},
            "controller_pid": {"type": "int", "required": True},
            "takeover": {"type": "bool", "default": False},
            "lease_minutes": {"type": "int", "default": 30},
        },
        act,
    )


if __name__ == "__main__":
    main()
