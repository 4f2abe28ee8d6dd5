"""How the write fence's index goes: without anybody waiting for it, and without failing when it cannot go yet.

``DROP INDEX CONCURRENTLY`` waits for every transaction that uses the table, and takes no lock that a reader or writer
would queue for. Cut short, it leaves an index that is not valid: queries do not use it, it still refuses what the rule
forbids, and it can be dropped later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from ..findings import say
from ..indexes import on_partitions
from ..indexes.dropping import drop_concurrently
from ..plan import Plan
from ..postgres import locks
from ..postgres.catalog import WRITING, Cursor, LockNotObtained, explain, table_name, transaction
from ..postgres.connection import Connection, Hold
from . import exempting_index


@contextlib.contextmanager
def alone(connection: Connection, limit_ms: float) -> Iterator[Cursor]:
    """Each statement by itself, for so long; a lock_timeout would leave an index that is not valid."""
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = 0")
            cursor.execute("SET statement_timeout = %s", (max(1, round(limit_ms)),))
            yield cursor
    finally:
        with contextlib.suppress(psycopg2.Error), connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")
            cursor.execute("RESET statement_timeout")
            connection.autocommit = False


def drop(connection: Connection, plan: Plan, names: Sequence[str], wait_ms: int, hold: Hold) -> list[str]:
    """Drop these indexes; those that are left when the wait has ended."""
    left = []
    with alone(connection, wait_ms) as cursor:
        for name in names:
            hold(connection)
            try:
                drop_concurrently(cursor, name, plan.schema)
                for step in on_partitions.left_over(connection, name, plan.table, plan.schema):
                    step.run(cursor)
            except (
                psycopg2.errors.QueryCanceled,
                psycopg2.errors.DeadlockDetected,
                psycopg2.errors.LockNotAvailable,
            ):
                left.append(name)
            except psycopg2.Error as failure:
                raise explain(failure, plan) from failure
    return left


def clear(
    connection: Connection, plan: Plan, names: Sequence[str], triggers: Sequence[str], wait_ms: int, hold: Hold
) -> list[str]:
    """Drop indexes, and the triggers of an older release. What stays, as whole phrases for a person."""
    warnings: list[str] = []
    if left := drop(connection, plan, names, wait_ms, hold):
        holders = locks.holders(connection, plan.schema, [plan.table])
        steps = [on_partitions.drop_step(connection, name, plan.table, plan.schema) for name in left]
        connection.rollback()
        drops = "; ".join(step.statement.as_string(connection) for step in steps)
        warnings.append(
            say(
                "The write fence {fence} on {table} was not dropped within {wait_s} s; {holders}. Until it is gone it "
                "refuses new duplicates, and rows that left before it was up cannot return. Next: when those sessions "
                "have ended, the next run drops it; by hand: {drops};",
                fence=", ".join(left),
                table=table_name(plan),
                wait_s=f"{wait_ms / 1000:g}",
                holders=locks.describe(holders),
                drops=drops,
            )
        )
    if triggers:
        try:
            with transaction(connection, WRITING, plan) as cursor:
                hold(connection)
                for step in without_triggers(plan, triggers):
                    cursor.execute(step)
        except LockNotObtained as stop:
            warnings.append(
                say(
                    "The triggers of an older write fence on {table} stay ({triggers}): {holders}. Next: the next run "
                    "drops them, once those have ended.",
                    table=table_name(plan),
                    triggers=", ".join(triggers),
                    holders=locks.describe(stop.details["blockers"]),
                )
            )
    return warnings


def without_triggers(plan: Plan, names: Sequence[str]) -> list[sql.Composed]:
    return exempting_index.drop_triggers(plan, names) if names else []
