#!/usr/bin/python
"""Ansible module: watch one host of a service for a bounded time, and end at the first finding."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_watch
short_description: Watch one host of a service round by round, and end at the first finding
description:
  - A round is O(round_s) seconds of ordinary requests, and then a look at health, logs, instances and, with O(login),
    at the planned indexes and the duplicates.
  - A fact (duplicate, changed index, restarted instance, error line) counts at once. What may be a hiccup (a bad health
    answer, slow or failed requests, a database that does not answer) counts when two rounds in a row have it.
  - The task calls it a minute at a time. Between two of them it asks whether the task has found something, or failed,
    on another host; then it ends here as well.
  - It writes nothing anywhere.
options:
  state:
    description:
      - V(baseline) measures for O(seconds) how fast the service answers, and says how its instances and logs are now.
      - V(watched) does the same for O(baseline_s) unless O(since) is given, then watches for O(seconds) or until
        something counts.
    type: str
    choices: [baseline, watched]
    default: watched
  base_url:
    description: Where this host answers, without a slash at the end.
    type: str
    required: true
  paths:
    description:
      - What is asked in a round, by name. Each must be answered with 200. By default C(page), which is C(/), and
        C(health), which is O(health_path). Without a C(page) it is not checked either, as a service may redirect there.
    type: dict
  rate_per_s:
    description: Requests per second over all O(paths); at least 10 while it measures what is compared with.
    type: float
    default: 2
  timeout_s:
    description: Seconds for each step of a request.
    type: float
    default: 10
  seconds:
    description: How long it lasts; the round that is under way is finished.
    type: float
    required: true
  baseline_s:
    description:
      - With V(watched) and without O(since), seconds to measure for how the service answers before the watch begins.
      - With V(0) nothing is measured, and nothing is compared with it.
    type: float
    default: 0
  before:
    description: RV(since) from before a deployment, whose medians take the place of those of O(baseline_s).
    type: dict
    default: {}
  round_s:
    description: Seconds of one round.
    type: float
    default: 15
  health_path:
    description: The health endpoint.
    type: str
    default: /api/health
  health_values:
    description: Values of C(status) in its answer that mean well.
    type: list
    elements: str
    default: [ok, healthy]
  name:
    description: The application's name in PM2. Without it, instances and logs are not watched.
    type: str
  log_error_pattern:
    description: A regular expression; a line that an instance logs and that matches is an error line.
    type: str
    default: \bERROR\b|Unhandled|uncaughtException
  log_offsets:
    description:
      - With O(state=baseline) or O(baseline_s), where the release's own lines begin in each log, as
        RV(pm2_app#module:log_offsets) has it, so that the errors of the release before are known, too. Without it those
        that are written during O(seconds).
    type: dict
    default: {}
  login:
    description: Where the database is. Without it, it is not looked at.
    type: dict
    suboptions:
      host:
        description: Host name or address of the server.
        type: str
        required: true
      port:
        description: TCP port of the server.
        type: int
        default: 5432
      dbname:
        description: Name of the database.
        type: str
        required: true
      user:
        description: Role to connect as.
        type: str
        required: true
      password:
        description: Password of the role.
        type: str
        required: true
      sslmode:
        description: How much the connection insists on TLS, as libpq understands it.
        type: str
        default: prefer
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
      sslrootcert: {description: "The authority's certificate, as in M(deploy_run).", type: str, default: ""}
      sslcert: {description: "Our certificate, as in M(deploy_run).", type: str, default: ""}
      sslkey: {description: "Its key, as in M(deploy_run).", type: str, default: ""}
  plan:
    description: The plan whose indexes and rule must hold; with O(login).
    type: dict
  since:
    description: What a round is compared with, as RV(since) returned it.
    type: dict
    default: {}
  suspects:
    description: What the last round of the call before had, as RV(suspects) returned it.
    type: list
    elements: str
    default: []
  latency_factor:
    description: How many times the median before makes a request slow.
    type: float
    default: 3
  latency_floor_ms:
    description: Milliseconds; a faster median is never slow.
    type: float
    default: 100
  failed_percent:
    description: Percent of a round's requests that may fail.
    type: float
    default: 10
  error_lines:
    description: Error lines that may have been logged since the watch began.
    type: int
    default: 0
requirements:
  - psycopg2 >= 2.9, with O(login)
extends_documentation_fragment:
  - at_most_one.pm2
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Watch for five minutes, compared with how it is now
  service_watch:
    base_url: "{{ app_url }}"
    name: aedpics
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    baseline_s: 10
    seconds: 300
"""

RETURN = r"""
since:
  description: What rounds are compared with, as it was measured or given.
  returned: always
  type: dict
  contains:
    latency_ms: {description: "The median of each path, in milliseconds.", type: dict}
    instances: {description: "Each instance's pid and number of restarts, by its pm_id.", type: dict}
    log_offsets: {description: "Where the watch begins in each log, and what it is compared with.", type: dict}
  sample: {latency_ms: {health: 3.2, page: 8.1}, instances: {"0": [4242, 1]}, log_offsets: {}}
rounds:
  description: Each round, with what was not as it should be, whether or not it counts.
  returned: O(state=watched)
  type: list
  elements: dict
  sample: [{at: 1762752600.0, latency_ms: {health: 3.4}, requests: 30, failures: 0, duplicates: 0, findings: []}]
findings:
  description: What counts. Each has C(name), C(seen), C(expected) and C(next_step).
  returned: O(state=watched)
  type: list
  elements: dict
  sample: []
suspects:
  description: Kinds of hiccup in the last round, for the next call.
  returned: O(state=watched)
  type: list
  elements: str
  sample: [latency]
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PM2_SPEC, PSYCOPG2_ERROR, login_of, pm2_of, run
from ansible.module_utils.basic import AnsibleModule, missing_required_lib

LOGIN = {**LOGIN_SPEC["login"], "required": False}


def act(module: AnsibleModule) -> dict[str, Any]:
    """Do what ``state`` says."""
    from ansible.module_utils.at_most_one.service import watch
    from ansible.module_utils.at_most_one.service.api_client import Settings as Visiting
    from ansible.module_utils.at_most_one.service.traffic_probe import Settings

    given = module.params
    paths = {"page": "/", "health": given["health_path"]} if given["paths"] is None else given["paths"]
    watcher = watch.Watcher(
        Settings(watch.targets(given["base_url"], paths), given["rate_per_s"], timeout_s=given["timeout_s"]),
        Visiting(
            given["base_url"],
            given["timeout_s"],
            health_path=given["health_path"],
            health_values=tuple(given["health_values"]),
        ),
        pm2_of(module),
        given["name"],
        given["log_error_pattern"],
        _database(module),
    )
    if given["state"] == "baseline":
        return {"changed": False, "since": asdict(watcher.begin(given["seconds"], given["log_offsets"]))}
    since = watch.Since(**given["since"])
    if given["baseline_s"] and not given["since"]:
        since = watcher.begin(given["baseline_s"], given["log_offsets"], given["before"].get("latency_ms"))
    names = ("latency_factor", "latency_floor_ms", "failed_percent", "error_lines")
    done = watch.watch(
        lambda: watcher.look(since, given["round_s"]),
        since,
        watch.Limits(**{name: given[name] for name in names}),
        seconds=given["seconds"],
        suspects=given["suspects"],
    )
    return {
        "changed": False,
        "since": asdict(since),
        "rounds": done.rounds,
        "findings": [one.as_data() for one in done.findings],
        "suspects": done.suspects,
    }


def _database(module: AnsibleModule) -> Any:
    """What asks the planned indexes and the duplicates; None without O(login)."""
    if not module.params["login"]:
        return None
    if PSYCOPG2_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    from ansible.module_utils.at_most_one.indexes import verification

    login, plan = login_of(module), parse(module.params["plan"])
    return lambda: verification.look(login, plan)


def main() -> None:
    """Entry point."""
    from ansible.module_utils.at_most_one.system import log_errors

    run(
        {
            "state": {"type": "str", "choices": ["baseline", "watched"], "default": "watched"},
            "base_url": {"type": "str", "required": True},
            "paths": {"type": "dict"},
            "rate_per_s": {"type": "float", "default": 2.0},
            "timeout_s": {"type": "float", "default": 10.0},
            "seconds": {"type": "float", "required": True},
            "baseline_s": {"type": "float", "default": 0.0},
            "before": {"type": "dict", "default": {}},
            "round_s": {"type": "float", "default": 15.0},
            "health_path": {"type": "str", "default": "/api/health"},
            "health_values": {"type": "list", "elements": "str", "default": ["ok", "healthy"]},
            "name": {"type": "str"},
            **PM2_SPEC,
            "log_error_pattern": {"type": "str", "default": log_errors.ERROR_PATTERN},
            "log_offsets": {"type": "dict", "default": {}},
            "login": LOGIN,
            "plan": {"type": "dict"},
            "since": {"type": "dict", "default": {}},
            "suspects": {"type": "list", "elements": "str", "default": []},
            "latency_factor": {"type": "float", "default": 3.0},
            "latency_floor_ms": {"type": "float", "default": 100.0},
            "failed_percent": {"type": "float", "default": 10.0},
            "error_lines": {"type": "int", "default": 0},
        },
        act,
        needs_psycopg2=False,
        required_by={"login": "plan"},
    )


if __name__ == "__main__":
    main()
