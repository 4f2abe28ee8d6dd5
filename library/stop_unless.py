#!/usr/bin/python
"""Ansible module: stop with a message of the project's own, unless a condition holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stop_unless
short_description: Stop with a message that can be read in every language, unless a condition holds
description:
  - What M(ansible.builtin.assert) does, with a message that the control node writes in C(report_language), as it does
    those of the modules. Its action runs on the control node, whichever host the task is for.
options:
  that:
    description: Whether to go on.
    type: bool
    required: true
  identifier:
    description: The message's, which stays when its words change.
    type: str
    default: ""
  seen:
    description: What was seen, in English; C({name}) stands for one of O(values). So in the next two.
    type: str
    default: ""
  expected:
    description: What was expected.
    type: str
    default: ""
  next_step:
    description: What to do next. A command is written C(ansible-playbook deploy.yml -l <environment>).
    type: str
    default: ""
  values:
    description: What the message names. A mapping with C(template) and C(values) is a phrase that a module returned.
    type: dict
    default: {}
  findings:
    description: In the place of O(seen), what another module has found, as it returned it.
    type: list
    elements: dict
    default: []
  error:
    description: The same as a text, in English. Alone it is the whole message, as one that a host has said before.
    type: str
    default: ""
  afterwards:
    description: >-
      What O(error) has behind the first error, each as a phrase. Of a role that has it itself, its C(template) is a
      part of the catalogue, and C(values) what that names.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    support: full
    description: It changes nothing.
  diff_mode:
    support: none
    description: It changes nothing.
extends_documentation_fragment:
  - at_most_one.in_process
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Stop unless this environment is there for rehearsals
  stop_unless:
    that: "{{ rehearsal_allowed | bool }}"
    identifier: AMO-6007
    seen: "{environment_name} is no environment to rehearse in."
    expected: an environment that may be deployed to, such as staging.
    next_step: ansible-playbook rehearse.yml -i inventories/staging -l staging
    values: {environment_name: "{{ environment_name }}"}
"""

RETURN = r"""
findings:
  description: What a person acts on, where it stops.
  returned: failure
  type: list
  elements: dict
  sample: [{identifier: AMO-6007, seen: production is no environment to rehearse in., expected: another., next_step: x}]
afterwards:
  description: O(afterwards).
  returned: failure, where there is any
  type: list
  elements: dict
  sample: [{template: "The link points to {release} again.", values: {release: /srv/app.releases/1}}]
"""

from typing import Any

from ansible.module_utils.at_most_one.errors import OperatorError
from ansible.module_utils.at_most_one.findings import Finding, handed_over, observed, say
from ansible.module_utils.at_most_one_entry import Call, refusal, run

OPTIONS: dict[str, Any] = {
    "that": {"type": "bool", "required": True},
    **{name: {"type": "str", "default": ""} for name in ("identifier", "seen", "expected", "next_step", "error")},
    "values": {"type": "dict", "default": {}},
    **{name: {"type": "list", "elements": "dict", "default": []} for name in ("findings", "afterwards")},
}


def act(call: Call) -> dict[str, Any]:
    """Say nothing, or fail with the message."""
    given = call.params
    values = {name: handed_over(one) if isinstance(one, dict) else one for name, one in given["values"].items()}
    if given["that"]:
        return {"changed": False}
    found = [Finding.of_data(one) for one in given["findings"]]
    behind = {"afterwards": given["afterwards"]} if given["afterwards"] else {}
    if not found and not given["seen"]:
        return {"failed": True, "msg": given["error"], **behind}
    if not found:
        seen = observed(given["identifier"], given["seen"], **values)
        found = [Finding("", seen, say(given["expected"], **values), say(given["next_step"], **values))]
    result = refusal(OperatorError.of(found))
    return {**result, "msg": given["error"] or result["msg"], **behind}


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
