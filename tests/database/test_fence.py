"""What the write fence lets through, what it refuses, in which words, and what it costs writers and readers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.fence import write_fence
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.postgres.fence_names import PATTERN

from tests.support.ports import wait_until

pytestmark = pytest.mark.versions

TABLE = "aedpics.inspection_sessions"
IN_RULE = "status IN ('active', 'paused')"
INSPECTOR = "00000000-0000-4000-a000-000000000001"
INSERT = f"INSERT INTO {TABLE} (equipment_serial, inspector_id, status) VALUES (%s, '{INSPECTOR}', %s)"


@pytest.fixture
def fenced(connection: Connection, plan: Plan, example: Any) -> Any:
    write_fence.raise_fence(connection, plan)
    return example


@pytest.fixture
def app(login: Login) -> Iterator[Connection]:
    """A connection as the application has one: the server's defaults, not ours."""
    opened = open_as_app(login)
    yield opened
    opened.close()


def open_as_app(login: Login) -> Connection:
    return psycopg2.connect(
        host=login.host, port=login.port, dbname=login.dbname, user=login.user, password=login.password
    )


def run(connection: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run and commit; when it fails, roll back."""
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def refused(connection: Connection, statement: str, *values: Any) -> psycopg2.Error:
    with pytest.raises(psycopg2.errors.UniqueViolation) as stop:
        run(connection, statement, *values)
    return stop.value


class TestWriters:
    def test_a_new_duplicate_gets_the_error_of_a_unique_index_with_the_fences_name(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        by_fence = refused(app, INSERT, fenced.control, "paused").diag
        assert re.fullmatch(PATTERN.strip("^$"), by_fence.constraint_name or "")
        found = surplus_rows.report(connection, plan)
        surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id="run-1")
        write_fence.lower_fence(connection, plan)
        name = plan.rule_index.name
        run(connection, f"CREATE UNIQUE INDEX {name} ON {TABLE} (equipment_serial) WHERE {plan.predicate}")
        by_index = refused(app, INSERT, fenced.control, "paused").diag
        for part in ("sqlstate", "message_detail", "schema_name", "table_name"):
            assert getattr(by_fence, part) == getattr(by_index, part) != None, part  # noqa: E711 (says both at once)

    def test_other_rows_pass(self, fenced: Any, app: Connection) -> None:
        run(app, INSERT, "AED-0099", "active")
        run(app, INSERT, fenced.control, "completed")
        run(app, f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s", fenced.keep[fenced.control])
        run(app, INSERT, fenced.control, "active")

    def test_duplicates_of_before_can_be_updated_and_closed(self, fenced: Any, app: Connection) -> None:
        surplus = min(fenced.surplus)
        run(app, f"UPDATE {TABLE} SET status = 'paused', notes = 'still here' WHERE id = %s", surplus)
        run(app, f"UPDATE {TABLE} SET status = 'active' WHERE id = %s", surplus)
        run(app, f"UPDATE {TABLE} SET status = 'cancelled' WHERE id = %s", surplus)

    def test_a_reopened_and_a_moved_row_are_refused(self, fenced: Any, app: Connection) -> None:
        refused(app, f"UPDATE {TABLE} SET status = 'active' WHERE id = %s", min(fenced.history))
        move = f"UPDATE {TABLE} SET equipment_serial = 'AED-0001' WHERE id = %s"
        refused(app, move, fenced.keep[fenced.control])
        run(app, move, min(fenced.history))

    def test_two_rows_of_one_statement_are_refused(self, fenced: Any, app: Connection) -> None:
        refused(app, f"{INSERT}, ('AED-0099', '{INSPECTOR}', 'paused')", "AED-0099", "active")
        assert run(app, f"SELECT count(*) FROM {TABLE} WHERE equipment_serial = 'AED-0099'") == [(0,)]

    def test_the_row_counts_as_other_triggers_leave_it(
        self, connection: Connection, fenced: Any, app: Connection
    ) -> None:
        run(
            connection,
            "CREATE FUNCTION aedpics.upper_serial() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN NEW.equipment_serial := pg_catalog.upper(NEW.equipment_serial); RETURN NEW; END'",
        )
        run(
            connection,
            f"CREATE TRIGGER zz BEFORE INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION aedpics.upper_serial()",
        )
        refused(app, INSERT, "aed-0011", "active")

    def test_a_role_that_may_only_insert_is_refused_and_row_security_hides_nothing(
        self, connection: Connection, login: Login, fenced: Any
    ) -> None:
        run(connection, "CREATE ROLE inserter LOGIN PASSWORD 'inserter'")
        run(connection, f"GRANT USAGE ON SCHEMA aedpics TO inserter; GRANT INSERT ON {TABLE} TO inserter")
        run(connection, f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
        run(connection, f"CREATE POLICY mine ON {TABLE} FOR INSERT WITH CHECK (true)")
        inserter = open_as_app(replace(login, user="inserter", password="inserter"))
        try:
            refused(inserter, INSERT, fenced.control, "active")
            run(inserter, INSERT, "AED-0099", "active")
        finally:
            inserter.close()
            run(connection, "DROP OWNED BY inserter; DROP ROLE inserter")

    def test_on_conflict_do_nothing_skips_the_row(self, fenced: Any, app: Connection) -> None:
        assert run(app, f"{INSERT} ON CONFLICT DO NOTHING RETURNING id", fenced.control, "active") == []

    def test_a_target_that_names_the_rule_has_to_wait_for_the_planned_index(self, fenced: Any, app: Connection) -> None:
        """The fence's predicate is another one. Where nothing is exempt, it is the same one."""
        with pytest.raises(psycopg2.errors.InvalidColumnReference):
            run(app, f"{INSERT} ON CONFLICT (equipment_serial) WHERE {IN_RULE} DO NOTHING", fenced.control, "active")

    def test_merge(self, fenced: Any, app: Connection) -> None:
        merge = f"""MERGE INTO {TABLE} AS t USING (VALUES ('{fenced.control}')) AS v (serial) ON t.notes = 'none'
            WHEN NOT MATCHED THEN INSERT (equipment_serial, inspector_id, status)
            VALUES (v.serial, '{INSPECTOR}', 'active')"""
        if app.server_version < 150_000:
            with pytest.raises(psycopg2.errors.SyntaxError):
                run(app, merge)
        else:
            refused(app, merge)

    @pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
    def test_a_writer_whose_snapshot_is_older_than_the_other_row(
        self, login: Login, connection: Connection, plan: Plan, example: Any, app: Connection, level: str
    ) -> None:
        second = open_as_app(login)
        second.set_session(isolation_level=level)
        with second, second.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {TABLE} WHERE equipment_serial = 'AED-0099'")
            write_fence.raise_fence(connection, plan)
            run(app, INSERT, "AED-0099", "active")
            with pytest.raises((psycopg2.errors.UniqueViolation, psycopg2.errors.SerializationFailure)):
                cursor.execute(INSERT, ("AED-0099", "active"))
            second.rollback()
        second.close()
        assert run(app, f"SELECT count(*) FROM {TABLE} WHERE equipment_serial = 'AED-0099'") == [(1,)]

    def test_a_prepared_transaction_holds_its_row(self, login: Login, fenced: Any, app: Connection) -> None:
        first = open_as_app(login)
        first.tpc_begin(first.xid(1, "fence", "session"))
        with first.cursor() as cursor:
            cursor.execute(INSERT, ("AED-0099", "active"))
        first.tpc_prepare()
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(run, app, INSERT, "AED-0099", "active")
            until_somebody_waits(login, "transactionid")
            first.tpc_commit()
            assert isinstance(second.exception(10), psycopg2.errors.UniqueViolation)
        first.close()

    def test_of_two_writers_at_once_the_second_waits_for_the_first(
        self, login: Login, fenced: Any, app: Connection
    ) -> None:
        with app.cursor() as cursor:
            cursor.execute(INSERT, ("AED-0099", "active"))
        for end, outcome in ((app.rollback, "passed"), (app.commit, "refused")):
            with app.cursor() as cursor:
                cursor.execute(f"DELETE FROM {TABLE} WHERE equipment_serial = 'AED-0099'")
                cursor.execute(INSERT, ("AED-0099", "active"))
            second = open_as_app(login)
            with ThreadPoolExecutor(1) as pool:
                insertion = pool.submit(run, second, INSERT, "AED-0099", "active")
                until_somebody_waits(login, "transactionid")
                end()
                error = insertion.exception(10)
            second.close()
            assert ("refused" if isinstance(error, psycopg2.errors.UniqueViolation) else "passed") == outcome
            assert run(app, f"SELECT count(*) FROM {TABLE} WHERE equipment_serial = 'AED-0099'") == [(1,)]

    def test_writers_of_different_keys_do_not_wait(self, login: Login, fenced: Any, app: Connection) -> None:
        with app.cursor() as cursor:
            cursor.execute(INSERT, ("AED-0099", "active"))
        second = open_as_app(login)
        run(second, "SET lock_timeout = 1")
        run(second, INSERT, "AED-0098", "active")
        second.close()


def until_somebody_waits(login: Login, locktype: str) -> None:
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = %s"
    with connect(login) as watcher:
        wait_until(lambda: run(watcher, query, locktype) != [(0,)], 10)


class TestManyRows:
    """A lock for each row would fill the server's table of locks: 53200, for new connections as well."""

    MANY = 30_000

    def locks(self, app: Connection) -> int:
        with app.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()")
            ((count,),) = cursor.fetchall()
        return int(count)

    def test_insert_copy_and_update_take_no_lock_for_each_row(self, fenced: Any, app: Connection) -> None:
        with app.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {TABLE}")
            before = self.locks(app)
            cursor.execute(
                f"INSERT INTO {TABLE} (equipment_serial, inspector_id, status)"
                f" SELECT 'I' || n, '{INSPECTOR}', 'active' FROM generate_series(1, {self.MANY}) AS n"
            )
            lines = "".join(f"C{n}\t{INSPECTOR}\tactive\n" for n in range(self.MANY))
            cursor.copy_expert(f"COPY {TABLE} (equipment_serial, inspector_id, status) FROM STDIN", io.StringIO(lines))
            cursor.execute(f"UPDATE {TABLE} SET status = 'completed' WHERE equipment_serial LIKE 'C%'")
            cursor.execute(f"UPDATE {TABLE} SET status = 'paused' WHERE equipment_serial LIKE 'C%'")
            assert cursor.rowcount == self.MANY
            assert self.locks(app) - before <= 64
        app.commit()

    def test_close_then_open_in_one_transaction_deadlocks_with_nobody(
        self, login: Login, fenced: Any, app: Connection
    ) -> None:
        """The second writer waits for the row; the first, which holds it, opens the next one."""
        second = open_as_app(login)
        with app.cursor() as cursor, ThreadPoolExecutor(1) as pool:
            cursor.execute(f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s", (fenced.keep[fenced.control],))
            opening = pool.submit(run, second, INSERT, fenced.control, "active")
            until_somebody_waits(login, "transactionid")
            cursor.execute(INSERT, (fenced.control, "active"))
            app.commit()
            assert isinstance(opening.exception(10), psycopg2.errors.UniqueViolation)
        second.close()


def test_a_handover_waits_as_it_would_at_the_index(login: Login, fenced: Any, app: Connection) -> None:
    """One closes the only open session and has not committed; the next opens one: it waits, then it is in."""
    closing = open_as_app(login)
    with closing.cursor() as cursor:
        cursor.execute(f"UPDATE {TABLE} SET status = 'completed' WHERE equipment_serial = %s", (fenced.control,))
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(run, app, INSERT, fenced.control, "active")
        with pytest.raises(TimeoutError):
            opened.result(timeout=0.3)
        closing.commit()
        opened.result(timeout=10)
    closing.close()
    refused(app, INSERT, fenced.control, "paused")
