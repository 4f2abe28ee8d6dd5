#!/usr/bin/python
"""Ansible module: how far the run that is at work is, what it waits for, and what it was asked."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_control_info
short_description: Read how far the run that is at work is, what it waits for, and what it was asked
description:
  - Reads the journal of O(plan), and nothing else. What is said of a step is as of RV(run.at), which the run renews
    every two seconds while it works in steps.
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read how far the run is
  run_control_info:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
  register: found
"""

RETURN = r"""
run:
  description: The open run of the plan, or else the last one; empty where there was none.
  returned: always
  type: dict
  contains:
    run_id: {description: The run., type: str}
    plan_id: {description: Its plan., type: str}
    environment: {description: Its environment., type: str}
    who: {description: Who has started it., type: str}
    controller: {description: The machine from which., type: str}
    started_at: {description: "Since when, in UTC.", type: str}
    finished_at: {description: Until when; null while it is open., type: str}
    outcome: {description: How it ended; null while it is open., type: str}
    is_open: {description: Whether it is open., type: bool}
    seconds: {description: How long it has taken so far., type: int}
    lease_until: {description: Until when nobody may take it over., type: str}
    dead_since: {description: "Since when it is dead, as M(deploy_run) has it; null while it lives.", type: str}
    reads_requests: {description: "Whether it reads requests; a rollback and a purge read none.", type: bool}
    phase: {description: "The phase that is at work, or where it has failed.", type: str}
    failed_phase: {description: "The phase that has failed, after which a run goes back or ends.", type: str}
    unit: {description: "What is counted, rows, indexes or hosts; null in a phase without steps.", type: str}
    done: {description: How many of them are done., type: int}
    total: {description: Of how many., type: int}
    at: {description: The moment of these figures., type: str}
    rate_per_s: {description: Steps for each second of work; time that it waited does not count., type: float}
    left_s: {description: The seconds that the rest takes at that rate., type: int}
    waiting:
      description:
        - Null while it works. C(for) (V(pause) or V(hold_cutover)), C(since), C(seconds), C(asked_by) with C(who),
          C(controller) and C(at), and the action by which it is C(lifted_by).
      type: dict
    requests:
      description: Everything that it was asked, in order; C(in_force) as long as nobody has lifted it.
      type: list
      elements: dict
  sample:
    run_id: 20251110T053000Z-1a2b3c
    phase: cleanup
    unit: rows
    done: 120000
    total: 300000
    rate_per_s: 2140.5
    left_s: 84
    waiting: null
    requests: []
"""

from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Read."""
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.runs import control_status

    with connect(login_of(module), **timeouts_of(module)) as connection:
        return {"changed": False, "run": control_status.read(connection, parse(module.params["plan"]).id)}


def main() -> None:
    """Arguments in, core called, result out."""
    run({**LOGIN_SPEC, **PLAN_SPEC}, act)


if __name__ == "__main__":
    main()
