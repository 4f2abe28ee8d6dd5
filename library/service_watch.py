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
  - It writes nothing anywhere.
options:
  state:
    description:
      - V(baseline) measures for O(seconds) how fast the service answers, and says how its instances and logs are now.
      - V(watched) watches for O(seconds) or until something counts.
    type: str
    choices: [baseline, watched]
    default: watched
  base_url:
    description: Where this host answers, without a slash at the end.
    type: str
    required: true
  paths:
    description: What is asked in a round, by name. Each must be answered with 200.
    type: dict
    default: {page: /, health: /api/health}
  rate_per_s:
    description: Requests per second over all O(paths).
    type: float
    default: 2
  timeout_s:
    description: Seconds for each step of a request.
    type: float
    default: 10
  seconds:
    description: How long this call lasts; the round that is under way is finished.
    type: float
    required: true
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
  pm2:
    description: The pm2 executable.
    type: str
    default: pm2
  pm2_home:
    description: PM2_HOME of the daemon; the environment's, or C(~/.pm2).
    type: path
  environment_path:
    description: Directories to search before PATH, so that node is found.
    type: str
  log_error_pattern:
    description: A regular expression; a line that an instance logs and that matches is an error line.
    type: str
    default: \bERROR\b|Unhandled|uncaughtException
  log_offsets:
    description:
      - With V(baseline), where the release's own lines begin in each log, as RV(pm2_app#module:log_offsets) has it, so
        that the errors of the release before are known, too. Without it those that are written during O(seconds).
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
    description: What a round is compared with, as O(state=baseline) returned it.
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
attributes:
  check_mode:
    support: full
    description: Only ever reads.
  diff_mode:
    support: none
    description: It changes nothing.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Remember how it is now
  service_watch:
    state: baseline
    base_url: "{{ app_url }}"
    name: aedpics
    seconds: 10
  register: before

- name: Watch for five minutes
  service_watch:
    base_url: "{{ app_url }}"
    name: aedpics
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    since: "{{ before.since }}"
    seconds: 300
"""

RETURN = r"""
since:
  description: How it is now, for later rounds to be compared with.
  returned: O(state=baseline)
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

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import DATABASE_ERROR, LOGIN_SPEC, PSYCOPG2_ERROR, login_of, run
from ansible.module_utils.basic import AnsibleModule, missing_required_lib

LOGIN = {**LOGIN_SPEC["login"], "required": False}


def act(module: AnsibleModule) -> dict[str, Any]:
    """Do what ``state`` says."""
    from ansible.module_utils.at_most_one.pm2 import client
    from ansible.module_utils.at_most_one.service import watch
    from ansible.module_utils.at_most_one.service.api_client import Settings as Visiting
    from ansible.module_utils.at_most_one.service.traffic_probe import Settings
    from ansible.module_utils.at_most_one.system import log_errors

    given = module.params
    asking = Settings(watch.targets(given["base_url"], given["paths"]), given["rate_per_s"],
                      timeout_s=given["timeout_s"])  # fmt: skip
    home = given["pm2_home"] or os.environ.get("PM2_HOME") or os.path.expanduser("~/.pm2")
    target = client.Pm2(given["pm2"], home, given["environment_path"])
    if given["state"] == "baseline":
        listed = client.listing(target, given["name"]).instances if given["name"] else ()
        began = log_errors.moments(path for one in listed for path in (one.out_log, one.err_log))
        since = watch.Since(
            watch.medians(watch.measure(asking, given["seconds"])),
            {str(one.pm_id): (one.pid, one.restarts) for one in listed},
            watch.marks(listed, began, given["log_offsets"]),
        )
        return {"changed": False, "since": asdict(since)}
    since = watch.Since(**given["since"])
    visiting = Visiting(
        given["base_url"],
        given["timeout_s"],
        health_path=given["health_path"],
        health_values=tuple(given["health_values"]),
    )
    database = _database(module)

    def look() -> watch.Seen:
        figures = watch.measure(asking, given["round_s"])
        faults, duplicates = database()
        return watch.Seen(
            figures,
            watch.health(visiting),
            watch.scans(since.log_offsets, given["log_error_pattern"]),
            watch.listed(target, given["name"]) if given["name"] else None,
            faults,
            duplicates,
        )

    names = ("latency_factor", "latency_floor_ms", "failed_percent", "error_lines")
    limits = watch.Limits(**{name: given[name] for name in names})
    done = watch.watch(look, since, limits, seconds=given["seconds"], suspects=given["suspects"])
    return {"changed": False, **asdict(done)}


def _database(module: AnsibleModule) -> Callable[[], tuple[Any, int | None]]:
    """A look at the planned indexes and the duplicates: the faults, or the error that hid them; and the groups."""
    if not module.params["login"]:
        return lambda: (None, None)
    if PSYCOPG2_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    from ansible.module_utils.at_most_one.errors import OperatorError
    from ansible.module_utils.at_most_one.indexes import verification
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.postgres.server_errors import first_line

    login, plan = login_of(module), parse(module.params["plan"])

    def look() -> tuple[Any, int | None]:
        try:
            with connect(login) as connection:
                found = verification.inspect(connection, plan)
                connection.rollback()
        except OperatorError as stop:
            return stop, None
        except DATABASE_ERROR as failure:
            return OperatorError(
                f"PostgreSQL refused a look at the indexes: {first_line(failure)}.",
                expected="an answer within the timeouts.",
                next_step="look at pg_stat_activity and at the server's log of this moment.",
            ), None
        return [fault for one in found.verdicts if (fault := one.fault())], found.duplicates_left

    return look


def main() -> None:
    """Entry point."""
    from ansible.module_utils.at_most_one.system import log_errors

    run(
        {
            "state": {"type": "str", "choices": ["baseline", "watched"], "default": "watched"},
            "base_url": {"type": "str", "required": True},
            "paths": {"type": "dict", "default": {"page": "/", "health": "/api/health"}},
            "rate_per_s": {"type": "float", "default": 2.0},
            "timeout_s": {"type": "float", "default": 10.0},
            "seconds": {"type": "float", "required": True},
            "round_s": {"type": "float", "default": 15.0},
            "health_path": {"type": "str", "default": "/api/health"},
            "health_values": {"type": "list", "elements": "str", "default": ["ok", "healthy"]},
            "name": {"type": "str"},
            "pm2": {"type": "str", "default": "pm2"},
            "pm2_home": {"type": "path"},
            "environment_path": {"type": "str"},
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
