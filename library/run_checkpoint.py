#!/usr/bin/python
"""Ansible module: wait or end before the next hosts are switched, where somebody asks the run for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_checkpoint
short_description: Wait or end before the next hosts are switched, where somebody asks the run for it
description:
  - The checkpoint between two batches of hosts. It reads what M(run_control) has asked of O(run_id), waits for as long
    as the run is to pause, and fails where it is to end.
  - While it waits, the lease of the run goes on being renewed. It is renewed where the run does not wait, too, so that
    it need not last for all batches.
  - A server that is gone is asked again for five minutes.
  - The checkpoint before the first host is a part of M(index_set) with O(index_set#module:cutover_hosts).
options:
  run_id:
    description: The run, as M(deploy_run) returned it.
    type: str
    required: true
  hosts_done:
    description: How many hosts were switched, or had nothing to do.
    type: int
    required: true
  hosts:
    description: Of how many.
    type: int
    required: true
extends_documentation_fragment:
  - at_most_one.login
attributes:
  check_mode:
    support: full
    description: Asks nothing and waits for nobody. The run is not in the journal.
  diff_mode:
    support: none
    description: It changes nothing that could be shown.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Wait or end where somebody asks the run for it
  run_checkpoint:
    login: "{{ database_login }}"
    run_id: "{{ run_facts.run_id }}"
    hosts_done: 1
    hosts: 3
"""

RETURN = r"""
waited_s:
  description: For how many seconds the run was paused here.
  returned: success
  type: float
  sample: 0.0
"""

from typing import Any

from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, held_run, login_of, run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Ask, and wait."""
    from ansible.module_utils.at_most_one.postgres.checkpoint import Place
    from ansible.module_utils.at_most_one.runs import control

    if module.check_mode:
        return {"changed": False, "waited_s": 0.0}
    place = Place("pm2_reload", "hosts", module.params["hosts_done"], module.params["hosts"])
    with held_run(module):
        waited_s = control.before_switching(login_of(module), module.params["run_id"], place)
    return {"changed": False, "waited_s": round(waited_s, 3)}


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            **LOGIN_SPEC,
            "run_id": {"type": "str", "required": True},
            "hosts_done": {"type": "int", "required": True},
            "hosts": {"type": "int", "required": True},
        },
        act,
    )


if __name__ == "__main__":
    main()
