"""One adversarial trial: a table full of duplicates, eight writers who do not stop, and the procedure of the roles.

Fence, report, removal, the pause of Prisma's start, build, verification, fence down; when a duplicate was in the way,
clean-up and build again. The trial holds when the rule is in force, nothing that was committed is lost, and no second
build was needed, whatever the writers' isolation levels.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.errors
from at_most_one.cleanup.phase import ROUNDS
from at_most_one.duplicates import surplus_rows
from at_most_one.errors import OperatorError
from at_most_one.fence import write_fence
from at_most_one.indexes import build_concurrently, definitions, verification
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Connection, Login, connect
from psycopg2 import sql

from tests.adversarial.account import Ledger, differences
from tests.adversarial.writers import COLUMNS, LATE_KEY, LEVELS, OPEN, Crowd, writing

ATTEMPTS = 3
PRISMA_ATTEMPTS, PRISMA_LOCK_TIMEOUT_MS = 5, 3_000  # roles/migrate/defaults
PLAIN_PAUSE_MS = 10_000  # on a busy machine too: by which way the fence is built is the trial's choice
CLEANUP_LOCK_TIMEOUT_MS = 500  # roles/cleanup/defaults
WARM_UP_S = 0.2  # at most, for the writers to make duplicates of their own
PAUSE_S = 0.2  # at most, between clean-up and build
ALIAS = "AED-9"  # a trigger makes AED-0 of it
ONE_IN = 10  # so many trials have a writer whose snapshot is older than the fence
SCHEMA, TABLE = "aedpics", "adversarial"
LIMITS: dict[str, Any] = {"max_rows": 100_000, "expected_groups": 100_000, "expected_rows": 100_000}


@dataclass(frozen=True)
class Trial:
    """What a seed stands for."""

    seed: int
    strategy: str  # prisma | concurrent
    composite: bool  # a key of two columns with a text status, or one column with an enum
    update: bool  # surplus rows are cancelled instead of deleted
    old_snapshot: bool  # one writer's snapshot is older than the fence
    isolation: str  # of the writers' transactions; each: three of one level, three of another, two of the third
    concurrent_fence: bool  # as for a table whose build is long
    trigger: bool  # BEFORE, which changes the key

    @classmethod
    def of(cls, seed: int) -> Trial:
        """Strategies alternate, and of each ten trials of a strategy one has a writer with an old snapshot."""
        pair, block = seed // 2, seed // 20
        old_snapshot = pair % ONE_IN == block % ONE_IN
        return cls(
            seed,
            ("prisma", "concurrent")[seed % 2],
            composite=pair % 2 == 1,
            update=pair // 2 % 2 == 1,
            old_snapshot=old_snapshot,
            isolation=[*LEVELS, "each"][seed % 7 % 4],
            concurrent_fence=seed % 5 == 3 and not old_snapshot,  # its build would wait for that one
            trigger=seed % 3 == 1,
        )


@dataclass
class Result:
    """What came out. ``faults`` is empty when the trial holds."""

    trial: Trial
    attempts: int = 0
    rounds: int = 0  # of the clean-up before the first build
    removed: int = 0
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # where the fence could not be tightened
    met: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        return not self.faults


def run(
    login: Login, trial: Trial, *, fenced: bool = True, meddle: Callable[[Connection, Plan], None] | None = None
) -> Result:
    """The whole trial, in a database that nobody else uses. ``fenced=False`` and ``meddle`` are for the controls."""
    started = time.monotonic()
    chance, plan, result = random.Random(trial.seed), plan_of(trial), Result(trial)
    with connect(login, lock_timeout_ms=CLEANUP_LOCK_TIMEOUT_MS) as connection:
        ledger = _fresh_table(connection, plan, trial)
        # A concurrent build ends only while no duplicate is committed, so that its writers are less eager.
        keys, rest_s = (40, 0.02) if trial.concurrent_fence else (4, 0.0)
        hot = [(f"AED-{n}", slot) for n in range(keys) for slot in ((0, 1) if trial.composite else (0,))]
        hot += [(ALIAS, 0)] if trial.trigger else []
        with writing(Crowd(login, plan, hot, trial.seed, trial.old_snapshot, trial.isolation, rest_s, ledger)) as crowd:
            try:
                if trial.old_snapshot:
                    crowd.has_snapshot.wait(10)
                    crowd.hot += [LATE_KEY] * 4
                time.sleep(chance.uniform(0.05, WARM_UP_S))
                if trial.concurrent_fence:  # on a busy machine builds take longer, beside writers who come as often
                    crowd.rest_s = max(rest_s, 4 * _build_s(login))
                _procedure(login, connection, plan, trial, crowd, chance, result, fenced)
            except OperatorError as stop:
                result.faults.append(f"the procedure stopped: {stop}")
            time.sleep(chance.uniform(0, 0.05))  # under the index alone
        result.met = crowd.met
        result.faults += [f"a writer met {type(stranger).__name__}: {stranger}" for stranger in crowd.strangers]
        if meddle:
            meddle(connection, plan)
        result.faults += differences(connection, plan, ledger)
        result.faults += _rule_in_force(connection, plan, trial)
        if result.attempts > 1:
            result.faults.append(f"{result.attempts} attempts were needed{''.join(result.warnings)}")
    result.seconds = round(time.monotonic() - started, 2)
    return result


def plan_of(trial: Trial) -> Plan:
    key = ["serial", "slot"] if trial.composite else ["serial"]
    predicate = "status IN ('active', 'paused')"
    return parse(
        {
            "id": "adversarial",
            "title": {"en": "adversarial", "ko": "adversarial"},
            "schema": SCHEMA,
            "table": TABLE,
            "primary_key": ["id"],
            "key": key,
            "predicate": predicate,
            "keep": [{"column": "started_at", "direction": "desc", "nulls": "last"}],
            "show": ["status"],
            "surplus": {"action": "update", "values": {"status": "cancelled"}}
            if trial.update
            else {"action": "delete"},
            "ceiling": LIMITS["max_rows"],
            "indexes": [
                {"name": "adversarial_rule", "unique": True, "columns": key, "predicate": predicate},
                {"name": "adversarial_started", "columns": ["serial", "started_at"]},
            ],
            "family": {"pattern": "^adversarial_(rule|started)"},
            "migration": "20251110_adversarial",
        }
    )


def _fresh_table(connection: Connection, plan: Plan, trial: Trial) -> Ledger:
    """The table with some old duplicates and some history; what is in it is the ledger's first entry."""
    status = "text" if trial.composite else "aedpics.session_status"
    with connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS at_most_one CASCADE")
        cursor.execute(f"DROP TABLE IF EXISTS {SCHEMA}.{TABLE}")
        cursor.execute(
            f"CREATE TABLE {SCHEMA}.{TABLE} (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), serial text NOT NULL,"
            f" slot integer NOT NULL DEFAULT 0, status {status} NOT NULL DEFAULT 'active',"
            " started_at timestamptz DEFAULT clock_timestamp(), version integer NOT NULL DEFAULT 1, note text)"
        )
        cursor.execute(f"CREATE INDEX adversarial_serial ON {SCHEMA}.{TABLE} (serial)")
        if trial.trigger:
            cursor.execute(
                f"CREATE OR REPLACE FUNCTION {SCHEMA}.adversarial() RETURNS trigger LANGUAGE plpgsql AS"
                f" 'BEGIN IF NEW.serial = ''{ALIAS}'' THEN NEW.serial := ''AED-0''; END IF; RETURN NEW; END'"
            )
            cursor.execute(
                f"CREATE TRIGGER adversarial BEFORE INSERT OR UPDATE ON {SCHEMA}.{TABLE}"
                f" FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.adversarial()"
            )
        cursor.execute(
            f"INSERT INTO {SCHEMA}.{TABLE} (serial, status, started_at)"
            f" SELECT 'AED-' || n % 8, (ARRAY['completed', 'active', 'paused'])[n % 3 + 1]::{status},"
            " CASE WHEN n % 7 > 0 THEN clock_timestamp() - n % 5 * interval '1 hour' END"
            " FROM generate_series(1, 40) AS n"
            f" RETURNING {', '.join(f'{name}::text' for name in COLUMNS)}"
        )
        ledger = Ledger()
        for row in cursor.fetchall():
            ledger.committed(dict(zip(COLUMNS, row, strict=True)))
    return ledger


def _build_s(login: Login) -> float:
    """The seconds of a concurrent build on the table beside its writers."""
    with connect(login, lock_timeout_ms=30_000, autocommit=True) as connection, connection.cursor() as cursor:
        started = time.monotonic()
        cursor.execute(f"CREATE INDEX CONCURRENTLY adversarial_measured ON {SCHEMA}.{TABLE} (started_at)")
        seconds = time.monotonic() - started
        cursor.execute(f"DROP INDEX {SCHEMA}.adversarial_measured")
    return seconds


def _procedure(
    login: Login,
    connection: Connection,
    plan: Plan,
    trial: Trial,
    crowd: Crowd,
    chance: random.Random,
    result: Result,
    fenced: bool,
) -> None:
    surplus_rows.report(connection, plan)
    if fenced:
        pause_ms = -1 if trial.concurrent_fence else PLAIN_PAUSE_MS
        while write_fence.raise_fence(connection, plan, max_write_pause_ms=pause_ms).surplus_first:
            result.removed += _clean_up(connection, plan, "run-0", result, fenced=False)[0]
    crowd.fenced.set()
    for result.attempts in range(1, ATTEMPTS + 1):
        for _ in range(ROUNDS):
            time.sleep(chance.uniform(0, 0.05))
            removed, left = _clean_up(connection, plan, f"run-{result.attempts}", result, fenced=fenced)
            result.removed += removed
            result.rounds += result.attempts == 1
            if not left:
                break
        time.sleep(chance.uniform(0, PAUSE_S))
        stop = (_prisma if trial.strategy == "prisma" else _concurrent)(login, plan, chance)
        if stop is None:
            break
    else:
        result.faults.append(f"no index after {ATTEMPTS} attempts: {stop}")
        return
    with connection:
        verification.require_exact(verification.inspect(connection, plan), plan)
    if fenced:
        while write_fence.lower_fence(connection, plan).warnings:
            pass


def _clean_up(connection: Connection, plan: Plan, run_id: str, result: Result, *, fenced: bool) -> tuple[int, int]:
    """Report and remove, as the role does: how many rows went, and how many are surplus after that."""
    found = surplus_rows.report(connection, plan)
    removal = surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id=run_id, **LIMITS)
    added = 0
    if fenced:
        tightened = write_fence.tighten(connection, plan)
        added = tightened.exempt
        result.warnings += [f"; {warning}" for warning in tightened.warnings]
    return removal.archived, max(removal.rows_left, added)


def _prisma(login: Login, plan: Plan, chance: random.Random) -> str | None:
    """The migration as Prisma sends it: one script, one implicit transaction. The duplicate that was in the way."""
    with connect(login, lock_timeout_ms=PRISMA_LOCK_TIMEOUT_MS, autocommit=True) as connection:
        script = ";\n".join(definitions.create_statement(i, plan.schema).as_string(connection) for i in plan.indexes)
        for attempt in itertools.count(1):
            try:
                with connection.cursor() as cursor:
                    cursor.execute(script)
                return None
            except psycopg2.errors.UniqueViolation as violation:
                return str(violation)
            except psycopg2.errors.LockNotAvailable:
                if attempt == PRISMA_ATTEMPTS:
                    raise
                time.sleep(chance.uniform(0.05, 0.2))
    raise AssertionError("not reached")


def _concurrent(login: Login, plan: Plan, chance: random.Random) -> str | None:
    with connect(login) as connection:
        inspection = verification.inspect(connection, plan)
    try:
        build_concurrently.build(login, plan, inspection, build_concurrently.Limits(deadline_s=30))
    except OperatorError as stop:
        if stop.details.get("cause") != "duplicates":
            raise
        return str(stop)
    return None


def _rule_in_force(connection: Connection, plan: Plan, trial: Trial) -> list[str]:
    """By definition, by count, and by trying: a real second INSERT is refused by the index's name."""
    with connection:
        faults = verification.inspect(connection, plan).faults()
    if write_fence.query(connection, plan)[0].state != "lowered":
        faults.append("the fence is still up")
    with connection.cursor() as cursor:
        insert = sql.SQL("INSERT INTO {} (serial, status) VALUES ('AED-last', %s)").format(
            sql.Identifier(plan.schema, plan.table)
        )
        cursor.execute(insert, (OPEN[0],))
        try:
            cursor.execute(insert, (OPEN[1],))
            faults.append("a second open row of one key was accepted")
        except psycopg2.errors.UniqueViolation as refusal:
            if refusal.diag.constraint_name != plan.rule_index.name:
                faults.append(f"a second open row was refused by {refusal.diag.constraint_name}")
    connection.rollback()
    return faults


def summary(results: list[Result]) -> dict[str, Any]:
    """What .lab/adversarial.json holds."""
    levels = {level: [result for result in results if result.trial.isolation == level] for level in (*LEVELS, "each")}
    met: Counter[str] = sum((result.met for result in results), Counter())
    return {
        "trials": len(results),
        "held": sum(result.held for result in results),
        "first_attempt": sum(result.held and result.attempts == 1 for result in results),
        "levels": {
            level: {"trials": len(those), "first_attempt": sum(one.held and one.attempts == 1 for one in those)}
            for level, those in levels.items()
        },
        "rounds": dict(sorted(Counter(result.rounds for result in results).items())),
        "removed": sum(result.removed for result in results),
        "writers": dict(sorted(met.items())),
        "failed": [{"seed": r.trial.seed, "faults": r.faults} for r in results if not r.held],
    }
