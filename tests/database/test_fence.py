"""What the write fence lets through, what it refuses and in which words, and how it gets its lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one import duplicates, fence
from at_most_one.database import Connection, Login, connect
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan

pytestmark = pytest.mark.versions

TABLE = "aedpics.inspection_sessions"
INSPECTOR = "00000000-0000-4000-a000-000000000001"
INSERT = f"INSERT INTO {TABLE} (equipment_serial, inspector_id, status) VALUES (%s, '{INSPECTOR}', %s)"


@pytest.fixture
def fenced(connection: Connection, plan: Plan, example: Any) -> Any:
    fence.raise_fence(connection, plan)
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
    def test_a_new_duplicate_gets_the_words_of_the_unique_index(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        by_fence = refused(app, INSERT, fenced.control, "paused").diag
        found = duplicates.report(connection, plan)
        duplicates.remove(connection, plan, rows=found.rows, digest=found.digest, run_id="run-1")
        fence.lower_fence(connection, plan)
        name = plan.rule_index.name
        run(connection, f"CREATE UNIQUE INDEX {name} ON {TABLE} (equipment_serial) WHERE {plan.predicate}")
        by_index = refused(app, INSERT, fenced.control, "paused").diag
        for part in ("sqlstate", "message_primary", "message_detail", "schema_name", "table_name", "constraint_name"):
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
        refused(app, f"UPDATE {TABLE} SET status = 'active' WHERE id = %s", surplus)

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

    def test_null_keys_are_distinct_unless_the_index_says_otherwise(
        self, connection: Connection, plan: Plan, example: Any, app: Connection
    ) -> None:
        run(connection, f"ALTER TABLE {TABLE} ALTER COLUMN equipment_serial DROP NOT NULL")
        fence.raise_fence(connection, plan)
        run(app, INSERT, None, "active")
        run(app, INSERT, None, "active")
        strict = replace(plan, rule_index=replace(plan.rule_index, nulls_not_distinct=True))
        fence.raise_fence(connection, strict)
        detail = refused(app, INSERT, None, "active").diag.message_detail
        assert detail == "Key (equipment_serial)=(null) already exists."

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
                until_somebody_waits(login, "advisory")
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
    deadline = time.monotonic() + 10
    with connect(login) as watcher:
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = %s"
        while run(watcher, query, locktype) == [(0,)]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


class TestStates:
    def test_raised_and_lowered_once_each(self, connection: Connection, plan: Plan, example: Any) -> None:
        assert fence.fence_state(connection, plan) == "lowered"
        raised = fence.raise_fence(connection, plan)
        assert (raised.before, raised.state, raised.attempts) == ("lowered", "raised", 1)
        assert fence.fence_state(connection, plan) == "raised"
        assert fence.raise_fence(connection, plan) == fence.Change("raised", "raised", [], 0)
        assert fence.lower_fence(connection, plan).before == "raised"
        assert fence.fence_state(connection, plan) == "lowered"
        assert fence.lower_fence(connection, plan) == fence.Change("lowered", "lowered", [], 0)
        left = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'at_most_one'::regnamespace"
        assert run(connection, left) == [(0,)]

    def test_check_mode_gives_the_statements_and_runs_none(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        predicted = fence.raise_fence(connection, plan, check=True)
        assert fence.fence_state(connection, plan) == "lowered"
        assert run(connection, "SELECT to_regnamespace('at_most_one')") == [(None,)]
        assert fence.raise_fence(connection, plan) == predicted
        predicted = fence.lower_fence(connection, plan, check=True)
        assert fence.fence_state(connection, plan) == "raised"
        assert fence.lower_fence(connection, plan) == predicted

    @pytest.mark.parametrize(
        "damage",
        [
            f"ALTER TABLE {TABLE} DISABLE TRIGGER USER",
            f"""DO $$ BEGIN EXECUTE (SELECT format('DROP TRIGGER %%I ON {TABLE}', tgname) FROM pg_trigger
                WHERE tgname LIKE 'at_most_one%%_update'); END $$""",
        ],
        ids=["disabled", "half"],
    )
    def test_a_damaged_fence_is_partial_and_gets_repaired(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection, damage: str
    ) -> None:
        run(connection, damage)
        assert fence.fence_state(connection, plan) == "partial"
        assert fence.raise_fence(connection, plan).before == "partial"
        assert fence.fence_state(connection, plan) == "raised"
        refused(app, INSERT, fenced.control, "active")
        refused(app, f"UPDATE {TABLE} SET status = 'active' WHERE id = %s", min(fenced.history))

    def test_the_fence_of_a_changed_plan_is_partial_and_gets_replaced(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        narrower = replace(plan, predicate="status = 'active'")
        assert fence.fence_state(connection, narrower) == "partial"
        fence.raise_fence(connection, narrower)
        run(app, INSERT, fenced.control, "paused")

    def test_two_plans_on_one_table_have_a_fence_each(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        other = replace(plan, id="another-plan", key=("inspector_id",), predicate="status = 'in_progress'")
        fence.raise_fence(connection, other)
        fence.lower_fence(connection, plan)
        assert fence.fence_state(connection, other) == "raised"
        run(app, INSERT, "AED-0098", "in_progress")
        refused(app, INSERT, "AED-0099", "in_progress")


class TestLock:
    def test_waits_for_a_writer_in_flight_and_sees_what_it_wrote(
        self, login: Login, plan: Plan, example: Any, app: Connection
    ) -> None:
        with app.cursor() as cursor:
            cursor.execute(INSERT, (example.control, "active"))
        with connect(login, lock_timeout_ms=5_000) as ours, ThreadPoolExecutor(1) as pool:
            raising = pool.submit(fence.raise_fence, ours, plan)
            until_somebody_waits(login, "relation")
            app.commit()
            assert raising.result(10).state == "raised"
            assert duplicates.report(ours, plan).group_count == 11

    def test_gives_up_after_its_attempts_and_names_who_holds_the_table(
        self, login: Login, plan: Plan, example: Any, app: Connection
    ) -> None:
        with app.cursor() as cursor:
            cursor.execute(f"UPDATE {TABLE} SET notes = 'secret' WHERE id = %s", (min(example.surplus),))
        with connect(login, lock_timeout_ms=20) as ours:
            with pytest.raises(OperatorError, match="could not be raised in 2 attempts") as stop:
                fence.raise_fence(ours, plan, lock_attempts=2)
            assert fence.fence_state(ours, plan) == "lowered"
        (blocker,) = stop.value.details["blockers"]
        assert blocker["pid"] == app.info.backend_pid
        assert blocker["state"] == "idle in transaction"
        assert "secret" not in str(stop.value)

    def test_tries_again_until_the_holder_leaves(self, login: Login, plan: Plan, example: Any, app: Connection) -> None:
        with app.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {TABLE} IN ROW EXCLUSIVE MODE")
        threading.Timer(0.3, app.commit).start()
        with connect(login, lock_timeout_ms=20) as ours:
            assert fence.raise_fence(ours, plan, lock_attempts=50).attempts > 1

    def test_a_reader_in_the_way_of_lowering_is_named(
        self, login: Login, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        with app.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {TABLE}")
        with connect(login, lock_timeout_ms=20) as ours:
            with pytest.raises(OperatorError, match=f"pid {app.info.backend_pid}"):
                fence.lower_fence(ours, plan, lock_attempts=1)
            assert fence.fence_state(ours, plan) == "raised"


class TestModule:
    def test_raise_check_again_query_lower(
        self,
        connection: Connection,
        plan: Plan,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
    ) -> None:
        args = {"login": login_args, "plan": plan_data, "state": "raised"}
        predicted = run_module("write_fence", args, check=True, diff=True)
        assert (predicted["changed"], predicted["before"], predicted["state"]) == (True, "lowered", "raised")
        assert fence.fence_state(connection, plan) == "lowered"
        done = run_module("write_fence", args, diff=True)
        assert done == {**predicted, "attempts": 1}
        assert done["diff"] == {"before": "write fence: lowered\n", "after": "write fence: raised\n"}
        again = run_module("write_fence", args)
        assert (again["changed"], again["statements"]) == (False, [])
        assert run_module("write_fence", {**args, "state": "queried"})["state"] == "raised"
        assert run_module("write_fence", {**args, "state": "lowered"})["changed"] is True
        assert fence.fence_state(connection, plan) == "lowered"


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
