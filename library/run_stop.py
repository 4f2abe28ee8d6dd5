#!/usr/bin/python
"""Ansible module: end a run that has failed, in the journal and in words."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_stop
short_description: Record the phase that failed, settle the write fence and close the run
description:
  - An action that calls M(deploy_run), M(deploy_changes_info) and M(write_fence)
    on the host that the task is for. As a module it can only refuse.
  - It never fails. What cannot be done or read is a part of RV(error), behind the first error, because way back, report
    and message still have to come.
options:
  state:
    description:
      - V(begun) records O(phase) as failed and reads what the run has reached.
      - V(ended) lowers a write fence behind which no row has left, and closes the run.
    type: str
    choices: [begun, ended]
    required: true
  run_id:
    description: The run.
    type: str
    required: true
  plan:
    description: Its plan.
    type: dict
    required: true
  phase:
    description: The phase that failed, with O(state=begun).
    type: str
  error:
    description: The first error, with O(state=begun).
    type: str
  findings:
    description: What it consists of, in C(report_language) and in English, as a module has handed it over.
    type: list
    elements: dict
    default: []
  recorded_findings:
    description: The same as it was handed over, for the journal, which is read in any language later.
    type: list
    elements: dict
    default: []
  afterwards:
    description: What O(error) has behind the first error already, with O(state=begun), as RV(afterwards).
    type: list
    elements: dict
    default: []
  earlier:
    description: See O(deploy_run#module:earlier).
    type: list
    elements: dict
    default: []
  may_go_back:
    description: Whether the run takes back what it has reached, unless the journal could not be written.
    type: bool
    default: false
  removed:
    description: How many rows the run has removed by its own account.
    type: int
    default: 0
  built:
    description: Whether it has applied the migration, by its own account.
    type: bool
    default: false
  fence_raised:
    description: Whether it has raised the write fence, by its own account.
    type: bool
    default: false
  hosts:
    description: The hosts of the run.
    type: list
    elements: str
    default: []
  links:
    description: See O(rollback_plan#module:links).
    type: list
    elements: dict
    default: []
  reloads:
    description: See O(rollback_plan#module:reloads).
    type: list
    elements: dict
    default: []
  begun:
    description: What this returned with O(state=begun).
    type: dict
    default: {}
  way:
    description: What M(rollback_plan) has decided; empty where nothing was to be taken back.
    type: dict
    default: {}
  done:
    description: What M(database_rollback) has answered; empty where it was not called.
    type: dict
    default: {}
  back_error:
    description: Why the way back failed, as a phrase; empty where it did not.
    type: dict
    default: {}
  paths:
    description: What C(stat) says of the application's path after a way back that failed, by host (C(item)).
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - at_most_one.login
attributes:
  check_mode:
    support: full
    description: Records and closes nothing.
  diff_mode:
    support: none
    description: A log has no before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Record the failed phase, and read what the run has reached
  run_stop:
    state: begun
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    run_id: 20251110T053000Z-1a2b3c
    phase: cleanup
    error: 8 rows are to leave. Expected at most 4.
  register: begun
"""

RETURN = r"""
outcome:
  description: V(stopped), or V(rolled_back) where the run has taken itself back.
  returned: always
  type: str
  sample: stopped
failed_phase:
  description: O(phase).
  returned: always
  type: str
  sample: cleanup
error:
  description: The first error, and on lines of their own what became of the way back and what else failed.
  returned: always
  type: str
  sample: 8 rows are to leave. Expected at most 4.
findings:
  description: O(findings).
  returned: always
  type: list
  elements: dict
  sample: [{identifier: AMO-3210, seen: 8 rows are to leave., expected: at most 4., next_step: look at the report.}]
afterwards:
  description: What RV(error) has behind the first error, each as the phrase that a translation is made of.
  returned: always
  type: list
  elements: dict
  sample: [{template: "The write fence stays up: {error}", values: {error: It is held.}}]
reached:
  description: See RV(deploy_run#module:reached); empty where it could not be read.
  returned: always
  type: dict
  sample: {point: nothing, built: [], applied: false}
changed_words:
  description: What the run had changed by its own account, as a phrase, for one that another run has taken over.
  returned: O(state=begun)
  type: dict
  sample: {template: "{part_0}, {part_1}", values: {part_0: 25 rows removed, part_1: indexes built}}
is_settled:
  description: Whether the failed phase is in the journal, so that the run is still ours.
  returned: O(state=begun)
  type: bool
  sample: true
may_go_back:
  description: O(may_go_back) where RV(is_settled).
  returned: O(state=begun)
  type: bool
  sample: true
run:
  description: See RV(deploy_run#module:run).
  returned: O(state=ended), where the run could be closed
  type: dict
  sample: {run_id: 20251110T053000Z-1a2b3c, outcome: stopped}
phases:
  description: See RV(deploy_run#module:phases).
  returned: O(state=ended), where the run could be closed
  type: list
  elements: dict
  sample: [{name: cleanup, status: failed, seconds: 1.25}]
rollback:
  description: See RV(deploy_run#module:rollback).
  returned: O(state=ended), where the run could be closed
  type: dict
  sample: {}
"""

from typing import Any

from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, Call, run

OPTIONS: dict[str, Any] = {
    **LOGIN_SPEC,
    "state": {"type": "str", "choices": ["begun", "ended"], "required": True},
    "run_id": {"type": "str", "required": True},
    "plan": {"type": "dict", "required": True},
    "phase": {"type": "str"},
    "error": {"type": "str"},
    "removed": {"type": "int", "default": 0},
    **{name: {"type": "bool", "default": False} for name in ("may_go_back", "built", "fence_raised")},
    "hosts": {"type": "list", "elements": "str", "default": []},
    **{
        name: {"type": "list", "elements": "dict", "default": []}
        for name in ("findings", "recorded_findings", "afterwards", "earlier", "links", "reloads", "paths")
    },
    **{name: {"type": "dict", "default": {}} for name in ("begun", "way", "done", "back_error")},
}


def act(module: Call) -> dict[str, Any]:
    """Refuse: only its action can call other modules."""
    from ansible.module_utils.at_most_one.errors import OperatorError
    from ansible.module_utils.at_most_one.findings import observed, say

    raise OperatorError(
        observed("AMO-1003", "run_stop was started as a module."),
        expected=say("its action, which calls the modules that end a run."),
        next_step=say("run it with this project's ansible.cfg, which names action_plugins."),
    )


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
