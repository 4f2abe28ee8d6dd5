"""The concurrent build against real second sessions: what it waits for, what it repairs, what a failure leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import psycopg2.errors
import pytest
from at_most_one.errors import OperatorError
from at_most_one.indexes import brief_lock, build_concurrently, verification
from at_most_one.indexes.build_concurrently import Limits
from at_most_one.indexes.verification import Verdict
from at_most_one.plan import Plan
from at_most_one.postgres import locks
from at_most_one.postgres.connection import Login, connect

from tests.database.conftest import ROOT
from tests.database.index_tools import (
    ACTIVE,
    CONCURRENTLY,
    DATE,
    RULE,
    in_thread,
    inspect,
    old_snapshot,
    open_session,
    query,
    traces,
    verdict,
    verdicts,
    wait_for,
)

PHASE = "SELECT pid, phase FROM pg_catalog.pg_stat_progress_create_index WHERE datname = current_database()"


def build(login: Login, plan: Plan, deadline_s: float = 30, **options: Any) -> build_concurrently.Built:
    return build_concurrently.build(login, plan, inspect(login, plan), Limits(deadline_s), **options)


def test_it_builds_what_is_missing_and_goes_on_from_what_is_there(login: Login, plan: Plan) -> None:
    built = build(login, plan)
    assert verdicts(login, plan) == ["present"] * 3
    assert [statement.split('"')[1] for statement in built.statements] == [RULE, DATE, ACTIVE]
    assert all(" CONCURRENTLY " in statement for statement in built.statements)
    assert (built.repaired, built.stalled_by, built.write_pause_ms) == ((), (), 0)

    assert build(login, plan).statements == ()
    query(login, f"DROP INDEX aedpics.{DATE}")
    assert [statement.split('"')[1] for statement in build(login, plan).statements] == [DATE]
    assert verdicts(login, plan) == ["present"] * 3


def test_writers_do_not_wait_and_the_build_can_be_watched(login: Login, plan: Plan) -> None:
    """While a build waits for an old snapshot, others write; its session says how far it is."""
    with old_snapshot(login) as reader:
        with in_thread(lambda: build(login, plan)) as results:
            wait_for(lambda: query(login, PHASE), lambda rows: rows and rows[0][1] == "waiting for old snapshots")
            with connect(login, lock_timeout_ms=200) as writer:
                open_session(writer, "AED-1")
            names = query(
                login,
                "SELECT application_name FROM pg_catalog.pg_stat_activity WHERE query LIKE 'CREATE UNIQUE INDEX CON%'",
            )
            assert names == [("at-most-one index 1 of 3",)]
            pid = reader.info.backend_pid
            waits_for = "SELECT current_locker_pid FROM pg_catalog.pg_stat_progress_create_index"
            wait_for(lambda: query(login, waits_for), lambda rows: rows == [(pid,)])
            reader.rollback()
        (built,) = results
    assert built.write_pause_ms == 0
    assert [session["pid"] for session in built.stalled_by] == [pid]
    assert not built.stalled_by[0]["on_the_table"]
    assert "secret" not in str(built.stalled_by)
    assert verdicts(login, plan) == ["present"] * 3


def test_a_pause_of_writers_that_somebody_else_causes_meanwhile_is_measured(login: Login, plan: Plan) -> None:
    """Who wants the whole table waits for the build, and writers queue behind him."""

    def lock() -> None:
        with connect(login, lock_timeout_ms=500) as other, other.cursor() as cursor:
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                cursor.execute("LOCK TABLE aedpics.inspection_sessions IN ACCESS EXCLUSIVE MODE")
            other.rollback()

    waits = "SELECT count(*) FROM pg_catalog.pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
    with old_snapshot(login) as reader, in_thread(lambda: build(login, plan)) as results:
        wait_for(lambda: query(login, PHASE), lambda rows: rows and rows[0][1] == "waiting for old snapshots")
        with in_thread(lock):
            wait_for(lambda: query(login, waits), lambda rows: rows == [(1,)])
            with connect(login, lock_timeout_ms=10_000) as writer:
                open_session(writer, "AED-1")
        reader.rollback()
    (built,) = results
    assert built.write_pause_ms > 0


def test_a_long_transaction_on_another_table_ends_it_at_the_deadline_without_a_trace(login: Login, plan: Plan) -> None:
    with old_snapshot(login) as reader:
        before = traces(login)
        with pytest.raises(
            OperatorError, match="did not end within the 2 s that migrate_deadline_s left; it waits for pid"
        ) as stop:
            build(login, plan, deadline_s=2)
        assert stop.value.details["cause"] == "deadline"
        assert [session["pid"] for session in stop.value.details["stalled_by"]] == [reader.info.backend_pid]
        assert "an old snapshot: SELECT count(*) FROM aedpics.user_profiles WHERE email <> ?" in stop.value.seen
        assert stop.value.seen.endswith("Nothing of it is left.")
        assert traces(login) == before
    assert build(login, plan).statements


def test_a_held_table_is_waited_for_before_anything_is_begun(login: Login, plan: Plan) -> None:
    with connect(login) as writer:
        open_session(writer, "AED-1")
        before = traces(login)
        time.sleep(1)
        with pytest.raises(OperatorError, match="was not begun within the 1 s that migrate_deadline_s left") as stop:
            build(login, plan, deadline_s=1)
        assert stop.value.details["cause"] == "deadline"
        assert [session["pid"] for session in stop.value.details["stalled_by"]] == [writer.info.backend_pid]
        assert "AED-1" not in str(stop.value)
        assert traces(login) == before
        writer.rollback()
    assert build(login, plan).statements


def test_a_prepared_transaction_is_named_by_its_name(login: Login, plan: Plan) -> None:
    with connect(login) as writer, writer.cursor() as cursor:
        open_session(writer, "AED-1")
        cursor.execute("PREPARE TRANSACTION 'forgotten'")
    try:
        with connect(login) as connection:
            (found,) = locks.stalling(connection, plan.schema, [plan.table])
        assert (found["pid"], found["state"], found["on_the_table"]) == (0, "prepared transaction", True)
        assert found["query"] == "PREPARE TRANSACTION 'forgotten'"
        with pytest.raises(OperatorError, match="was not begun"):
            build(login, plan, deadline_s=1)
    finally:
        query(login, "ROLLBACK PREPARED 'forgotten'")


def test_a_writer_that_comes_during_the_build_keeps_the_leftover_and_it_is_said_exactly(
    login: Login, plan: Plan
) -> None:
    """It may neither be finished nor dropped before that writer ends: the next call repairs it."""
    with old_snapshot(login) as reader, connect(login) as writer:
        limits = Limits(3, leftover_s=1)
        with in_thread(lambda: build_concurrently.build(login, plan, inspect(login, plan), limits)) as results:
            wait_for(lambda: query(login, PHASE), lambda rows: rows and rows[0][1] == "waiting for old snapshots")
            open_session(writer, "AED-1")
        (stop,) = results
        assert isinstance(stop, OperatorError)
        assert stop.details["cause"] == "deadline"
        assert "Its INVALID index stays" in stop.seen
        assert f"pid {writer.info.backend_pid}" in stop.details["leftover"]
        assert f'DROP INDEX CONCURRENTLY "aedpics"."{RULE}";' in stop.details["leftover"]
        assert verdict(login, plan).verdict == "invalid"
        writer.rollback()
        reader.rollback()
    assert build(login, plan).repaired == (RULE,)
    assert verdicts(login, plan) == ["present"] * 3


def test_what_a_build_leaves_goes_once_the_writer_in_its_way_has_ended(login: Login, plan: Plan) -> None:
    waits = (
        "SELECT count(*) FROM pg_catalog.pg_stat_activity"
        " WHERE query LIKE 'DROP INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'"
    )
    with old_snapshot(login), connect(login) as writer:
        limits = Limits(2, leftover_s=30)
        with in_thread(lambda: build_concurrently.build(login, plan, inspect(login, plan), limits)) as results:
            wait_for(lambda: query(login, PHASE), lambda rows: rows and rows[0][1] == "waiting for old snapshots")
            open_session(writer, "AED-1")
            wait_for(lambda: query(login, waits), lambda rows: rows == [(1,)])
            time.sleep(0.2)  # it goes on waiting
            writer.rollback()
        (stop,) = results
    assert isinstance(stop, OperatorError)
    assert (stop.details["cause"], stop.details["leftover"]) == ("deadline", None)
    assert verdict(login, plan).verdict == "missing"


def test_a_duplicate_in_its_way_leaves_no_trace(login: Login, plan: Plan) -> None:
    inspection = inspect(login, plan)
    with connect(login) as connection:
        open_session(connection, "AED-secret", 2)
    before = traces(login)
    with pytest.raises(OperatorError, match=r"a duplicate got in its way\. Nothing of it is left\.") as stop:
        build_concurrently.build(login, plan, inspection, Limits(30))
    assert (stop.value.details["cause"], stop.value.details["sqlstate"]) == ("duplicates", "23505")
    assert "AED-secret" not in str(stop.value)
    assert traces(login) == before


@pytest.mark.parametrize(
    ("function", "cause", "said"),
    [
        ("pg_cancel_backend", "cancelled", "somebody cancelled it"),
        ("pg_terminate_backend", "terminated", "its session was ended"),
    ],
)
def test_a_build_that_somebody_ends_leaves_no_trace(
    login: Login, plan: Plan, function: str, cause: str, said: str
) -> None:
    with old_snapshot(login):
        before = traces(login)
        with in_thread(lambda: build(login, plan)) as results:
            ((pid, _),) = wait_for(
                lambda: query(login, PHASE), lambda rows: rows and rows[0][1] == "waiting for old snapshots"
            )
            query(login, f"SELECT {function}({pid})")
        (stop,) = results
        assert isinstance(stop, OperatorError)
        assert stop.details["cause"] == cause
        assert said in stop.seen
        assert traces(login) == before
    assert build(login, plan).statements


def test_who_interrupts_a_build_does_not_wait_for_it(login: Login, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: locks.Watch) -> None:
        if [phase for _, phase in query(login, PHASE)] == ["waiting for old snapshots"]:
            raise KeyboardInterrupt

    with old_snapshot(login):
        with monkeypatch.context() as patched:
            patched.setattr(locks.Watch, "sample", interrupted)
            with pytest.raises(KeyboardInterrupt):
                build(login, plan, deadline_s=60)
        assert query(login, PHASE) == []
    assert build(login, plan).repaired == (RULE,)


def test_a_build_in_progress_elsewhere_is_left_alone(login: Login, plan: Plan) -> None:
    with old_snapshot(login) as reader:
        with in_thread(lambda: query(login, CONCURRENTLY)) as results:
            ((pid, _),) = wait_for(
                lambda: query(login, PHASE), lambda rows: rows and rows[0][1] == "waiting for old snapshots"
            )
            before = traces(login)
            with pytest.raises(OperatorError, match="is being built at this moment") as stop:
                build(login, plan)
            details = stop.value.details
            assert (details["cause"], details["pid"]) == ("building", pid)
            assert details["phase"] == "waiting for old snapshots"
            assert f"pid {pid}, waiting for old snapshots" in stop.value.seen
            assert traces(login) == before
            reader.rollback()
        assert results == [[]]
    assert verdict(login, plan).verdict == "present"


def test_a_build_elsewhere_is_seen_by_its_lock_when_its_progress_is_hidden(login: Login, plan: Plan) -> None:
    """Without pg_read_all_stats other people's rows of pg_stat_progress_create_index name no index."""
    role = "at_most_one_test_blind"
    query(login, f"DROP ROLE IF EXISTS {role}")
    query(
        login,
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA aedpics TO {role};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA aedpics TO {role}",
    )
    try:
        with old_snapshot(login) as reader, in_thread(lambda: query(login, CONCURRENTLY)):
            ((pid, _),) = wait_for(
                lambda: query(login, PHASE), lambda rows: rows and rows[0][1] == "waiting for old snapshots"
            )
            with connect(login) as connection, connection.cursor() as cursor:
                cursor.execute(f"SET ROLE {role}")
                inspection = verification.inspect(connection, plan)
                assert inspection.verdicts[0].building is None
                with pytest.raises(OperatorError, match=f"pid {pid}, its phase is not visible") as stop:
                    verification.refuse_building(connection, plan, inspection)
            assert stop.value.details["cause"] == "building"
            reader.rollback()
    finally:
        query(login, f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("statement", "building"),
    [
        ("LOCK TABLE aedpics.inspection_sessions IN SHARE UPDATE EXCLUSIVE MODE", True),
        ("LOCK TABLE aedpics.inspection_sessions IN ROW EXCLUSIVE MODE", False),
        ("ANALYZE aedpics.inspection_sessions", False),
    ],
)
def test_an_abandoned_index_is_being_built_only_beside_the_lock_of_a_build(
    login: Login, plan: Plan, statement: str, building: bool
) -> None:
    states = [(ACTIVE, "present", True), (DATE, "missing", None), (RULE, "invalid", False)]
    found = verification.Inspection(tuple(Verdict(name, state, valid=valid) for name, state, valid in states), 0)
    stranger = verification.Inspection((Verdict("idx_inspection_sessions_active_x", "unexpected", valid=False),), 0)
    with connect(login) as other, other.cursor() as cursor, connect(login) as connection:
        cursor.execute(statement)
        verification.refuse_building(connection, plan, stranger)
        if not building:
            verification.refuse_building(connection, plan, found)
            return
        said = rf"{RULE} is being built at this moment by {login.user} \(at-most-one\)"
        with pytest.raises(OperatorError, match=said) as stop:
            verification.refuse_building(connection, plan, found)
        assert stop.value.details["pid"] == other.info.backend_pid


def test_the_planned_indexes_are_dropped_one_by_one(login: Login, plan: Plan) -> None:
    build(login, plan)
    found, held = inspect(login, plan), list[Any]()
    with connect(login, lock_timeout_ms=0, statement_timeout_ms=500, autocommit=True) as connection:
        expected = [f'DROP INDEX CONCURRENTLY IF EXISTS "aedpics"."{name}"' for name in (RULE, DATE, ACTIVE)]
        assert verification.drop(connection, plan, found, check=True, hold=held.append) == expected
        assert (verdicts(login, plan), held) == (["present"] * 3, [])
        with connect(login) as reader, reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM aedpics.inspection_schedules")
            said = f"{DATE} on inspection_schedules did not end .* pid {reader.info.backend_pid}"
            with pytest.raises(OperatorError, match=said):
                verification.drop(connection, plan, found, hold=held.append)
        assert (verdicts(login, plan), len(held)) == (["missing", "invalid", "present"], 3)
        verification.drop(connection, plan, inspect(login, plan))
        assert verdicts(login, plan) == ["missing"] * 3


def test_a_drop_that_has_to_be_plain_names_the_reader_in_its_way(
    login: Login, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL drops no index concurrently where an event trigger writes before each command."""
    monkeypatch.setattr(brief_lock, "_ATTEMPTS", 1)
    build(login, plan)
    query(
        login,
        "CREATE TABLE aedpics.seen (tag text);"
        "CREATE FUNCTION aedpics.note() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO aedpics.seen VALUES (tg_tag); END$$;"
        "CREATE EVENT TRIGGER note ON ddl_command_start EXECUTE FUNCTION aedpics.note()",
    )
    with (
        connect(login) as reader,
        reader.cursor() as cursor,
        connect(login, lock_timeout_ms=0, autocommit=True) as connection,
    ):
        cursor.execute("SELECT count(*) FROM aedpics.inspection_sessions")
        with pytest.raises(OperatorError, match=f"did not end .* pid {reader.info.backend_pid}"):
            verification.drop(connection, plan, inspect(login, plan))
    assert verdicts(login, plan) == ["present"] * 3


def test_nothing_is_dropped_that_is_not_the_plans_or_is_being_built(login: Login, plan: Plan) -> None:
    query(login, f"CREATE INDEX {RULE} ON aedpics.aed_data (id)")
    with connect(login, autocommit=True) as connection:
        with pytest.raises(OperatorError, match="Not the plan's to drop"):
            verification.drop(connection, plan, inspect(login, plan))
        query(login, f"DROP INDEX aedpics.{RULE}")
        with old_snapshot(login) as reader, in_thread(lambda: query(login, CONCURRENTLY)):
            wait_for(lambda: query(login, PHASE), lambda rows: rows and rows[0][1] == "waiting for old snapshots")
            with pytest.raises(OperatorError, match="is being built at this moment"):
                verification.drop(connection, plan, inspect(login, plan))
            reader.rollback()
    assert verdict(login, plan).verdict == "present"


def test_transactions_that_begin_meanwhile_are_not_waited_for(login: Login, plan: Plan) -> None:
    """Two readers take turns: one of them always has had the table for more than a second."""
    done = threading.Event()
    inspection = inspect(login, plan)

    def read() -> None:
        with connect(login) as connection, connection.cursor() as cursor:
            while not done.is_set():
                cursor.execute("SELECT count(*) FROM aedpics.inspection_sessions")
                done.wait(2.4)
                connection.rollback()

    with in_thread(read):
        done.wait(1.2)
        with in_thread(read):
            try:
                assert len(build_concurrently.build(login, plan, inspection, Limits(6)).statements) == 3
            finally:
                done.set()


def test_an_automatic_vacuum_is_not_waited_for(login: Login, plan: Plan) -> None:
    """Its session is told by its query, as pg_stat_activity shows it; this one only has such a text."""
    with connect(login) as other, other.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM aedpics.inspection_sessions; SAVEPOINT before")
        with pytest.raises(psycopg2.errors.SyntaxError):
            cursor.execute("autovacuum: VACUUM aedpics.inspection_sessions")
        built = build(login, plan, deadline_s=5)
        assert len(built.statements) == 3


def test_an_abandoned_index_is_told_from_one_that_is_built_and_repaired(login: Login, plan: Plan) -> None:
    with connect(login) as connection:
        open_session(connection, "AED-1", 2)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        query(login, CONCURRENTLY)
    query(login, "DELETE FROM aedpics.inspection_sessions")
    assert verdict(login, plan).verdict == "invalid"
    built = build(login, plan)
    assert built.repaired == (RULE,)
    assert built.statements[0] == f'DROP INDEX CONCURRENTLY IF EXISTS "aedpics"."{RULE}"'
    assert verdicts(login, plan) == ["present"] * 3


def test_a_name_taken_meanwhile_is_not_dropped(login: Login, plan: Plan) -> None:
    inspection = inspect(login, plan)
    with connect(login) as connection:
        open_session(connection, "AED-1", 2)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        query(login, CONCURRENTLY)
    with pytest.raises(OperatorError, match="already exists") as stop:
        build_concurrently.build(login, plan, inspection, Limits(30))
    assert stop.value.details["cause"] == "build"
    assert verdict(login, plan).verdict == "invalid"


def test_tables_and_indexes_are_looked_up_in_the_plans_schema(login: Login, plan: Plan) -> None:
    query(
        login,
        "CREATE SCHEMA other; CREATE TABLE other.plain (id int);"
        f"CREATE INDEX {RULE} ON other.plain (id); CREATE INDEX one ON aedpics.aed_data (id)",
    )
    with connect(login, autocommit=True) as connection:
        assert build_concurrently._state(connection, "aedpics", RULE) is None
        assert build_concurrently._state(connection, "aedpics", "one") == "valid"
        for ready, state in (("true", "it is kept up to date"), ("false", "it does not refuse duplicates")):
            query(
                login,
                f"UPDATE pg_catalog.pg_index SET indisvalid = false, indisready = {ready}"
                " WHERE indexrelid = 'aedpics.one'::regclass",
            )
            assert str(build_concurrently._state(connection, "aedpics", "one")).startswith(state)
    assert build(login, plan).repaired == ()


CONTROLLER = """
import json, sys
from at_most_one.indexes import build_concurrently, verification
from at_most_one.plan import parse
from at_most_one.postgres.connection import Login, connect
given = json.load(sys.stdin)
plan, login = parse(given["plan"]), Login(**given["login"])
with connect(login) as connection:
    inspection = verification.inspect(connection, plan)
build_concurrently.build(login, plan, inspection, build_concurrently.Limits(60))
"""


def test_a_build_whose_controller_was_killed_ends_and_the_next_one_repairs(
    login: Login, plan: Plan, plan_data: dict[str, Any]
) -> None:
    given = {"plan": plan_data, "login": vars(login)}
    with old_snapshot(login), connect(login) as connection:
        child = subprocess.Popen(
            [sys.executable, "-c", CONTROLLER],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "module_utils")},
        )
        assert child.stdin is not None
        child.stdin.write(json.dumps(given).encode())
        child.stdin.close()
        try:
            ((pid, _),) = wait_for(
                lambda: query(login, PHASE), lambda rows: rows and rows[0][1] == "waiting for old snapshots"
            )
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        if connection.server_version < 140_000:  # an old server notices only when it next writes to the client
            query(login, f"SELECT pg_terminate_backend({pid})")
        wait_for(lambda: query(login, PHASE) == [])
    assert verdict(login, plan).verdict == "invalid"
    assert build(login, plan).repaired == (RULE,)
