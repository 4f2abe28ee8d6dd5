#!/usr/bin/python
"""Ansible module: open, hold, record and close a run: the journal and the lock of a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_run
short_description: Keep the journal of deployments and allow one at a time per plan
description:
  - Keeps a journal in the schema C(at_most_one) of the service's own database, created on first use.
  - The journal is a log, not managed state. A run reports a change only when the journal itself is created.
  - M(deploy_run_info) reads it, M(deploy_changes_info) what a run has changed.
options:
  state:
    description:
      - V(opened) starts a run and holds its plan, or fails and names who holds it. A run whose lease has ended, or
        whose process on this host is gone, is closed as abandoned and replaced.
      - V(recorded) adds a finished phase and renews the lease. It fails when the run was taken over meanwhile.
      - V(closed) ends the run with its O(outcome) and releases the plan.
    type: str
    choices: [opened, recorded, closed]
    required: true
  run_id:
    description: The run, as O(state=opened) returned it.
    type: str
  plan:
    description:
      - The plan that is deployed.
      - O(state=closed) with O(outcome=deployed) needs it, to ask once more whether the rule holds.
    type: dict
  environment:
    description: Name of the environment, such as production.
    type: str
  who:
    description: Who deploys, such as a login name. It is shown to whoever finds the plan held.
    type: str
  controller:
    description: Host name of the machine that runs ansible-playbook, as C(hostname) prints it.
    type: str
  controller_pid:
    description: Process id of ansible-playbook there.
    type: int
  commit_before:
    description: The commit that serves now.
    type: str
  commit_after:
    description: The commit to be deployed; with O(state=closed) what serves now, when that is another one.
    type: str
  hosts:
    description:
      - With O(state=opened), what each host serves now, as M(git_origin_info) returns it. C(commit), C(release) and
        C(in_place) are kept, with the definitions of the planned tables and Prisma's history, for
        M(deploy_changes_info) to compare with.
    type: dict
    default: {}
  above:
    description: The highest number that a host knows of a run (M(git_origin_info)). That of the opened run is higher.
    type: int
    default: 0
  takeover:
    description:
      - Take the plan from whoever holds it.
      - If that run is still at work, two runs then work on the same database until its next recorded phase fails.
    type: bool
    default: false
  lease_minutes:
    description:
      - For how long after its last sign of life this run may not be replaced.
      - Longer than its longest phase. It is renewed before each batch of hosts that is switched, M(run_checkpoint); the
        last batch and the health check, which asks no database, count as one.
    type: int
    default: 30
  reads_requests:
    description:
      - With O(state=opened), whether the run reads what people ask of it, see M(run_control). It then pauses, and waits
        before the cutover, as the run was asked to that it takes over.
    type: bool
    default: false
  hold_before:
    description:
      - With O(state=opened) and V(pm2_reload), the run waits before the cutover until somebody asks it to continue.
        With an empty text it does not.
    type: str
    choices: ["", pm2_reload]
    default: ""
  phase:
    description: Name of the phase that has ended.
    type: str
  status:
    description: How it ended.
    type: str
    choices: [ok, unchanged, failed, skipped]
  details:
    description: What else to keep about the phase. Without secrets; anybody who reads the journal sees it.
    type: dict
    default: {}
  earlier:
    description:
      - With O(state=recorded) or O(state=closed), the phases that ended before and are not in the journal yet, in their
        order. A phase that asks no database need not be recorded by a call of its own.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the phase.
        type: str
        required: true
      status:
        description: How it ended.
        type: str
        choices: [ok, unchanged]
        required: true
      details:
        description: As O(details).
        type: dict
        default: {}
      ago_s:
        description: How many seconds ago it ended.
        type: float
        default: 0
  phases:
    description:
      - With O(state=closed), the phases of this run that have ended well. A journal that lacks one of them is not
        closed, because the server has moved back, as a standby does that is promoted without the last commits.
      - Where V(verify) is among them, the indexes, Prisma's history, the write fence and the duplicates are read again.
    type: list
    elements: str
    default: []
  outcome:
    description: How the run ended.
    type: str
    choices: [deployed, unchanged, rolled_back, stopped]
  failed_phase:
    description: The phase that failed, if one did.
    type: str
  error:
    description: The first error, as it was shown.
    type: str
  report:
    description: The report to keep with the run.
    type: dict
extends_documentation_fragment:
  - at_most_one.login
attributes:
  check_mode:
    support: full
    description: Opens nothing and records nothing, but still fails when another run holds the plan.
  diff_mode:
    support: none
    description: A log has no before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Open the run
  deploy_run:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: opened
    environment: production
    who: "{{ lookup('env', 'USER') }}"
    controller: "{{ lookup('pipe', 'hostname') }}"
    controller_pid: "{{ lookup('pipe', 'echo $PPID') }}"
    commit_after: 3f616e0
  register: opened

- name: Record the phase
  deploy_run:
    login: "{{ database_login }}"
    state: recorded
    run_id: "{{ opened.run_id }}"
    phase: cleanup
    status: ok
    details: {removed: 25}

- name: Close the run
  deploy_run:
    login: "{{ database_login }}"
    state: closed
    run_id: "{{ opened.run_id }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    phases: [prepare, cleanup, migrate, verify, pm2_reload, healthcheck]
    outcome: deployed
"""

RETURN = r"""
run_id:
  description: The run. In check mode it ends in C(-check) and is not in the journal.
  returned: O(state=opened), O(state=recorded) or O(state=closed)
  type: str
  sample: 20251110T053000Z-1a2b3c
plan_sha256:
  description: What identifies this wording of the plan.
  returned: O(state=opened)
  type: str
  sample: 6b3a55e0261b0304143f805a24924d0c1c44524821305f31d9277843b8a10f4e
took_over:
  description:
    - The run that was abandoned for this one, or would be, with RV(deploy_changes_info#module:reached); empty when the
      plan was free. C(requests) are those in force of it.
  returned: O(state=opened)
  type: dict
  sample:
    run_id: 20251110T041500Z-9f8e7d
    plan_id: one-active-inspection-session
    who: deploy
    environment: production
    controller: gateway-1
    controller_pid: 4242
    since: "2025-11-10T04:15:00Z"
    phase: cleanup
    requests: []
requests:
  description: What the run is asked from its beginning, by its own settings and by requests to RV(took_over).
  returned: O(state=opened)
  type: list
  elements: dict
  sample: [{action: hold_cutover, who: deploy, controller: gateway-1, at: "2025-11-10T05:30:00Z"}]
outcome:
  description: O(outcome).
  returned: O(state=closed)
  type: str
  sample: deployed
number:
  description: The number of the run, higher than that of each run before it, of whatever plan.
  returned: O(state=opened)
  type: int
  sample: 42
faults_before:
  description:
    - RV(service_check#module:faults) of the release that ran before the unfinished runs from which this one goes on.
  returned: O(state=opened)
  type: dict
  sample: {monitoring: [500]}
run:
  description: The run with everything that the journal keeps about it; empty in check mode.
  returned: O(state=opened), O(state=recorded) or O(state=closed)
  type: dict
  sample: {run_id: 20251110T053000Z-1a2b3c, outcome: deployed, seconds: 95.2, phases: []}
phases:
  description: The phases recorded so far, in their order; none in check mode.
  returned: O(state=opened), O(state=recorded) or O(state=closed)
  type: list
  elements: dict
  sample: [{name: cleanup, status: ok, seconds: 1.25}]
rollback:
  description: What rollback.yml would take back from now on; without C(runs) when there is nothing.
  returned: O(state=closed)
  type: dict
  sample: {runs: [20251110T053000Z-1a2b3c], commit_before: eac2ff3, commit_after: 8afb806, database: true}
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ansible.module_utils.at_most_one.plan import Plan, parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ansible.module_utils.at_most_one.postgres.connection import Connection


STATES = ["opened", "recorded", "closed"]


def act(module: AnsibleModule) -> dict[str, Any]:
    """Do what ``state`` says."""
    from ansible.module_utils.at_most_one.migration import closing
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.runs import journal, undo

    wanted = module.params
    with connect(login_of(module), **timeouts_of(module)) as connection:
        if wanted["state"] == "opened":
            return _open(module, connection, parse(wanted["plan"]))
        if module.check_mode:
            return {"changed": False, **_asked(wanted), "run": {}, "phases": []}
        for phase in wanted["earlier"]:
            journal.record(
                connection, wanted["run_id"], phase["name"], phase["status"], phase["details"], ago_s=phase["ago_s"]
            )
        if wanted["state"] == "recorded":
            journal.record(connection, wanted["run_id"], wanted["phase"], wanted["status"], wanted["details"])
        else:
            plan = parse(wanted["plan"]) if wanted["plan"] is not None else None
            for warning in closing.require_outcome(
                connection, plan, wanted["run_id"], wanted["phases"], wanted["outcome"]
            ):
                module.warn(warning)
            kept = {name: wanted[name] for name in ("failed_phase", "error", "report", "commit_after")}
            journal.close_run(connection, wanted["run_id"], wanted["outcome"], **kept)
        answer = {"changed": False, **_asked(wanted), **_run(connection, wanted["run_id"])}
        if wanted["state"] == "closed":
            runs = journal.read(connection, plan_id=answer["run"]["plan_id"], limit=10_000)
            answer["rollback"] = asdict(found) if (found := undo.last_deployment(runs)) else {}
        return answer


def _asked(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: wanted[name] for name in ("run_id", "outcome") if wanted[name] is not None}


def _open(module: AnsibleModule, connection: Connection, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.findings import warning
    from ansible.module_utils.at_most_one.postgres import catalog_snapshot
    from ansible.module_utils.at_most_one.runs import journal, left_fences, reached, requests, undo
    from ansible.module_utils.at_most_one.runs.controllers import Controller

    wanted = module.params
    opening = journal.Opening(
        plan=plan,
        environment=wanted["environment"],
        who=wanted["who"],
        controller=Controller(wanted["controller"], wanted["controller_pid"]),
        commit_before=wanted["commit_before"] or None,
        commit_after=wanted["commit_after"] or None,
        lease_minutes=wanted["lease_minutes"],
        above=wanted["above"],
        before={"hosts": _served(wanted["hosts"]), **catalog_snapshot.take(connection, plan).kept()},
        reads_requests=wanted["reads_requests"],
        hold_cutover=wanted["hold_before"] == "pm2_reload",
    )
    left = left_fences.read(connection, plan)  # before this run is the last one of its plan
    do = journal.look if module.check_mode else journal.open_run
    opened = do(connection, opening, takeover=wanted["takeover"])
    for one in left:
        module.warn(warning(one))
    took = dict(opened.took_over or {})
    if took:
        took["reached"] = reached.read(connection, plan, took["run_id"])
    return {
        "changed": opened.created,
        "run_id": opened.run_id,
        "number": opened.number,
        "plan_sha256": plan.sha256,
        "took_over": took,
        "requests": [] if module.check_mode else requests.described(connection, opened.run_id),
        "faults_before": undo.faults_before(journal.read(connection, plan_id=plan.id, limit=1_000), opened.run_id),
        **_run(connection, opened.run_id),
    }


def _served(hosts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of what is known of each host that which a rollback goes back to."""
    return {
        name: {key: host[key] for key in ("commit", "release", "in_place") if key in host}
        for name, host in hosts.items()
    }


def _run(connection: Connection, run_id: str) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.runs import journal

    kept = next(iter(journal.read(connection, run_id=run_id)), {})
    phases = [{key: phase[key] for key in ("name", "status", "seconds")} for phase in kept.get("phases", [])]
    return {"run": kept, "phases": phases}


def main() -> None:
    """Entry point."""
    run(
        {
            **LOGIN_SPEC,
            "state": {"type": "str", "choices": STATES, "required": True},
            "run_id": {"type": "str"},
            "plan": {"type": "dict"},
            "environment": {"type": "str"},
            "who": {"type": "str"},
            "controller": {"type": "str"},
            "controller_pid": {"type": "int"},
            "commit_before": {"type": "str"},
            "commit_after": {"type": "str"},
            "hosts": {"type": "dict", "default": {}},
            "above": {"type": "int", "default": 0},
            "takeover": {"type": "bool", "default": False},
            "lease_minutes": {"type": "int", "default": 30},
            "reads_requests": {"type": "bool", "default": False},
            "hold_before": {"type": "str", "choices": ["", "pm2_reload"], "default": ""},
            "phase": {"type": "str"},
            "status": {"type": "str", "choices": ["ok", "unchanged", "failed", "skipped"]},
            "details": {"type": "dict", "default": {}},
            "earlier": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "status": {"type": "str", "choices": ["ok", "unchanged"], "required": True},
                    "details": {"type": "dict", "default": {}},
                    "ago_s": {"type": "float", "default": 0},
                },
            },
            "phases": {"type": "list", "elements": "str", "default": []},
            "outcome": {"type": "str", "choices": ["deployed", "unchanged", "rolled_back", "stopped"]},
            "failed_phase": {"type": "str"},
            "error": {"type": "str"},
            "report": {"type": "dict"},
        },
        act,
        required_if=[
            ("state", "opened", ("plan", "environment", "who", "controller", "controller_pid")),
            ("state", "recorded", ("run_id", "phase", "status")),
            ("state", "closed", ("run_id", "outcome")),
        ],
    )


if __name__ == "__main__":
    main()
