#!/usr/bin/python
"""Ansible module: the evidence of a rehearsal, from its beginning to its last turn."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rehearsal_evidence
short_description: Compare what the turns of a rehearsal have left, and write evidence of it
description:
  - Reads columns, constraints, indexes, triggers and every row of the planned tables, and of those whose references the
    plan re-points, in one read-only transaction. The rows become one digest for each table.
  - With O(beginning) that is the state before. Each call with O(rehearsal_id) is the next turn (deployed, rolled back,
    deployed), whose run must have ended so. The way back has to bring back the state before, the second way forward
    that of the first.
  - The document is sealed with a digest over its content, so that a file that was edited afterwards is found out, and
    written to the journal of O(login) and to O(path). From its beginning on it is C(unfinished), until the last turn.
  - After a last turn it fails where any turn has left a difference. The evidence names that too.
  - It is for a place where nobody else writes. Evidence is a log, not managed state. It never reports a change.
options:
  path:
    description:
      - The file, on the control node. It appears whole or not at all, readable by its owner and group.
      - The action of this module writes it.
    type: path
    required: true
  leave_out:
    description:
      - Columns and values. Rows of a table that has all of these columns, with these values in them, are not read.
      - For the canary, whose rows the checks of a deployment write.
    type: dict
    default: {}
  beginning:
    description: What is known before the first turn. Without secrets; the evidence travels.
    type: dict
    suboptions:
      environment:
        description: The environment that rehearses.
        type: str
        required: true
      hosts:
        description: Its hosts.
        type: list
        elements: str
        required: true
      who:
        description: Who rehearses, such as a login name.
        type: str
        required: true
      controller:
        description: Host name of the control node.
        type: str
        required: true
      commit_before:
        description: The commit that serves now.
        type: str
        required: true
      commit_after:
        description: The commit that is wanted. Later it is the one that the last deployment brought.
        type: str
        required: true
      clone:
        description: RV(database_clone#module:source), C(masked) and C(invalid_indexes), where the database is a copy.
        type: dict
        default: {}
  rehearsal_id:
    description: The rehearsal that goes on, as RV(document) names it.
    type: str
  run_id:
    description: The run that the turn was, as the journal has it.
    type: str
  tool:
    description: The version of this project. The action of this module finds it out.
    type: str
    default: unknown
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
attributes:
  action:
    description: Writes O(path) on the control node.
    support: full
  check_mode:
    support: full
    description: Reads, compares and writes nothing.
  diff_mode:
    support: none
    description: A log has no before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Write that a rehearsal has begun
  rehearsal_evidence:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    path: artifacts/staging/rehearsal/one-active-inspection-session.json
    leave_out: {equipment_serial: 11-0000001}
    beginning:
      environment: staging
      hosts: [staging-1]
      who: deploy
      controller: gateway-1
      commit_before: 1c5af34
      commit_after: 3f616e0
  register: rehearsal

- name: Write what the turn has left
  rehearsal_evidence:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    path: artifacts/staging/rehearsal/one-active-inspection-session.json
    leave_out: {equipment_serial: 11-0000001}
    rehearsal_id: "{{ rehearsal.document.rehearsal_id }}"
    run_id: 20251110T053000Z-1a2b3c
  register: rehearsal
"""

RETURN = r"""
document:
  description:
    - The evidence as it was sealed. C(outcome) is V(unfinished) until the last turn, then V(passed).
    - C(states) has definitions and digests of each moment; C(schema_sha256) is over all definitions, C(content_sha256)
      over all rows. C(differences) has a line for each thing that a turn did not bring back.
  returned: success
  type: dict
  sample:
    rehearsal_id: 2025-11-10T05:30:00Z-staging
    plan: {id: one-active-inspection-session, sha256: 6b3a55e0}
    commit: {before: 1c5af34, after: 3f616e0}
    environment: staging
    outcome: unfinished
    turns: [{name: forward, run_id: 20251110T053000Z-1a2b3c, outcome: deployed, seconds: 95.2, phases: []}]
    recovery_seconds: 0
    states: {before: {schema_sha256: 2c26b46b, content_sha256: baa5a096}}
    differences: []
    sha256: 9f86d081
"""

from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule

BEGINNING = {
    **{name: {"type": "str", "required": True} for name in ("environment", "who", "controller")},
    **{name: {"type": "str", "required": True} for name in ("commit_before", "commit_after")},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "clone": {"type": "dict", "default": {}},
}


def act(module: AnsibleModule) -> dict[str, Any]:
    """Read, compare, seal, and write to the journal."""
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.rehearsal import evidence, evidence_store, recording, turns
    from ansible.module_utils.at_most_one.runs import journal

    given, plan = module.params, parse(module.params["plan"])
    with connect(login_of(module), **timeouts_of(module)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        if given["beginning"]:
            beginning = turns.Beginning(**given["beginning"], tool=given["tool"])
            document = recording.begin(connection, plan, beginning, given["leave_out"])
        else:
            so_far = evidence_store.read(connection, given["rehearsal_id"])
            unknown = {"run_id": given["run_id"], "outcome": None}
            recorded = next(iter(journal.read(connection, run_id=given["run_id"])), unknown)
            document = recording.add_turn(connection, plan, so_far, recorded, given["leave_out"])
        sealed = evidence.seal(document)
        if not module.check_mode:
            connection.commit()
            connection.set_session(isolation_level="default", readonly="default")
            evidence_store.keep(connection, sealed)
    return {"changed": False, "document": sealed}


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            **LOGIN_SPEC,
            **PLAN_SPEC,
            "path": {"type": "path", "required": True},
            "leave_out": {"type": "dict", "default": {}},
            "beginning": {"type": "dict", "options": BEGINNING},
            "rehearsal_id": {"type": "str"},
            "run_id": {"type": "str"},
            "tool": {"type": "str", "default": "unknown"},
        },
        act,
        mutually_exclusive=[("beginning", "rehearsal_id")],
        required_one_of=[("beginning", "rehearsal_id")],
        required_together=[("rehearsal_id", "run_id")],
    )


if __name__ == "__main__":
    main()
