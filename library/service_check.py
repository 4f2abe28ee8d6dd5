#!/usr/bin/python
"""The health gates: what a user, an administrator and a monitor would see."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_check
short_description: Check that a service does for its users what it should, before and after a change
description:
  - Asks the service over HTTP and reports for each check what was asked, what was expected and what came.
  - V(session) and V(race) open sessions on a canary equipment and cancel them again, whatever happens in between.
  - What the release before a change could not answer either (O(before=true)) need not fail the release after it, see
    O(known_faults). A break of the rule itself fails always, whatever was there before.
options:
  base_url:
    description: Where the service is, without a slash at the end.
    type: str
    required: true
  checks:
    description:
      - Which checks to run. Their order is always V(root), V(health), V(login), V(monitoring), V(session), V(log),
        V(race), so that the refusals which the race provokes are not found in the log.
      - V(root) asks HEAD /, which may be answered although the service is down. V(health) wants one of
        O(health_values).
      - V(login) signs in as each of the two people that are given. With O(auth=bearer) it reads O(sessions_path) with
        each token; 401, 403, 429, a redirect and 5xx are no login. V(monitoring) wants no duplicates.
      - V(session) opens a session, tries a second one, which must be the same or 409, and cancels it. 409 at once is
        legitimate, because somebody works on that equipment.
      - V(race) opens O(race_size) at once. One session may come of it, and no 5xx. The canary must be free.
      - V(log) counts the lines with errors that the new release has written, see O(log_files). An error that the
        release before wrote as often is named, and no fault.
      - V(monitoring) and V(race) may have faults that were there before, see O(known_faults).
    type: list
    elements: str
    choices: [root, health, login, monitoring, session, log, race]
    default: [root, health]
  before:
    description:
      - Whether the release that runs before a change is asked. V(monitoring) may then count duplicates, and need not
        be there yet (404). A status 5xx of V(monitoring) or of the losers in V(race) fails nothing and is returned in
        RV(faults). Anything else fails as ever.
    type: bool
    default: false
  faults_before:
    description: RV(faults) of the release before. A check that it lacks was not asked, so none of its faults is known.
    type: dict
    default: {}
  found:
    description: RV(found) of the call before, to go on from.
    type: list
    elements: dict
    default: []
  language:
    description: The language in which RV(found) says what to repair.
    type: str
    choices: [en, ko]
    default: en
  known_faults:
    description:
      - What becomes of a fault in O(faults_before) that is still there, with no other status. V(accept) lets it stay
        and marks it as known; V(refuse) fails the check.
      - Two sessions of one race, duplicates that are counted, no answer, and 4xx are never accepted.
    type: dict
    default: {}
    suboptions:
      monitoring:
        description: The endpoint that counts duplicates answers 5xx.
        type: str
        choices: [accept, refuse]
        default: refuse
      race:
        description: The losers of a race get 5xx instead of 409.
        type: str
        choices: [accept, refuse]
        default: refuse
  fail:
    description: Whether a check that is not as expected fails the task, with all of them named.
    type: bool
    default: true
  timeout_s:
    description: Seconds for each step of a request.
    type: float
    default: 10
  auth:
    description: V(nextauth) signs in with a CSRF token and credentials and sends cookies; V(bearer) sends a token.
    type: str
    choices: [nextauth, bearer]
    default: nextauth
  credentials:
    description: Who opens the sessions.
    type: dict
    suboptions: &person
      email:
        description: E-mail address.
        type: str
        required: true
      password:
        description: Password.
        type: str
        required: true
  admin_credentials:
    description: Who reads the monitoring; without it O(credentials).
    type: dict
    suboptions: *person
  bearer_token:
    description: Who opens the sessions, with V(bearer).
    type: str
  admin_bearer_token:
    description: Who reads the monitoring, with V(bearer); without it O(bearer_token).
    type: str
  canary:
    description:
      - The body of the request that opens a session, for example C({equipment_serial} of a device nobody inspects).
      - Required by V(session) and V(race). A session that the signed-in user left open on it is cancelled.
    type: dict
  plan:
    description:
      - A plan, as V(plans/<id>.yml) has it. Where it has C(proof), V(session) and V(race) create and undo a row as that
        says, in the place of O(sessions_path) and O(cancel_path); O(canary) is the body of a creation without one.
      - In a run it is the plan of that run, unless given.
    type: dict
  race_rounds:
    description: How many races are run, one after the other, until one goes wrong.
    type: int
    default: 1
  race_size:
    description: How many creations at once.
    type: int
    default: 8
  health_path:
    description: The health endpoint.
    type: str
    default: /api/health
  health_values:
    description: Values of C(status) in its answer that mean well.
    type: list
    elements: str
    default: [ok, healthy]
  sessions_path:
    description: The endpoint that opens a session by POST.
    type: str
    default: /api/inspections/sessions
  cancel_path:
    description: The endpoint that cancels the session C({id}) by POST.
    type: str
    default: /api/inspections/sessions/{id}/cancel
  monitoring_path:
    description: The endpoint that counts duplicates.
    type: str
    default: /api/monitoring/duplicate-sessions
  log_files:
    description: Where the release's own lines begin in each log file, as RV(pm2_app#module:log_offsets) has it.
    type: dict
    default: {}
  log_before:
    description: A moment of each log since which only the release before wrote, as RV(pm2_app_info#module:logs) has it.
    type: dict
    default: {}
  log_error_pattern:
    description: A regular expression; a line that matches is an error line.
    type: str
    default: \bERROR\b|Unhandled|uncaughtException
attributes:
  check_mode:
    support: full
    description: V(session) and V(race) are not run and say so; signing in and reading are.
  diff_mode:
    support: none
    description: It changes nothing.
extends_documentation_fragment:
  - at_most_one.in_process
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Check the service after the cutover
  service_check:
    base_url: "{{ app_url }}"
    checks: [root, health, login, monitoring, session, log, race]
    credentials: "{{ healthcheck_user }}"
    admin_credentials: "{{ healthcheck_admin }}"
    canary: {equipment_serial: "{{ healthcheck_canary_serial }}"}
    log_files: "{{ reloaded.log_offsets }}"
"""

RETURN = r"""
checks:
  description:
    - Each check; C(ok) is null for one that was not run. C(got) has the status and the first line of the body.
    - C(phrases) has those texts that are phrases, for the reader's language.
  returned: always
  type: list
  elements: dict
  sample:
    - name: health
      ok: false
      request: GET /api/health
      expected: 200 with status ok or healthy
      got: '503 {"status":"unhealthy"}'
      seconds: 0.012
      statuses: []
      known: false
      phrases: {expected: {template: "200 with status {status}", values: {status: ok or healthy}}}
faults:
  description: Of V(monitoring) and V(race), as far as they were run, the statuses 5xx that came; none if all was well.
  returned: success
  type: dict
  sample: {monitoring: [500], race: []}
before:
  description: O(before).
  returned: success
  type: bool
  sample: false
faults_before:
  description: O(faults_before), with O(before=true) completed by RV(faults).
  returned: success
  type: dict
  sample: {monitoring: [500]}
found:
  description:
    - The faults that were there before the change, O(found) included, each with its policy and how to repair it.
    - C(after) is C(known) for one that is still there, C(repaired), or null where nobody has asked since.
  returned: success
  type: list
  elements: dict
  sample:
    - check: monitoring
      request: GET /api/monitoring/duplicate-sessions
      got: '500 {"error":"Failed"}'
      statuses: [500]
      policy: accept
      repair: qualify each column of the endpoint's query with its table.
      after: known
      phrases: {}
told:
  description: Those of RV(found) that are to be reported now.
  returned: success
  type: list
  elements: dict
  sample: []
all_ok:
  description: Whether every check that was run is as expected or known.
  returned: success
  type: bool
  sample: true
"""

import re
from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.errors import OperatorError
from ansible.module_utils.at_most_one.findings import joined, observed, say
from ansible.module_utils.at_most_one.http.client import place
from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one.service import fault_reports, health_checks
from ansible.module_utils.at_most_one.service.api_client import Settings
from ansible.module_utils.at_most_one.service.known_faults import ACCEPT, JUDGED, REFUSE, KnownFaults
from ansible.module_utils.at_most_one.service.nextauth import Credentials
from ansible.module_utils.at_most_one.system import log_errors
from ansible.module_utils.at_most_one_entry import Call, run

PERSON = {
    "email": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
}
POLICY = {"type": "str", "choices": [ACCEPT, REFUSE], "default": REFUSE}
OPTIONS = {
    "base_url": {"type": "str", "required": True},
    "checks": {
        "type": "list",
        "elements": "str",
        "choices": list(health_checks.CHECKS),
        "default": ["root", "health"],
    },
    "before": {"type": "bool", "default": False},
    "faults_before": {"type": "dict", "default": {}},
    "found": {"type": "list", "elements": "dict", "default": []},
    "language": {"type": "str", "choices": ["en", "ko"], "default": "en"},
    "known_faults": {"type": "dict", "default": {}, "options": dict.fromkeys(JUDGED, POLICY)},
    "fail": {"type": "bool", "default": True},
    "timeout_s": {"type": "float", "default": 10.0},
    "auth": {"type": "str", "choices": ["nextauth", "bearer"], "default": "nextauth"},
    "credentials": {"type": "dict", "options": PERSON},
    "admin_credentials": {"type": "dict", "options": PERSON},
    "bearer_token": {"type": "str", "no_log": True},
    "admin_bearer_token": {"type": "str", "no_log": True},
    "canary": {"type": "dict"},
    "plan": {"type": "dict"},
    "race_size": {"type": "int", "default": 8},
    "race_rounds": {"type": "int", "default": 1},
    "health_path": {"type": "str", "default": "/api/health"},
    "health_values": {"type": "list", "elements": "str", "default": ["ok", "healthy"]},
    "sessions_path": {"type": "str", "default": "/api/inspections/sessions"},
    "cancel_path": {"type": "str", "default": "/api/inspections/sessions/{id}/cancel"},
    "monitoring_path": {"type": "str", "default": "/api/monitoring/duplicate-sessions"},
    "log_files": {"type": "dict", "default": {}},
    "log_before": {"type": "dict", "default": {}},
    "log_error_pattern": {"type": "str", "default": log_errors.ERROR_PATTERN},
}


def _settings(params: dict[str, Any]) -> Settings:
    given = dict(params)
    names = given.pop("checks")
    for name in ("fail", "faults_before", "found", "known_faults", "language"):
        given.pop(name)
    given["before_change"] = given.pop("before")
    given["proof"] = proof = parse(given["plan"]).proof if given["plan"] else None
    given.pop("plan")
    has_body = proof is not None and proof.create.body is not None
    place(given["base_url"])
    if not given["canary"] and not has_body and {"session", "race"} & set(names):
        raise OperatorError(
            observed("AMO-1004", "The checks session and race have no canary."),
            expected=say("the body of a request that opens a session on an equipment which nobody inspects (canary)."),
            next_step=say("give canary, or leave session and race out of checks."),
        )
    if given["race_size"] < 2 or given["race_rounds"] < 1:
        raise OperatorError(
            observed(
                "AMO-1005",
                "race_size is {race_size}, race_rounds {race_rounds}.",
                race_size=given["race_size"],
                race_rounds=given["race_rounds"],
            ),
            expected=say("race_size 2 or more and race_rounds 1 or more: one creation alone is no race."),
            next_step=say("correct race_size and race_rounds."),
        )
    try:
        re.compile(given["log_error_pattern"])
    except re.error as broken:
        name = "log_error_pattern"
        raise OperatorError(
            observed("AMO-1006", "{name} is not a regular expression: {broken}.", name=name, broken=broken),
            expected=say("a regular expression as Python's re understands it."),
            next_step=say("correct {name}.", name=name),
        ) from broken
    for name in ("credentials", "admin_credentials"):
        given[name] = Credentials(**given[name]) if given[name] else None
    earlier = given.pop("log_before")
    given["log_files"] = {
        path: log_errors.mark_of(mark, earlier.get(path)) for path, mark in given["log_files"].items()
    }
    given["canary"] = given["canary"] or {}
    given["health_values"] = tuple(given["health_values"])
    return Settings(**given)


def act(call: Call) -> dict[str, Any]:
    given = call.params
    faults = KnownFaults(given["known_faults"], given["faults_before"])
    done = health_checks.run_checks(_settings(given), given["checks"], read_only=call.check_mode, faults=faults)
    for check in done:
        if check.ok and log_errors.NOT_COUNTED in check.got:
            call.warn(say("Lines of the release in its log: {lines}.", lines=check.got))
    excused = [check for check in done if check.known or (given["before"] and check.statuses)]
    failed = [check for check in done if check.ok is False and check not in excused]
    checks = [check.as_data() for check in done]
    if failed and given["fail"]:
        reasons = {check.name: faults.reason(check.name, check.statuses) for check in failed}
        listed = joined(
            say(
                "{check}: {request} got {got}{why}",
                check=check.name,
                request=check.request,
                got=check.got,
                why=say(" ({why})", why=why) if (why := reasons[check.name]) else "",
            )
            for check in failed
        )
        raise OperatorError(
            observed(
                "AMO-1007",
                "{failed} of {asked} checks of {base_url} are not as expected. {listed}.",
                failed=len(failed),
                asked=len(done),
                base_url=given["base_url"],
                listed=listed,
            ),
            expected=say("{expected}.", expected=joined(joined([one.name, one.expected], ": ") for one in failed)),
            next_step=say(
                "repeat the request by hand and read the application's log of that moment; after a "
                "cutover, roll back while the old release is still there."
            ),
            checks=checks,
            **{name: given[name] for name in ("before", "found")},
        )
    return {
        **{"changed": False, "checks": checks, "faults": health_checks.faults_of(done), "all_ok": not failed},
        **{"before": given["before"], **asdict(_followed(given, done))},
    }


def _followed(given: dict[str, Any], done: list[health_checks.Check]) -> fault_reports.Followed:
    if given["before"]:
        policy, language = given["known_faults"], given["language"]
        return fault_reports.before_change(
            done, given["faults_before"], given["found"], policy=policy, language=language
        )
    return fault_reports.after_change(done, given["faults_before"], given["found"])


def main() -> None:
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
