#!/usr/bin/python
"""Ansible module: the guide's checklist before a deployment, each gate answered by evidence."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_checklist
short_description: Answer the gates of the checklist by what can be shown
description:
  - Answers the wanted gates, on the machine that runs ansible-playbook. It never fails because a gate is open; the
    answer says so, with what was seen, what was expected and what to do next.
  - It changes nothing, in check mode or not. O(backup_command) is run in both, so it has to be one that only reads.
options:
  gates:
    description: The gates to answer.
    type: list
    elements: str
    choices: [backup, rehearsal, notice]
    required: true
  environment:
    description: Where the change is deployed. A rehearsal in the same environment does not count.
    type: str
    required: true
  plan_id:
    description: The plan that is deployed.
    type: str
    required: true
  plan_sha256:
    description: What identifies its wording. The rehearsal has to have been of the same.
    type: str
    required: true
  plan:
    description:
      - The content of the plan of a tenant. A rehearsal with another tenant of the same plan counts for it, too, and is
        looked for beside O(rehearsal_evidence) where that is not there.
    type: dict
    default: {}
  commit:
    description: The commit that is deployed. The rehearsal has to have been of the same.
    type: str
    required: true
  backup_taken_at:
    description: When the provider's newest backup was taken, in ISO 8601 with its zone. It comes before the other two.
    type: str
    default: ""
  backup_command:
    description:
      - A command and its arguments that prints that time, and no other.
      - It runs without a shell and may take a minute.
    type: list
    elements: str
    default: []
  backup_url:
    description: An address that answers with that time, and no other, without a login.
    type: str
    default: ""
  backup_max_age_hours:
    description: An older backup does not count.
    type: float
    default: 24
  rehearsal_evidence:
    description: The file that the rehearsal wrote.
    type: path
    default: ""
  rehearsal_max_age_hours:
    description: An older rehearsal does not count.
    type: float
    default: 168
  rehearsal_reason:
    description: Why there is no rehearsal. It lets the gate pass and is part of its answer.
    type: str
    default: ""
  rehearsal_how:
    description: The command that rehearses, for the message.
    type: str
    default: ansible-playbook rehearse.yml -i inventories/staging -l staging
  notice_sent:
    description: Whether the inspection team was told.
    type: bool
    default: false
  notice_from:
    description: When the time that it was told of begins, in ISO 8601 with its zone.
    type: str
    default: ""
  notice_until:
    description: When it ends.
    type: str
    default: ""
  notice_minutes:
    description: How long it lasts where O(notice_until) is not given.
    type: float
    default: 60
extends_documentation_fragment:
  - at_most_one.in_process
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Answer the checklist
  deploy_checklist:
    gates: [backup, rehearsal, notice]
    environment: production
    plan_id: one-active-inspection-session
    plan_sha256: 6b3a55e0261b0304143f805a24924d0c1c44524821305f31d9277843b8a10f4e
    commit: 4f743598c1450a96a7e36fb53f1e4bb7c4bd3f9c
    backup_command: [/usr/local/bin/newest-backup, aedpics_production]
    rehearsal_evidence: artifacts/staging/rehearsal/one-active-inspection-session.json
    notice_sent: true
    notice_from: "2025-11-10T13:00:00Z"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
open:
  description: The gates that are not passed, for a person, each with what to do; empty where all are.
  returned: success
  type: str
  sample: ""
findings:
  description: The same, one by one.
  returned: always
  type: list
  elements: dict
  sample: []
evidence:
  description: The evidence of the rehearsal that the gate has accepted, empty without one.
  returned: success
  type: dict
answers:
  description: One answer for each wanted gate, by its name.
  returned: success
  type: dict
  contains:
    passed: {description: Whether the gate is passed., type: bool}
    seen: {description: What was seen., type: str}
    expected: {description: What lets it pass., type: str}
    next_step: {description: What to do., type: str}
    facts:
      description: For the journal; the digest, the phases' seconds and the recovery time of the rehearsal among them.
      type: dict
  sample:
    notice:
      passed: true
      seen: sent for 2025-11-10T13:00:00Z to 2025-11-10T14:00:00Z.
      expected: the team knows of it, and now is within that time.
      next_step: nothing.
      facts: {from: "2025-11-10T13:00:00Z", until: "2025-11-10T14:00:00Z"}
"""

from typing import Any

from ansible.module_utils.at_most_one.preflight import checklist
from ansible.module_utils.at_most_one.rehearsal.evidence import Wanted
from ansible.module_utils.at_most_one_entry import Call, run

TEXT = {"type": "str", "default": ""}
OPTIONS = {
    "gates": {
        "type": "list",
        "elements": "str",
        "choices": ["backup", "rehearsal", "notice"],
        "required": True,
    },
    "environment": {"type": "str", "required": True},
    "plan_id": {"type": "str", "required": True},
    "plan_sha256": {"type": "str", "required": True},
    "plan": {"type": "dict", "default": {}},
    "commit": {"type": "str", "required": True},
    "backup_taken_at": TEXT,
    "backup_command": {"type": "list", "elements": "str", "default": []},
    "backup_url": TEXT,
    "backup_max_age_hours": {"type": "float", "default": 24},
    "rehearsal_evidence": {"type": "path", "default": ""},
    "rehearsal_max_age_hours": {"type": "float", "default": 168},
    "rehearsal_reason": TEXT,
    "rehearsal_how": {
        "type": "str",
        "default": "ansible-playbook rehearse.yml -i inventories/staging -l staging",
    },
    "notice_sent": {"type": "bool", "default": False},
    "notice_from": TEXT,
    "notice_until": TEXT,
    "notice_minutes": {"type": "float", "default": 60},
}


def act(call: Call) -> dict[str, Any]:
    """Answer each gate."""
    given, now = call.params, checklist.utc_now()
    wanted = Wanted(
        plan_id=given["plan_id"],
        plan_sha256=given["plan_sha256"],
        commit=given["commit"],
        environment=given["environment"],
        max_age_hours=given["rehearsal_max_age_hours"],
        how=given["rehearsal_how"],
        plan=given["plan"],
    )
    backup = checklist.Backup(
        given["backup_taken_at"], given["backup_command"], given["backup_url"], given["backup_max_age_hours"]
    )
    notice = checklist.Notice(
        given["notice_sent"], given["notice_from"], given["notice_until"], given["notice_minutes"]
    )
    rehearsed = checklist.answered(
        lambda: checklist.rehearsal(given["rehearsal_evidence"], given["rehearsal_reason"], wanted, now)
    )
    takes = rehearsed.facts.get("evidence", {}).get("seconds")
    asked = {
        "backup": lambda: checklist.backup(backup, now),
        "rehearsal": lambda: rehearsed,
        "notice": lambda: checklist.notice(notice, now, takes if "rehearsal" in given["gates"] else None),
    }
    answers = {gate: checklist.answered(asked[gate]) for gate in checklist.GATES if gate in given["gates"]}
    return {
        "changed": False,
        "answers": {gate: answer.kept() for gate, answer in answers.items()},
        "open": checklist.told(answers),
        "findings": [one.as_data() for one in checklist.findings(answers)],
        "evidence": answers["rehearsal"].facts.get("evidence", {}) if "rehearsal" in answers else {},
    }


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
