#!/usr/bin/python
"""Ansible module: ask the run that is at work to pause, to go on, to wait before the cutover, or to end."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_control
short_description: Ask the run that is at work to pause, to go on, to wait before the cutover, or to end
description:
  - Writes a request of the open run of O(plan) into the journal (C(at_most_one.request)), with who asked, from where
    and when. The run reads it between two batches of its clean-up, before each index, before the cutover, and between
    two batches of hosts.
  - Nothing is given up while it waits. The write fence stands, and the run renews its lease.
  - A request outlives the controller. The deployment that takes the run over pauses and waits as that one was asked to;
    an abort is told and not inherited.
  - What is in force already is not asked again. M(run_control_info) shows what a run is asked and waits for.
options:
  action:
    description:
      - V(pause) lets the run wait at its next checkpoint, until V(resume).
      - V(hold_cutover) lets it wait before the first host is switched, until V(continue).
      - V(abort) ends it at its next checkpoint, as an error does. Nothing lifts that.
    type: str
    choices: [pause, resume, hold_cutover, continue, abort]
    required: true
  who:
    description: Who asks, such as a login name. The journal keeps it, and the run says it where it ends.
    type: str
    required: true
  controller:
    description: Host name of the machine from which it is asked.
    type: str
    required: true
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
attributes:
  check_mode:
    support: full
    description: Writes nothing, says what would be asked, and refuses as without it.
  diff_mode:
    support: none
    description: A request has no before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Ask the run to pause
  run_control:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    action: pause
    who: "{{ lookup('env', 'USER') }}"
    controller: "{{ lookup('pipe', 'hostname') }}"
"""

RETURN = r"""
run_id:
  description: The run that is asked.
  returned: success
  type: str
  sample: 20251110T053000Z-1a2b3c
request:
  description:
    - The request that is in force, of whoever asked first; C(at) is empty in check mode. Null where there was nothing
      to lift.
  returned: success
  type: dict
  sample: {action: pause, who: deploy, controller: gateway-1, at: "2025-11-10T05:31:00Z"}
sentence:
  description: The same for a person.
  returned: success
  type: str
  sample: Run 20251110T053000Z-1a2b3c is asked to pause at its next checkpoint.
phrases:
  description: RV(sentence) by its name, as the phrase that a translation is made of.
  returned: success
  type: dict
  sample:
    sentence:
      template: "Run {run_id} is asked to {action}."
      values:
        run_id: 20251110T053000Z-1a2b3c
        action: {template: pause at its next checkpoint, values: {}}
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Ask."""
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.runs import requests

    given = module.params
    with connect(login_of(module), **timeouts_of(module)) as connection:
        answer = requests.ask(
            *(connection, parse(given["plan"]).id, given["action"], given["who"], given["controller"]),
            check=module.check_mode,
        )
    return {**asdict(answer), "phrases": {"sentence": answer.sentence.as_data()}}


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            **LOGIN_SPEC,
            **PLAN_SPEC,
            "action": {
                "type": "str",
                "choices": ["pause", "resume", "hold_cutover", "continue", "abort"],
                "required": True,
            },
            "who": {"type": "str", "required": True},
            "controller": {"type": "str", "required": True},
        },
        act,
    )


if __name__ == "__main__":
    main()
