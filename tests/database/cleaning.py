"""Short words for clean-ups in tests, and another session whose row locks a clean-up waits for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg2
from at_most_one.duplicates import surplus_rows
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect

from tests.support.ports import wait_until

TABLE = "aedpics.inspection_sessions"
SETTINGS = "SELECT name, setting FROM pg_settings WHERE context IN ('user', 'superuser') ORDER BY 1"  # of the session
INSPECTOR = "00000000-0000-4000-a000-000000000001"


def run(connection: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run and commit; when it fails, roll back."""
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def content(connection: Connection, table: str = TABLE) -> list[tuple[Any, ...]]:
    """Every row of the table as text, in order: what a call that changes nothing leaves equal."""
    return run(connection, f"SELECT t::text FROM {table} AS t ORDER BY 1")


def ids(connection: Connection, condition: str = "true") -> set[str]:
    return {identifier for (identifier,) in run(connection, f"SELECT id::text FROM {TABLE} WHERE {condition}")}


def keys(rows: list[list[str]]) -> set[str]:
    return {identifier for (identifier,) in rows}


def remove(connection: Connection, plan: Plan, found: surplus_rows.Report, **more: Any) -> surplus_rows.Removal:
    return surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id="run-1", **more)


def clean_up(connection: Connection, plan: Plan, **more: Any) -> surplus_rows.Removal:
    return remove(connection, plan, surplus_rows.report(connection, plan), **more)


class Waiting:
    """Another session that holds row locks, and our removal that waits for them in a thread."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.pool = ThreadPoolExecutor(1)
        self.other = psycopg2.connect(
            host=login.host, port=login.port, dbname=login.dbname, user=login.user, password=login.password
        )

    def change(self, statement: str, *values: Any) -> None:
        with self.other.cursor() as cursor:
            cursor.execute(statement, values)

    def start(self, work: Callable[[Connection], Any], **timeouts: Any) -> Future[Any]:
        def with_connection() -> Any:
            with connect(self.login, **timeouts) as connection:
                return work(connection)

        future = self.pool.submit(with_connection)
        wait_until(lambda: self.somebody_waits() or future.done())
        assert not future.done(), "it should be waiting for the other session's locks"
        return future

    def somebody_waits(self) -> bool:
        with connect(self.login) as watcher:
            found = run(watcher, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
        return found != [(0,)]

    def close(self) -> None:
        self.other.close()
        self.pool.shutdown()
