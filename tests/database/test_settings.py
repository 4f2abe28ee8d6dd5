"""Text output does not depend on where it is asked for: rows are archived and compared as text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight.out_and_back import try_out

from tests.database.cleaning import TABLE, remove, run
from tests.support.postgres import superuser

# What reaches every session of a database or a role, and what ours has nevertheless.
REACHING = {
    "search_path": ("aedpics", ""),
    "datestyle": ("German", "ISO, YMD"),
    "intervalstyle": ("sql_standard", "postgres"),
    "timezone": ("Asia/Seoul", "UTC"),
    "bytea_output": ("escape", "hex"),
    "extra_float_digits": ("-15", "1"),
    "standard_conforming_strings": ("off", "on"),
    "client_encoding": ("LATIN1", "UTF8"),
    "lc_monetary": ("C.UTF-8", "C"),
    "xmlbinary": ("hex", "base64"),
    "array_nulls": ("off", "on"),
    "quote_all_identifiers": ("on", "off"),
    "transform_null_equals": ("on", "off"),
    "row_security": ("on", "off"),
    "default_transaction_isolation": ("serializable", "read committed"),
    "default_transaction_deferrable": ("on", "off"),
    "exit_on_error": ("on", "off"),
    "lock_timeout": ("1ms", "3s"),
    "statement_timeout": ("1ms", "1min"),
    "idle_in_transaction_session_timeout": ("1ms", "1min"),
    "idle_session_timeout": ("20s", "0"),  # a shorter one could end the session before it asks
    "transaction_timeout": ("20s", "0"),
    "synchronous_commit": ("off", "on"),
    "session_replication_role": ("local", "local"),  # as origin, but for triggers that are made for it
}


def test_the_environment_overrules_no_setting(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGTZ": "Asia/Seoul", "PGDATESTYLE": "German", "PGOPTIONS": "-c extra_float_digits=0"}.items():
        monkeypatch.setenv(name, value)
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT timestamptz '2025-11-10 00:00+00'::text, 0.1::float8 + 0.2::float8")
        assert cursor.fetchone() == ("2025-11-10 00:00:00+00", 0.1 + 0.2)


@pytest.fixture
def reached(login: Login) -> Login:
    """A database with every one of them that its server knows."""
    connection = superuser(login)
    with connection.cursor() as cursor:
        for name, (value, _) in REACHING.items():
            cursor.execute("SELECT current_setting(%s, true)", (name,))
            if cursor.fetchone() != (None,):
                cursor.execute(f"ALTER DATABASE {login.dbname} SET {name} = '{value}'")
    connection.close()
    return login


@pytest.mark.versions
def test_no_setting_of_the_role_or_the_database_reaches_a_session(reached: Login) -> None:
    with connect(reached) as connection, connection.cursor() as cursor:
        for name, (_, ours) in REACHING.items():
            cursor.execute("SELECT current_setting(%s, true)", (name,))
            assert cursor.fetchone() in [(ours,), (None,)], name


@pytest.mark.versions
def test_what_a_login_event_trigger_sets_does_not_reach_a_session_either(login: Login) -> None:
    """It runs behind the settings that a session asks for at connect. PostgreSQL has such triggers since 17."""
    with contextlib.closing(superuser(login)) as connection, connection.cursor() as cursor:
        sets = []
        for name, (value, _) in REACHING.items():
            cursor.execute("SELECT current_setting(%s, true)", (name,))
            if cursor.fetchone() != (None,):  # a timeout of 1 ms would end the session before it asks
                sets.append(f"PERFORM set_config('{name}', '{'20s' if value == '1ms' else value}', false);")
        body = f"BEGIN {' '.join(sets)} END"
        cursor.execute(f"CREATE FUNCTION at_login() RETURNS event_trigger LANGUAGE plpgsql AS $${body}$$")
        created = "CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION at_login()"
        if connection.server_version < 170000:
            with pytest.raises(psycopg2.errors.SyntaxError, match="unrecognized event name"):
                cursor.execute(created)
            return
        cursor.execute(created)
    with connect(login) as own, own.cursor() as cursor:
        for name, (_, ours) in REACHING.items():
            cursor.execute("SELECT current_setting(%s, true)", (name,))
            assert cursor.fetchone() in [(ours,), (None,)], name
        cursor.execute("SELECT 'é'::text")
        assert cursor.fetchone() == ("é",), "psycopg2 knows the encoding, too"


def test_rows_leave_under_some_settings_and_return_under_others(reached: Login, plan: Plan, example: Any) -> None:
    """The archive is written and read by sessions months apart."""
    everything = f"SELECT t::text FROM {TABLE} AS t ORDER BY 1"
    with connect(reached) as connection:
        run(connection, f"ALTER TABLE {TABLE} ADD COLUMN price money DEFAULT 12.5, ADD COLUMN parts text[]")
        run(connection, f"UPDATE {TABLE} SET parts = ARRAY[NULL, 'NULL', '\u00e9']")
        before = run(connection, everything)
        assert try_out(connection, plan).rows == 5
        assert remove(connection, plan, surplus_rows.report(connection, plan)).removed == 25
    with (
        psycopg2.connect(
            host=reached.host, port=reached.port, dbname="postgres", user=reached.user, password=reached.password
        ) as other,
        other.cursor() as cursor,
    ):
        cursor.execute(f"ALTER DATABASE {reached.dbname} RESET ALL")
    other.close()
    with connect(reached) as connection:
        assert restore(connection, plan, run_id="run-1").restored == 25
        assert run(connection, everything) == before


def test_a_session_without_triggers_and_foreign_keys_is_refused(login: Login) -> None:
    connection = superuser(login)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {login.dbname} SET session_replication_role = 'replica'")
    connection.close()
    with pytest.raises(OperatorError, match="session_replication_role is replica") as stop, connect(login):
        pytest.fail("what is written would not be checked")
    assert "RESET session_replication_role" in stop.value.next_step


class TestASessionThatCountsNoRows:
    """track_counts = off: nothing tells what triggers write. Our sessions cannot change it: only a superuser may."""

    @pytest.fixture
    def uncounted(self, login: Login, connection: Connection, example: Any) -> Callable[[], object]:
        """Ends the counting in every session that is opened from then on; a trigger acts on what leaves and returns."""
        run(
            connection,
            "CREATE FUNCTION aedpics.acts() RETURNS trigger LANGUAGE plpgsql "
            "AS $$BEGIN RETURN coalesce(NEW, OLD); END$$",
        )
        when = f"CREATE TRIGGER acts BEFORE DELETE OR INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION aedpics.acts()"
        run(connection, when)
        return lambda: run(connection, f"ALTER DATABASE {login.dbname} SET track_counts = off")

    @pytest.fixture
    def acting(self, plan: Plan) -> Plan:
        return replace(plan, surplus=replace(plan.surplus, triggers=("acts",)))

    def test_stops_before_a_row_is_tried(self, login: Login, acting: Plan, uncounted: Callable[[], object]) -> None:
        uncounted()
        with connect(login) as connection:
            with pytest.raises(OperatorError) as stop:
                try_out(connection, acting)
            assert stop.value.seen.startswith(f"track_counts is off in the sessions of {login.user}: ")
            assert stop.value.expected == "on, PostgreSQL's default."
            assert f"ALTER ROLE {login.user} RESET track_counts" in stop.value.next_step

    def test_stops_before_a_row_leaves(self, login: Login, acting: Plan, uncounted: Callable[[], object]) -> None:
        uncounted()
        with connect(login) as connection:
            found = surplus_rows.report(connection, acting)
            before = run(connection, f"SELECT count(*) FROM {TABLE}")
            with pytest.raises(OperatorError, match="track_counts is off"):
                remove(connection, acting, found)
        with connect(login) as connection:
            assert run(connection, f"SELECT count(*) FROM {TABLE}") == before

    def test_stops_before_a_row_returns(
        self, login: Login, connection: Connection, acting: Plan, uncounted: Callable[[], object]
    ) -> None:
        assert remove(connection, acting, surplus_rows.report(connection, acting)).removed == 25
        uncounted()
        with connect(login) as other, pytest.raises(OperatorError, match="track_counts is off"):
            restore(other, acting, run_id="run-1")
        run(connection, f"ALTER DATABASE {login.dbname} RESET track_counts")
        with connect(login) as other:
            assert restore(other, acting, run_id="run-1").restored == 25
