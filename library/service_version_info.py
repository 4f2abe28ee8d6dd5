#!/usr/bin/python
"""Ansible module: read which version an application serves, by its own command."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_version_info
short_description: Read which version an application serves
description:
  - Asks O(commands.status) about a version that does not exist, which must not serve, and then about the one that it
    names. So a command is found that says yes to every version.
extends_documentation_fragment:
  - at_most_one.commands
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read which version serves
  service_version_info:
    commands:
      status: [bin/version, status, "{version}"]
      apply: [bin/version, apply, "{version}"]
      back: [bin/version, apply, "{version}"]
      path: /srv/shop
"""

RETURN = r"""
version:
  description: The version that serves; one of them where several do.
  returned: success
  type: str
  sample: 1.4.1
settled:
  description: Whether no other version serves.
  returned: success
  type: bool
  sample: true
"""

from typing import Any

from ansible.module_utils.at_most_one_entry import COMMANDS_SPEC, application_of, run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Ask the command twice."""
    served = application_of(module).served()
    return {"changed": False, "version": served.version, "settled": served.settled}


def main() -> None:
    """Entry point."""
    run(COMMANDS_SPEC, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
