#!/usr/bin/python
"""Ansible module: decide where a rollback leads, and what forbids it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_plan
short_description: Decide which release each host goes back to and what of the database is taken back
description:
  - The two ways back are decided here. A person asks for one, and gets back the last deployment or what O(only_rows)
    says. A run that has failed takes back what it has reached, and no more, where O(failed_phase) is given.
  - It reads and changes nothing. What forbids the way back is in its answer.
options:
  plan:
    description: The plan whose deployment is taken back.
    type: dict
    required: true
  found:
    description: What was reached, see RV(deploy_run#module:reached).
    type: dict
    required: true
  hosts:
    description:
      - What each host served when the run began, as M(git_origin_info) returns it with C(releases). A host without
        those has no application that could go back.
    type: dict
    required: true
  application:
    description:
      - The name of an application whose version commands change (M(service_version)). It counts as one host, which
        serves the C(commit) of any of O(hosts). Empty, no application takes part.
    type: str
    default: ""
  commit:
    description: The kept release, or the version, to go back to; without it the one before the deployment.
    type: str
    default: ""
  only_rows:
    description: Whether only the rows return that earlier rollbacks had to leave.
    type: bool
    default: false
  restore_rows:
    description: Whether archived rows return.
    type: bool
    default: true
  restore:
    description: As O(duplicate_rows#module:restore).
    type: str
    choices: [all, possible]
    default: possible
  failed_phase:
    description: The phase in which this run has failed. Then the next three are needed, in the order of O(hosts).
    type: str
  paths:
    description: What C(stat) says of the application's path; without C(stat) for a host that cannot be reached.
    type: list
    elements: dict
    default: []
  links:
    description: What M(release_link) has answered in this run; empty where it was not called.
    type: list
    elements: dict
    default: []
  reloads:
    description: What M(pm2_app) has answered to the reload of this run; empty where it was not called.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - at_most_one.in_process
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Decide what is taken back
  rollback_plan:
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    found: "{{ read.reached }}"
    hosts: {web1: "{{ served }}"}
"""

RETURN = r"""
found:
  description: The part of O(found) that counts; with O(only_rows) its rows alone.
  returned: success
  type: dict
  sample: {runs: [20251110T053000Z-1a2b3c], point: migration, built: [idx_inspection_schedules_active]}
commit:
  description: The commit that is served afterwards.
  returned: success
  type: str
  sample: 3f616e0d1b7f0c4b8f6d6a1d9b0f7c3f1e2d4c5b
hosts:
  description: The hosts, with the commit C(before), the C(release) to go to, the C(build) that answers have to name,
    and whether the host C(stays), because it serves that already. After a failure, the hosts that were switched.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: web1, before: 8afb806, release: /var/www/aedpics.releases/eac2ff3, build: eac2ff3, stays: false}
rule:
  description: Whether the fence, the indexes and the history are taken back.
  returned: success
  type: bool
  sample: true
rows:
  description: Whether archived rows return.
  returned: success
  type: bool
  sample: true
refusal:
  description: Why it must not be taken back; empty where nothing forbids it.
  returned: success
  type: str
  sample: ""
findings:
  description: The same, one by one.
  returned: always
  type: list
  elements: dict
  sample: []
lost_findings:
  description: Why the database stays while a host cannot be reached; empty where each one answers.
  returned: success
  type: list
  elements: dict
  sample: []
is_of_failed_run:
  description: Whether a run takes itself back, and is compared with its own beginning.
  returned: success
  type: bool
  sample: false
is_needed:
  description: Whether a failed run has reached anything.
  returned: success
  type: bool
  sample: true
sentence:
  description: What becomes of the application, for the error of a failed run.
  returned: success
  type: str
  sample: the application to eac2ff3 on web1
phrases:
  description: RV(sentence) by its name, as the phrase that a translation is made of.
  returned: success
  type: dict
  sample: {sentence: {template: "the application to {commit} on {hosts}", values: {commit: eac2ff3, hosts: web1}}}
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import Call, run

OPTIONS: dict[str, Any] = {
    "plan": {"type": "dict", "required": True},
    "found": {"type": "dict", "required": True},
    "hosts": {"type": "dict", "required": True},
    "application": {"type": "str", "default": ""},
    "commit": {"type": "str", "default": ""},
    "only_rows": {"type": "bool", "default": False},
    "restore_rows": {"type": "bool", "default": True},
    "restore": {"type": "str", "choices": ["all", "possible"], "default": "possible"},
    "failed_phase": {"type": "str"},
    **{name: {"type": "list", "elements": "dict", "default": []} for name in ("paths", "links", "reloads")},
}


def act(module: Call) -> dict[str, Any]:
    """Decide."""
    from ansible.module_utils.at_most_one.runs import way_back

    given = module.params
    hosts = {name: way_back.Served.of(host) for name, host in given["hosts"].items() if "releases" in host}
    version = next((host["commit"] for host in given["hosts"].values()), "")
    if given["application"]:
        hosts = {given["application"]: way_back.Served(version)}
    if given["failed_phase"] is None:
        asked = way_back.Asked(**{name: given[name] for name in ("commit", "only_rows", "restore_rows", "restore")})
        way = way_back.asked_for(parse(given["plan"]), given["found"], asked, hosts)
    elif given["application"]:
        way = way_back.version_after_failure(given["found"], given["application"], version, phase=given["failed_phase"])
    else:
        answers = {name: given[name] if hosts else [] for name in ("paths", "links", "reloads")}
        way = way_back.after_failure(given["found"], hosts, phase=given["failed_phase"], **answers)
    return {
        "changed": False,
        "found": way.found,
        "commit": way.commit,
        "hosts": [asdict(host) for host in way.hosts],
        "rule": way.rule,
        "rows": way.rows,
        "refusal": way.refusal,
        "findings": [one.as_data() for one in way.findings],
        "lost_findings": [one.as_data() for one in way.lost_findings],
        "is_of_failed_run": way.is_of_failed_run,
        "is_needed": way.is_needed,
        "sentence": way.sentence,
        "phrases": {"sentence": way.sentence.as_data()},
    }


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
