#!/usr/bin/python
"""Ansible module: have an application serve a version, by its own commands."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_version
short_description: Have an application serve a version by its own commands, and have it proven
description:
  - Asks O(commands.status) first. Where the version serves already nothing is run. Otherwise the command of O(state) is
    run and O(commands.status) asked again, which alone decides whether it has worked.
  - Right before the command, and after it, the journal is asked whether O(run_id) still holds its plan. A run that was
    taken over, or closed, changes nothing more.
options:
  state:
    description: V(applied) runs O(commands.apply), V(back) runs O(commands.back).
    type: str
    choices: [applied, back]
    required: true
  version:
    description: The version to be served.
    type: str
    required: true
  run_id:
    description:
      - The run that does this, as M(deploy_run) opened it. Its lease is renewed meanwhile. Without it nobody is asked.
    type: str
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.commands
attributes:
  check_mode:
    support: full
    description: Asks O(commands.status) alone, and says which command would be run.
  diff_mode:
    support: full
    description: Shows the version before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Ensure that the wanted version serves
  service_version:
    login: "{{ database_login }}"
    run_id: "{{ opened.run_id }}"
    state: applied
    version: 1.4.2
    commands:
      status: [bin/version, status, "{version}"]
      apply: [bin/version, apply, "{version}"]
      back: [bin/version, apply, "{version}"]
      path: /srv/shop
"""

RETURN = r"""
version:
  description: O(version).
  returned: success
  type: str
  sample: 1.4.2
before:
  description: The version that served until then; empty where O(version) served already.
  returned: success
  type: str
  sample: 1.4.1
told:
  description: The command that was run, or would be; empty where O(version) served already.
  returned: success
  type: str
  sample: bin/version apply 1.4.2
"""

from typing import Any

from ansible.module_utils.at_most_one.service.version import APPLIED, BACK
from ansible.module_utils.at_most_one_entry import (
    COMMANDS_SPEC,
    LOGIN_SPEC,
    application_of,
    held_run,
    login_of,
    run,
    timeouts_of,
)
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Have the version served, unless it serves already."""
    from ansible.module_utils.at_most_one.postgres.connection import connect

    given = module.params
    with held_run(module) as hold:

        def require_held() -> None:
            with connect(login_of(module), **timeouts_of(module)) as connection:
                hold(connection)

        application = application_of(module)
        change = application.ensure(given["version"], given["state"], require_held, check=module.check_mode)
    before = change.before or given["version"]
    return {
        "changed": bool(change.told),
        "version": given["version"],
        "before": change.before,
        "told": change.told,
        "diff": {"before": f"version: {before}\n", "after": f"version: {given['version']}\n"},
    }


def main() -> None:
    """Entry point."""
    run(
        {
            **LOGIN_SPEC,
            **COMMANDS_SPEC,
            "run_id": {"type": "str"},
            "state": {"type": "str", "choices": [APPLIED, BACK], "required": True},
            "version": {"type": "str", "required": True},
        },
        act,
    )


if __name__ == "__main__":
    main()
