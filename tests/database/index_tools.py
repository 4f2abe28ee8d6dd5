"""What tests of index builds share: sessions that hold something, builds that wait, and the whole of what is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from at_most_one.indexes import definitions, verification
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect

RULE = "idx_inspection_sessions_active_session_per_equipment"
DATE = "idx_inspection_schedules_equipment_date"
ACTIVE = "idx_inspection_schedules_active"
ON_SESSIONS = f"CREATE UNIQUE INDEX {RULE} ON aedpics.inspection_sessions"
IN_RULE = "WHERE status IN ('active', 'paused')"
CONCURRENTLY = (
    f"CREATE UNIQUE INDEX CONCURRENTLY {RULE} ON aedpics.inspection_sessions (equipment_serial)"
    " WHERE status IN ('active'::aedpics.session_status, 'paused')"
)


def inspect(login: Login, plan: Plan) -> verification.Inspection:
    with connect(login) as connection:
        return verification.inspect(connection, plan)


def verdicts(login: Login, plan: Plan) -> list[str]:
    return [verdict.verdict for verdict in inspect(login, plan).verdicts]


def verdict(login: Login, plan: Plan, name: str = RULE) -> verification.Verdict:
    return next(found for found in inspect(login, plan).verdicts if found.name == name)


def query(login: Login, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connect(login, lock_timeout_ms=0, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def open_session(connection: Connection, serial: str, times: int = 1, status: str = "active") -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO aedpics.user_profiles VALUES ('00000000-0000-4000-a000-000000000001', 'a@example.test', 'A')"
            " ON CONFLICT DO NOTHING"
        )
        for _ in range(times):
            cursor.execute(
                "INSERT INTO aedpics.inspection_sessions (equipment_serial, inspector_id, status)"
                " VALUES (%s, '00000000-0000-4000-a000-000000000001', %s)",
                (serial, status),
            )


def traces(login: Login) -> tuple[Any, ...]:
    """Catalog, history and locks: what a refused or failed build must leave as it was."""
    return (
        query(login, "SELECT relname, relkind FROM pg_catalog.pg_class WHERE relnamespace = 'aedpics'::regnamespace"),
        query(login, "SELECT count(*) FROM pg_catalog.pg_class"),
        query(login, "SELECT count(*) FROM pg_catalog.pg_index WHERE NOT indisvalid"),
        query(login, "SELECT to_jsonb(m) FROM aedpics._prisma_migrations m ORDER BY started_at, id")
        if query(login, "SELECT to_regclass('aedpics._prisma_migrations') IS NOT NULL") == [(True,)]
        else None,
        query(
            login,
            "SELECT l.mode, count(*) FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)"
            " WHERE a.datname = current_database() AND a.application_name LIKE 'at-most-one %'"
            " AND l.pid <> pg_backend_pid() GROUP BY 1",
        ),
        query(login, "SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND NOT granted"),
    )


def wait_for(look: Callable[[], Any], good: Callable[[Any], bool] = bool, seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.05)
    return seen


@contextmanager
def old_snapshot(login: Login) -> Iterator[Connection]:
    """A transaction that has read another table than the plan's and stays open: it stalls the end of every build."""
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM aedpics.user_profiles WHERE email <> 'a secret'")
        yield connection
        if not connection.closed:
            connection.rollback()


@contextmanager
def in_thread(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Runs work beside the test; the list gets its result, or its error."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as failure:  # handed to the test's own thread
            results.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def run_sql(login: Login) -> Iterator[Callable[..., None]]:
    """Runs statements one by one in autocommit, with the search_path of a person's psql session."""
    with connect(login, lock_timeout_ms=0, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path = aedpics, public")

        def run(*statements: str) -> None:
            for statement in statements:
                cursor.execute(statement)

        yield run


@pytest.fixture
def build(login: Login, plan: Plan) -> Callable[..., None]:
    """Builds the planned indexes, all but the named ones, with the plan's own statements."""

    def do(*, without: tuple[str, ...] = ()) -> None:
        with connect(login) as connection, connection.cursor() as cursor:
            for index in plan.indexes:
                if index.name not in without:
                    cursor.execute(definitions.create_statement(index, plan.schema))

    return do


@pytest.fixture
def duplicates(login: Login) -> None:
    """Two equipments with two open sessions each."""
    with connect(login) as connection:
        for serial in ("AED-1", "AED-2"):
            open_session(connection, serial, 2)
            connection.commit()


def parts(found: verification.Verdict) -> set[str]:
    return {part.part for part in found.parts}
