#!/usr/bin/python
"""Ansible module: check what a command asks for, before anything is connected."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_inputs
short_description: Check the target, the plan, the values and the hosts that a command asks for
description:
  - Reads the variables of the host and the options of C(ansible-playbook). Its action does that on the control node,
    whichever host the task is for; as a module it can only refuse.
  - Every finding is named at once. An inventory without the values that all environments share, or a command without a
    limit, is named alone, because nothing else can be judged then.
options:
  playbook:
    description: The playbook that the next step of a finding names.
    type: str
    required: true
  required:
    description:
      - Names of variables that must have a value, beside those that every environment has to say. Values are not read
        any further.
    type: list
    elements: str
    default: []
  hosts:
    description: Whether the hosts of the environment are checked too, for a playbook that changes them.
    type: bool
    default: false
  needs_plan:
    description: Whether the plan must be there. Without it, RV(plan) is empty, as for a playbook that makes plans.
    type: bool
    default: true
  tenants:
    description:
      - Of a plan that has tenants, V(one) that the command has to name, or V(each), for which RV(plan) is that of none
        of them. With V(any) it is no matter.
    type: str
    choices: [one, each, any]
    default: one
extends_documentation_fragment:
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Stop if the target, the plan or a value is missing or wrong
  run_inputs:
    playbook: deploy.yml
    required: [vault_database_password]
    hosts: true
"""

RETURN = r"""
plan:
  description: The content of the plan's file; for a tenant, with its schema and an id of its own.
  returned: success
  type: dict
tenant:
  description: The tenant that the command names; empty where it names none.
  returned: success
  type: str
  sample: shop_seoul
who:
  description: The person who has started the command, as AWX, Semaphore, SUDO_USER or USER tells.
  returned: success
  type: str
  sample: minji
controller:
  description: The name of the control node.
  returned: success
  type: str
  sample: deploy-1
controller_pid:
  description: The process of C(ansible-playbook) on it.
  returned: success
  type: int
  sample: 4711
is_whole:
  description: Whether C(--tags) and C(--skip-tags) leave out none of a deployment's phases.
  returned: success
  type: bool
  sample: true
asked_phases:
  description: The phases that they ask for and that take part, in their order.
  returned: success
  type: list
  elements: str
  sample: [verify]
parts:
  description:
    - Which parts take part, by C(app_adapter) and C(migrate_adapter). C(application) is its release, its processes and
      its answers, C(prisma) its command line and its history, C(tool) another tool's history that its commands keep.
      C(commands) is an application whose version its own commands change, in the place of C(application). C(systemd)
      says that units of systemd keep its processes running, and not PM2.
  returned: success
  type: dict
  sample: {application: true, prisma: true, tool: false, commands: false, systemd: false}
left_out:
  description: The phases of a deployment that have nothing to do, and are not among RV(asked_phases).
  returned: success
  type: list
  elements: str
  sample: [pm2_reload, healthcheck]
migration_sql:
  description: Without Prisma, the text of the migration beside the plan; empty where there is none.
  returned: success
  type: str
  sample: ""
"""

from typing import Any

from ansible.module_utils.at_most_one_entry import Call, run

OPTIONS = {
    "playbook": {"type": "str", "required": True},
    "required": {"type": "list", "elements": "str", "default": []},
    "hosts": {"type": "bool", "default": False},
    "needs_plan": {"type": "bool", "default": True},
    "tenants": {"type": "str", "choices": ["one", "each", "any"], "default": "one"},
}


def act(module: Call) -> dict[str, Any]:
    """Refuse: on a host there is nothing to check."""
    from ansible.module_utils.at_most_one.errors import OperatorError
    from ansible.module_utils.at_most_one.findings import observed, say

    raise OperatorError(
        observed("AMO-1002", "run_inputs was started as a module."),
        expected=say("its action, which reads what only ansible-playbook has."),
        next_step=say("run it with this project's ansible.cfg, which names action_plugins."),
    )


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
