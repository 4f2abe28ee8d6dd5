#!/usr/bin/python
"""Ansible module: the plan's indexes, exactly: verified by definition, built, or taken away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: index_set
short_description: Verify, build or remove exactly the indexes of a plan
description:
  - Compares the planned indexes with the catalog by definition, never by name alone. The expected index is built on an
    empty temporary copy of its table, in a savepoint that is rolled back, and both are rendered in one session.
  - An index of the planned name in another schema does not count. An index that matches the plan's family without being
    planned or a known neighbour is a fault.
options:
  state:
    description:
      - V(verified) fails on any fault, see O(fail). With O(release_path) that includes Prisma's history, which has to
        agree with the catalog; with O(history) the tool's. It changes nothing but the fence, with O(lower_fence).
      - V(present) builds the indexes and has the migration of O(release_path) in Prisma's history, unless both are so
        already. See O(strategy). The result is judged by exit codes, the history and the catalog. With O(adapter=sql)
        it builds the indexes, and the catalog alone judges; with O(history) the tool is told then, and asked again.
      - V(absent) drops the planned indexes with C(DROP INDEX CONCURRENTLY). Nobody waits for it, but it waits for every
        transaction that uses the table. Prisma's history must be marked afterwards, see M(prisma_history).
    type: str
    choices: [verified, present, absent]
    default: verified
  fail:
    description:
      - With O(state=verified), whether anything but exactly the planned indexes, all valid, and no duplicate is an
        error; with O(release_path), also any other history than V(applied).
      - With V(false) the faults are only returned.
    type: bool
    default: true
  fail_on_duplicates:
    description:
      - With O(state=present), whether a duplicate in the way of the build is an error. With V(false) RV(blocked) says
        so, for who cleans up and builds again.
    type: bool
    default: true
  adapter:
    description:
      - V(prisma) has the migration in Prisma's history, and lets Prisma build where O(strategy) says so.
      - V(sql) needs neither Prisma nor Node. The indexes are built as O(plan) defines them. Prisma's history is neither
        read nor written. Another tool's is kept with O(history).
    type: str
    choices: [prisma, sql]
    default: prisma
  migration_sql:
    description:
      - With O(adapter=sql), the text of the plan's C(migration.sql). It is compared with O(plan), its comments on the
        indexes are made, and one that does more than to build the planned indexes is refused.
      - Empty where there is none.
    type: str
    default: ""
  strategy:
    description:
      - V(prisma) lets C(prisma migrate deploy) build. Writers on the planned tables wait meanwhile. Where some of the
        indexes are there already, or an attempt has left them and did not get the next lock, the rest is built as with
        V(concurrent), and what is there is kept.
      - V(concurrent) builds each index with C(CREATE INDEX CONCURRENTLY), for which nobody waits, repairs planned ones
        that were abandoned INVALID, records the migration as Prisma records it and lets C(prisma migrate deploy) and
        C(prisma migrate status) agree. The migration must do nothing but build exactly the planned indexes; C(SET
        search_path), C(DROP INDEX IF EXISTS) before, C(COMMENT ON INDEX) after, C(BEGIN) and C(COMMIT) are part of
        that.
      - V(locked) is for O(adapter=sql). It builds in one transaction that locks the planned tables against writers, and
        asks again for a lock that it does not get within O(lock_timeout_ms).
      - V(auto) measures on a sample how long writers would wait, and takes V(prisma), or V(locked) with
        O(adapter=sql), up to O(max_write_pause_ms) and V(concurrent) beyond it, when some of the planned indexes are
        there already, or when the migration says C(CONCURRENTLY) and does nothing else. V(locked) that does not get its
        lock in any attempt goes on as V(concurrent) then.
    type: str
    choices: [prisma, concurrent, locked, auto]
    default: prisma
  max_write_pause_ms:
    description: With O(strategy=auto), how many milliseconds a writer may be kept waiting by a build.
    type: int
    default: 500
  release_path:
    description:
      - The release whose C(prisma/) and C(node_modules/) are used. Required with O(adapter=prisma) and
        O(state=present) or O(lower_fence).
      - With O(state=verified), the release whose migrations Prisma's history is compared with.
    type: path
  lower_fence:
    description:
      - With O(state=verified), lower the plan's write fence once everything was verified, as M(write_fence) does. A
        fence that cannot be dropped by then is no failure, but a warning.
    type: bool
    default: false
  race:
    description:
      - With O(state=verified), whether two sessions insert a row of one key at once, in transactions that are rolled
        back. It is the proof of the rule where no application can be asked, and the task fails when an insert goes
        through.
      - Both copy a row that is inside the rule. Where there is none, or where an insert would set off a trigger that
        the plan does not allow, RV(race) says that it was not tried.
    type: bool
    default: false
  fence_lock_timeout_ms:
    description: As O(write_fence#module:lock_timeout_ms), for O(lower_fence).
    type: int
    default: 3000
  fence_lock_attempts:
    description: As O(write_fence#module:lock_attempts), for O(lower_fence).
    type: int
    default: 10
  cutover_hosts:
    description:
      - With O(state=verified), how many hosts the run switches next. Where O(run_id) is asked to pause, or to wait
        before the cutover, the call ends once that is lifted; where it is asked to end, the call fails. See
        M(run_control).
      - With V(0), and in check mode, nobody is asked.
    type: int
    default: 0
  phase_details:
    description: What else to keep about O(phase), beside what the call found. Without secrets.
    type: dict
    default: {}
  environment_path:
    description: Put in front of PATH for Prisma, so that it finds C(node).
    type: str
  attempts:
    description:
      - With O(state=present), how often a build is tried whose lock was not obtained within O(lock_timeout_ms).
      - Each attempt makes writers wait for as long as it waits itself.
    type: int
    default: 5
  deadline_s:
    description:
      - With O(state=present), the longest time for all attempts, or for all concurrent builds, together; waits for
        another migration and for long transactions included.
      - With O(state=absent), the longest time for one drop. An index whose drop was cut short stays behind INVALID, and
        is dropped by the next run.
    type: int
    default: 300
  prisma_timeout_s:
    description: The longest time for one call of Prisma. Then it is ended, and the catalog says how far it came.
    type: int
    default: 180
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.run
  - at_most_one.phase
  - at_most_one.history
attributes:
  check_mode:
    support: full
    description: Says what would be built or dropped. Prisma is not called.
  diff_mode:
    support: full
    description: Shows the definitions that are there before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Ensure that the planned indexes are there
  index_set:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: present
    release_path: /var/www/aedpics.releases/3f616e0
    run_id: 20251110T053000Z-1a2b3c
    lock_timeout_ms: 2000

- name: Ensure that the planned indexes are there, without Prisma
  index_set:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: present
    adapter: sql
    strategy: auto
    run_id: 20251110T053000Z-1a2b3c

- name: Check that exactly the planned indexes are there, and no duplicate
  index_set:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: verified

- name: Check that the indexes hold and that Prisma's history agrees, then lower the fence and record the phase
  index_set:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: verified
    release_path: /var/www/aedpics.releases/3f616e0
    lower_fence: true
    run_id: 20251110T053000Z-1a2b3c
    phase: verify

- name: Ensure that the planned indexes are gone
  index_set:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    state: absent
"""

RETURN = r"""
indexes:
  description: One entry for each planned index, and one for each unexpected index of the family, after any change.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Name of the index., type: str}
    verdict: {description: "present, missing, different, invalid or unexpected.", type: str}
    parts: {description: "What differs from the plan: part, expected, seen.", type: list, elements: dict}
    valid: {description: Whether queries may use it; a unique one may still reject duplicates when false., type: bool}
    ready: {description: Whether it is kept up to date and rejects duplicates., type: bool}
    live: {description: Whether it is not being dropped., type: bool}
    building: {description: "pid, phase and percent of the build that is running now, if there is one.", type: dict}
    definition: {description: The definition as the catalog renders it., type: str}
  sample:
    - name: idx_inspection_schedules_active
      verdict: different
      parts: [{part: predicate, expected: "(status <> 'cancelled'::aedpics.schedule_status)", seen: none}]
      valid: true
      ready: true
      live: true
      building:
      definition: >-
        CREATE INDEX idx_inspection_schedules_active ON aedpics.inspection_schedules
        USING btree (aed_data_id, scheduled_for)
exact:
  description: Whether exactly the planned indexes are there, all valid, ready and live.
  returned: success
  type: bool
  sample: true
duplicates_left:
  description: How many groups of rows break the plan's rule.
  returned: success
  type: int
  sample: 0
summary:
  description: The same in one line for a person.
  returned: success
  type: str
  sample: 3 of 3 planned indexes present and valid, 0 unexpected, 0 duplicate groups
phrases:
  description: RV(summary) by its name, as the phrase that a translation is made of.
  returned: success
  type: dict
  sample: {summary: {template: "{present} of {planned} planned indexes present", values: {present: 3, planned: 3}}}
statements:
  description: The statements that were run, or would be. With O(strategy=prisma) Prisma runs its own wording of them.
  returned: O(state=present), O(state=absent) or O(lower_fence=true)
  type: list
  elements: str
  sample:
    - DROP INDEX CONCURRENTLY IF EXISTS "aedpics"."idx_inspection_schedules_active"
fence:
  description: The fence after this task; in check mode, as it would be. See M(write_fence).
  returned: O(lower_fence=true)
  type: str
  sample: lowered
race:
  description:
    - What came of O(race). C(verdict), proven or C(not tried), C(index), C(answers), the SQLSTATE and the index that
      PostgreSQL has answered to each insert, and C(why) it was not tried.
  returned: O(race=true), not in check mode
  type: dict
  sample:
    verdict: proven
    index: one_enrolments_per_user_id_course_id
    answers: [23505 one_enrolments_per_user_id_course_id, 23505 one_enrolments_per_user_id_course_id]
    why: ""
history:
  description:
    - Prisma's history on the plan's migration, see M(prisma_history_info). With O(adapter=sql) V(applied) when exactly
      the planned indexes are there, else V(pending). With O(history) the tool has to agree. Verified, that is
      V(applied), V(pending), or V(later) where later migrations are applied too.
  returned: O(state=present), or O(state=verified) with O(release_path) or O(history)
  type: str
  sample: applied
told:
  description: The command by which the tool of O(history) was told that the migration is applied, or would be. Empty
    where it had recorded it.
  returned: O(state=present) with O(history)
  type: str
  sample: alembic stamp 0007
blocked:
  description: The duplicate that was in the way of the build, in whole phrases; empty when it was not.
  returned: O(state=present)
  type: str
  sample: ""
pending:
  description: The migrations that C(prisma migrate deploy) applied, or would.
  returned: O(state=present)
  type: list
  elements: str
  sample: [20251110_add_partial_unique_indexes]
repaired:
  description:
    - Whether the migration had failed before, as after a kill, and nothing of it was there. Its row in Prisma's history
      is then marked rolled back first.
  returned: O(state=present)
  type: bool
  sample: false
strategy:
  description:
    - The way that was taken, prisma, locked or concurrent; none when there was nothing to build or to record.
    - Concurrent with O(attempts) above 0 in the answer means that Prisma began, or that the lock was asked for, and did
      not get it for the rest.
  returned: O(state=present)
  type: str
  sample: concurrent
attempts:
  description: How often Prisma was called to build, or the lock of V(locked) asked for; 0 with a concurrent build.
  returned: O(state=present)
  type: int
  sample: 1
seconds: {description: "How long that took, waits included.", returned: O(state=present), type: float, sample: 1.4}
write_pause_predicted_ms:
  description: How long a build in one transaction would keep writers waiting, measured on a sample of the tables.
  returned: O(state=present)
  type: int
  sample: 5100
write_pause_ms:
  description: The longest wait of a writer on the planned tables, sampled about twenty times a second.
  returned: O(state=present)
  type: int
  sample: 0
stalled_by:
  description:
    - The transactions that a concurrent build had to wait for, as seen before it began. C(pid), C(user),
      C(application), C(client), C(state), C(age_s), C(query) without its literals, and C(on_the_table), false for a
      mere snapshot.
  returned: O(state=present)
  type: list
  elements: dict
  sample:
    - {pid: 4711, user: reporting, application: psql, client: 192.0.2.7, state: idle in transaction, age_s: 912,
       query: 'SELECT ?', on_the_table: false}
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.at_most_one.plan import Plan, parse
from ansible.module_utils.at_most_one_entry import (
    HISTORY_SPEC,
    PHASE_SPEC,
    WRITING_SPEC,
    held_run,
    history_of,
    login_of,
    lower_fence,
    record_phase,
    run,
    timeouts_of,
)
from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ansible.module_utils.at_most_one.indexes.verification import Inspection


def act(module: AnsibleModule) -> dict[str, Any]:
    """Do what ``state`` says."""
    _require_fitting(module.params)
    states = {"verified": _verified, "present": _present, "absent": _absent}
    return states[module.params["state"]](module, parse(module.params["plan"]))


def _require_fitting(given: dict[str, Any]) -> None:
    """Raise an OperatorError for a strategy that the adapter does not have, and for Prisma without its release."""
    from ansible.module_utils.at_most_one.errors import OperatorError
    from ansible.module_utils.at_most_one.findings import observed, say

    own = {"prisma": "prisma", "sql": "locked"}[given["adapter"]]
    if given["state"] == "present" and given["strategy"] not in (own, "concurrent", "auto"):
        raise OperatorError(
            observed(
                "AMO-1030",
                "strategy is {strategy} and adapter is {adapter}.",
                strategy=given["strategy"],
                adapter=given["adapter"],
            ),
            expected=say("{own}, concurrent or auto with that adapter.", own=own),
            next_step=say("correct migrate_strategy or migrate_adapter."),
        )
    needs_release = given["state"] == "present" or given["lower_fence"]
    if needs_release and given["adapter"] == "prisma" and not given["release_path"]:
        raise OperatorError(
            observed("AMO-1031", "adapter is prisma and release_path is missing."),
            expected=say("the release whose migrations Prisma's history is compared with."),
            next_step=say("give release_path, or adapter: sql where no Prisma keeps a history."),
        )


def _inspect(module: AnsibleModule, plan: Plan) -> Inspection:
    from ansible.module_utils.at_most_one.indexes import verification
    from ansible.module_utils.at_most_one.postgres.connection import connect

    with connect(login_of(module), **timeouts_of(module)) as connection:
        inspection = verification.inspect(connection, plan)
        connection.rollback()
    return inspection


def _report(inspection: Inspection) -> dict[str, Any]:
    return {
        "indexes": [asdict(verdict) for verdict in inspection.verdicts],
        "exact": inspection.exact,
        "duplicates_left": inspection.duplicates_left,
        "summary": inspection.summary(),
        "phrases": {"summary": inspection.summary().as_data()},
    }


def _definitions(inspection: Inspection) -> str:
    return "".join(f"{verdict.definition};\n" for verdict in inspection.verdicts if verdict.definition)


def _verified(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.errors import OperatorError
    from ansible.module_utils.at_most_one.indexes import verification

    inspection = _inspect(module, plan)
    if module.params["fail"]:
        verification.require_exact(inspection, plan)
    result = {"changed": False, **_report(inspection)}
    found = {name: result[name] for name in ("indexes", "duplicates_left")}
    if module.params["adapter"] == "sql":
        found["adapter"] = "sql"  # who closes the run asks no history then
    try:
        if module.params["release_path"]:
            result["history"] = _history(module, plan, inspection)
        tool = history_of(module, plan)
        if tool is not None:
            result["history"] = tool.require_applied() if module.params["fail"] else tool.status()
        if module.params["lower_fence"]:
            names = {"changed": "changed", "diff": "diff", "statements": "statements", "fence": "state"}
            limits = {name: module.params[f"fence_{name}"] for name in ("lock_timeout_ms", "lock_attempts")}
            lowered = lower_fence(module, plan, **limits)
            result |= {name: lowered[theirs] for name, theirs in names.items()}
            found["fence"] = result["fence"]  # who closes the run compares
        if module.params["race"] and not module.check_mode:  # behind the fence, whose index would answer first
            found["race"] = result["race"] = _race(module, plan)
        _wait_if_asked(module)
        record_phase(module, "ok", {**found, **module.params["phase_details"]})
    except OperatorError as stop:
        stop.details = {**found, **stop.details}  # the verdicts are shown whatever came after them
        raise
    return result


def _wait_if_asked(module: AnsibleModule) -> None:
    """The checkpoint before the cutover: everything is verified by now, and no host was touched."""
    from ansible.module_utils.at_most_one.postgres.checkpoint import Place
    from ansible.module_utils.at_most_one.runs import control

    hosts, run_id = module.params["cutover_hosts"], module.params["run_id"]
    if hosts and run_id and not module.check_mode:
        with held_run(module):
            control.before_switching(login_of(module), run_id, Place("pm2_reload", "hosts", 0, hosts))


def _race(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.migration import race

    return race.run(login_of(module), plan).as_data()


def _history(module: AnsibleModule, plan: Plan, inspection: Inspection) -> str:
    """Prisma's history on the plan's migration, which O(fail) wants to be applied."""
    from ansible.module_utils.at_most_one.postgres.connection import connect
    from ansible.module_utils.at_most_one.prisma import files, migration_history

    release = Path(module.params["release_path"])
    migrations = files.read_migrations(release, may_be_unbuilt=module.check_mode)
    with connect(login_of(module), **timeouts_of(module)) as connection:
        history = migration_history.read_history(connection, plan.schema)
        connection.rollback()
    verdict = migration_history.judge(history, migrations, plan.migration, inspection.exact)
    if module.params["fail"]:
        migration_history.require_applied(verdict, plan.migration, release=release)
    return str(verdict.verdict)


def _present(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.errors import OperatorError

    try:
        return {**_built(module, plan), "blocked": ""}
    except OperatorError as stop:
        if module.params["fail_on_duplicates"] or stop.details.get("cause") != "duplicates":
            raise
        return {"changed": False, "blocked": str(stop)}


def _built(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.migration import build, by_sql

    names = (
        "strategy",
        "max_write_pause_ms",
        "attempts",
        "deadline_s",
        "prisma_timeout_s",
        "environment_path",
        "run_id",
    )
    options = build.Options(**{name: module.params[name] for name in names}, **timeouts_of(module))
    login, text, tool = login_of(module), module.params["migration_sql"], history_of(module, plan)
    release = None if module.params["adapter"] == "sql" else Path(module.params["release_path"])
    if release is None:
        intent = by_sql.decide(login, plan, text, options, history=tool, check=module.check_mode)
    else:
        intent = build.decide(login, plan, release, options, check=module.check_mode)
    result = {
        "strategy": intent.strategy,
        "statements": list(intent.statements),
        "history": intent.verdict.verdict,
        "pending": list(intent.verdict.pending) if intent.strategy != "none" else [],
        "repaired": intent.repaired,
        "attempts": 0,
        "seconds": 0.0,
        "write_pause_predicted_ms": intent.predicted_ms,
        "write_pause_ms": 0,
        "stalled_by": list(intent.stalled_by),
    }
    if tool is not None:
        result["told"] = tool.shown("applied") if intent.marks else ""
    if intent.strategy == "none":
        record_phase(module, "unchanged", _details(module, result))
        return {"changed": False, **result, **_report(intent.before)}
    before = _definitions(intent.before)
    pending, applied = (f"{plan.migration}: {word}\n" if intent.marks else "" for word in ("not applied", "applied"))
    if module.check_mode:
        creates = [text for text in intent.statements if text.startswith("CREATE")]
        after = before + "".join(f"{statement};\n" for statement in creates)
        diff = {"before": before + pending, "after": after + applied}
        return {"changed": True, **result, **_report(intent.before), "diff": diff}
    with held_run(module):
        if build.wait_if_asked(login, plan, options):
            return _built(module, plan)  # a person may take hours: decided anew
        if release is None:
            done = by_sql.carry_out(login, plan, options, intent, tool)
        else:
            done = build.carry_out(login, plan, release, options, intent)
    result |= {
        "strategy": done.strategy,
        "history": done.history,
        "attempts": done.attempts,
        "seconds": done.seconds,
        "write_pause_ms": done.write_pause_ms,
        "stalled_by": list(done.stalled_by),
    }
    record_phase(module, "ok", _details(module, result))
    return {
        "changed": True,
        **result,
        **_report(done.after),
        "diff": {"before": before + pending, "after": _definitions(done.after) + applied},
    }


def _details(module: AnsibleModule, result: dict[str, Any]) -> dict[str, Any]:
    """What the journal keeps about a build."""
    own = module.params["adapter"] == "sql"  # no other history keeps the statements then
    kept = {name: value for name, value in result.items() if own or name != "statements"}
    if own:
        kept["adapter"] = "sql"
    return {**kept, **module.params["phase_details"]}


def _absent(module: AnsibleModule, plan: Plan) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.migration import take_back

    with held_run(module) as hold:
        dropped = take_back.drop_indexes(
            login_of(module),
            plan,
            _inspect(module, plan),
            timeouts=timeouts_of(module),
            deadline_ms=module.params["deadline_s"] * 1000,
            check=module.check_mode,
            hold=hold,
        )
    return {
        "changed": bool(dropped.statements),
        "statements": dropped.statements,
        **_report(dropped.after),
        "diff": dropped.diff(),
    }


def main() -> None:
    """Entry point."""
    run(
        {
            **WRITING_SPEC,
            **PHASE_SPEC,
            **HISTORY_SPEC,
            "phase_details": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["verified", "present", "absent"], "default": "verified"},
            "fail": {"type": "bool", "default": True},
            "fail_on_duplicates": {"type": "bool", "default": True},
            "adapter": {"type": "str", "choices": ["prisma", "sql"], "default": "prisma"},
            "migration_sql": {"type": "str", "default": ""},
            "strategy": {"type": "str", "choices": ["prisma", "concurrent", "locked", "auto"], "default": "prisma"},
            "max_write_pause_ms": {"type": "int", "default": 500},
            "release_path": {"type": "path"},
            "lower_fence": {"type": "bool", "default": False},
            "race": {"type": "bool", "default": False},
            "fence_lock_timeout_ms": {"type": "int", "default": 3000},
            "fence_lock_attempts": {"type": "int", "default": 10},
            "cutover_hosts": {"type": "int", "default": 0},
            "environment_path": {"type": "str"},
            "attempts": {"type": "int", "default": 5},
            "deadline_s": {"type": "int", "default": 300},
            "prisma_timeout_s": {"type": "int", "default": 180},
        },
        act,
        required_by={"phase": ("run_id",)},
    )


if __name__ == "__main__":
    main()
