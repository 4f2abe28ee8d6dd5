#!/usr/bin/python
"""Ansible module: is this the server that the plan can be applied to, now?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_preflight
short_description: Check the server, the tables and Prisma's history before anything is changed
description:
  - Reads the server's version, whether it is a primary, the role's privileges, the plan's tables and columns,
    replica identity, replication lag and long transactions, and fails with every obstacle it finds, not only the first.
  - It finds out whether the connection goes through a pooler in transaction mode, which would give the locks and the
    settings of this session to others. For that it opens a second connection for an instant.
  - It reads what the run would set off by itself, triggers, rules, event triggers and foreign keys, and fails unless
    the plan names it. Then up to 5 surplus rows leave by the statements of the removal and return by those of the
    restore, in a transaction that is rolled back. It fails when one would not come back as it was, and when another
    table is written meanwhile that the plan does not name. Without surplus rows there is nothing to try.
  - With O(release_path) it reads Prisma's history as M(prisma_history_info) does, and says when the migration could not
    be built from that release with O(strategy), so that a person hears of it before a row is removed. With
    O(adapter=sql) it says so of the build without Prisma.
  - With O(history) it asks the tool, and then makes sure that the tool asks this database. For that the tool is asked
    once more with an address at which no server is, where it must not answer.
  - It changes nothing, in check mode or not. Sequences of the archive move on.
options:
  max_transaction_age_s:
    description: Seconds; a transaction open for longer stops the run, because locks and index builds wait for it.
    type: int
    default: 60
  max_replication_lag_s:
    description: Seconds; a replica that lags further behind stops the run.
    type: int
    default: 30
  release_path:
    description: The release whose migrations Prisma's history is compared with. Without it the history is not read.
    type: path
  source:
    description:
      - In check mode, where the release is taken from as long as O(release_path) does not exist. Its C(prisma/) is
        fetched into a temporary directory that is removed again.
    type: dict
    suboptions:
      path:
        description: The checkout that is deployed now, or a link to it.
        type: path
        required: true
      origin:
        description: The name of one of its remotes, or an address.
        type: str
        default: origin
      commit:
        description: The commit of the release.
        type: str
        required: true
  served_commit:
    description: The commit that is served now; the commits between it and the release's are read, newest first.
    type: str
  adapter:
    description: As O(index_set#module:adapter).
    type: str
    choices: [prisma, sql]
    default: prisma
  migration_sql:
    description: As O(index_set#module:migration_sql).
    type: str
    default: ""
  strategy:
    description: The strategy that M(index_set) is going to build with.
    type: str
    choices: [prisma, concurrent, locked, auto]
    default: auto
  max_write_pause_ms:
    description: With O(strategy=auto), how many milliseconds a writer may be kept waiting by a build.
    type: int
    default: 500
  details:
    description: What else the phase is recorded with. RV(facts) is recorded as C(database).
    type: dict
    default: {}
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.run
  - at_most_one.phase
  - at_most_one.history
attributes:
  check_mode:
    support: full
    description: Leaves nothing in the database, and records no phase.
  diff_mode:
    support: none
    description: There is no change to show.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Check the server, and whether the migration can be built from the release
  database_preflight:
    login: "{{ database_login }}"
    plan: "{{ lookup('ansible.builtin.file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    release_path: /var/www/aedpics.releases/3f616e0
"""

RETURN = r"""
facts:
  description: What was read.
  returned: success
  type: dict
  sample:
    version: "15.18"
    in_recovery: false
    replication_lag_s: 0.0
    trial:
      effects: ["trigger audit of aedpics.inspection_sessions (AFTER DELETE FOR EACH ROW: aedpics.audit)"]
      foreign_keys: []
      wrote: [aedpics.audit_log]
      rows: 5
    tables: {inspection_sessions: {kind: table, rows: 68, bytes: 81920, owned: true}}
phrases:
  description: >-
    C(effects) and C(foreign_keys) of RV(facts), each list as one phrase: a template and what fills it, for the reader's
    language.
  returned: success
  type: dict
  sample:
    effects: {template: "{part_0}", values: {part_0: "trigger audit of aedpics.inspection_sessions"}}
    foreign_keys: {template: "", values: {}}
history:
  description: What Prisma's history says of the plan's migration; with O(adapter=sql) the catalog in its place, and
    the tool's of O(history).
  returned: with O(release_path) or O(adapter=sql)
  type: dict
  contains:
    verdict: {description: "As M(prisma_history_info) gives it.", type: str}
    pending: {description: The migrations that a deploy would apply., type: list, elements: str}
    strategy: {description: "How it would be built; none when there is nothing to build.", type: str}
    refusal: {description: Why it could not be built; empty when it could., type: str}
    findings: {description: What that consists of., type: list, elements: dict}
    indexes_exact: {description: Whether exactly the planned indexes are there and valid., type: bool}
    duplicates_left: {description: How many groups of rows break the rule., type: int}
  sample: {verdict: pending, pending: [20251110_add_partial_unique_indexes], strategy: prisma, refusal: "",
    findings: [], indexes_exact: false, duplicates_left: 25}
commits:
  description: The commits between O(served_commit) and the release's, a line each, newest first.
  returned: with O(release_path) or O(adapter=sql)
  type: list
  elements: str
  sample: ["4f2a9c1 Add the partial unique indexes"]
complete:
  description: Whether the migration is applied and its indexes hold, so that no row can leave any more.
  returned: with O(release_path) or O(adapter=sql)
  type: bool
  sample: false
recorded:
  description: Whether the phase was recorded, because nothing of it was left to be done.
  returned: success
  type: bool
  sample: false
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one.plan import Plan, parse
from ansible.module_utils.at_most_one_entry import (
    HISTORY_SPEC,
    PHASE_SPEC,
    WRITING_SPEC,
    history_of,
    login_of,
    record_phase,
    run,
    timeouts_of,
)
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Read and judge."""
    from ansible.module_utils.at_most_one.findings import joined, warning
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.preflight import out_and_back, server_checks

    limits = server_checks.Limits(module.params["max_transaction_age_s"], module.params["max_replication_lag_s"])
    plan = parse(module.params["plan"])
    with connect(login_of(module), **timeouts_of(module)) as connection:
        facts = server_checks.read(connection, plan, limits)
        trial = out_and_back.try_out(connection, plan)
    if weak := server_checks.weak_tls(login_of(module)):
        module.warn(warning(weak))
    for told in trial.warnings:
        module.warn(told)
    facts = {**facts, "trial": {name: value for name, value in asdict(trial).items() if name != "warnings"}}
    phrases = {"effects": joined(trial.effects).as_data(), "foreign_keys": joined(trial.foreign_keys).as_data()}
    answer: dict[str, Any] = {"changed": False, "facts": facts, "phrases": phrases, "recorded": False}
    if module.params["release_path"] is None and module.params["adapter"] == "prisma":
        return answer
    answer |= _of_release(module, plan)
    # With the rule's indexes there and the migration applied no row can leave: nothing is left of the phase to be done.
    answer["complete"] = answer["history"]["verdict"] == "applied" and answer["history"]["indexes_exact"] is True
    if module.params["phase"] is not None and answer["complete"] and not module.check_mode:
        record_phase(module, "unchanged", {**module.params["details"], "database": facts})
        answer["recorded"] = True
    return answer


def _of_release(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.release import git_origin

    if module.params["release_path"] is None:  # without an application there is none
        return {"history": _history(module, plan, None, ""), "commits": []}
    source, release = module.params["source"], Path(module.params["release_path"])
    if source:  # also where it is not asked: an address may carry a token, and the arguments are in every answer
        module.no_log_values.update(git_origin.remote(Path(source["path"]), source["origin"]).secrets)
    served = module.params["served_commit"]
    commits = git_origin.commits_since(release, served) if served and release.exists() else []
    if source and module.check_mode and not release.exists() and module.params["adapter"] == "prisma":
        with git_origin.unpacked(Path(source["path"]), source["origin"], source["commit"], "prisma") as place:
            return {"history": _history(module, plan, place, source["path"]), "commits": commits}
    return {"history": _history(module, plan, release, str(release)), "commits": commits}


def _history(module: AnsibleModule, plan: Plan, release: Path | None, named: str) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.migration import build, readiness

    given, timeouts = module.params, timeouts_of(module)
    options = build.Options(given["strategy"], given["max_write_pause_ms"], 1, 0, 0, **timeouts)
    login = login_of(module)
    if given["adapter"] == "sql":
        found = readiness.read_by_sql(login, plan, given["migration_sql"], options, history_of(module, plan))
    else:
        found = readiness.read(login, plan, release, options, named=named, check=module.check_mode, **timeouts)
    return {
        "verdict": found.verdict.verdict,
        "pending": list(found.verdict.pending),
        "strategy": found.strategy,
        "refusal": found.refusal,
        "findings": [one.as_data() for one in found.findings],
        "indexes_exact": found.indexes_exact,
        "duplicates_left": found.duplicates_left,
    }


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            **WRITING_SPEC,
            **PHASE_SPEC,
            **HISTORY_SPEC,
            "max_transaction_age_s": {"type": "int", "default": 60},
            "max_replication_lag_s": {"type": "int", "default": 30},
            "release_path": {"type": "path"},
            "source": {
                "type": "dict",
                "options": {
                    "path": {"type": "path", "required": True},
                    "origin": {"type": "str", "default": "origin"},
                    "commit": {"type": "str", "required": True},
                },
            },
            "served_commit": {"type": "str"},
            "adapter": {"type": "str", "choices": ["prisma", "sql"], "default": "prisma"},
            "migration_sql": {"type": "str", "default": ""},
            "strategy": {"type": "str", "choices": ["prisma", "concurrent", "locked", "auto"], "default": "auto"},
            "max_write_pause_ms": {"type": "int", "default": 500},
            "details": {"type": "dict", "default": {}},
        },
        act,
        required_by={"source": ("release_path",), "phase": ("run_id",)},
    )


if __name__ == "__main__":
    main()
