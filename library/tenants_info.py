#!/usr/bin/python
"""Ansible module: read which tenants a plan has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tenants_info
short_description: Read in which schemas, and of which databases, the rule of a plan with tenants holds one by one
description:
  - The list of the inventory, or else that of the plan, or what the plan's query answers in a transaction that only
    reads.
  - Whether a database and its schema are there and have the tables is for the run of that tenant to find out, so that
    one without them keeps no other tenant from its own run. No other database than that of O(login) is connected to.
options:
  listed:
    description: The inventory's list of tenants, which counts before the plan's list or query. Empty for none.
    type: list
    elements: str
    default: []
  only:
    description: The one tenant that is asked for, which has to be one of them. Empty for all of them.
    type: str
    default: ""
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Find the tenants
  tenants_info:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-open-order.yml') | from_yaml }}"
  register: tenants
"""

RETURN = r"""
names:
  description: The tenants in the order in which they are gone through, each a schema, or <database>.<schema>.
  returned: success
  type: list
  elements: str
  sample: [shop_busan, shop_eu.shop_berlin]
source:
  description: Where the list comes from, V(inventory), V(plan) or V(query).
  returned: success
  type: str
  sample: plan
others:
  description: Schemas of this database that have a table of the rule's name and are no tenant of the plan.
  returned: success
  type: list
  elements: str
  sample: [shop_template]
"""

from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.preflight import tenants

    given, plan = module.params, parse(module.params["plan"])
    with connect(login_of(module), **timeouts_of(module)) as connection:
        found = tenants.find(connection, plan, given["listed"], given["only"])
    return {"changed": False, "names": found.names, "source": found.source, "others": found.others}


def main() -> None:
    """Entry point."""
    run(
        {
            **LOGIN_SPEC,
            **PLAN_SPEC,
            "listed": {"type": "list", "elements": "str", "default": []},
            "only": {"type": "str", "default": ""},
        },
        act,
    )


if __name__ == "__main__":
    main()
