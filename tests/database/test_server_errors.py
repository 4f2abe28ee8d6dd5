"""Whose error it is: what the user's functions raise is said of them, and never of the plan."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.errors import OperatorError
from at_most_one.indexes import definitions
from at_most_one.plan import Plan
from at_most_one.postgres import own_schema, server_errors
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.cleaning import remove
from tests.support.postgres import Server

RAISING = """
CREATE SCHEMA IF NOT EXISTS own;
CREATE FUNCTION own."Refuses this"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN {} END $$;
CREATE TRIGGER of_theirs BEFORE DELETE ON aedpics.inspection_sessions
    FOR EACH ROW EXECUTE FUNCTION own."Refuses this"();
"""
NAME = 'own."Refuses this"()'
SECRET = "row-value-hunter2"


def _run(connection: Connection, *statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.commit()


def _of_the_function(stop: OperatorError) -> None:
    assert f"raised inside the function {NAME}" in stop.seen
    assert f"read and correct {NAME}" in stop.next_step
    assert "plan" not in stop.next_step
    assert "database's own functions" in stop.expected


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"RAISE 'not today' USING DETAIL = '{SECRET}';", "not today"),
        ("PERFORM no_such_function(); RETURN OLD;", "no_such_function"),
        ("INSERT INTO no_such_table VALUES (1); RETURN OLD;", "no_such_table"),
    ],
)
def test_a_trigger_that_raises_is_named(
    connection: Connection, login: Login, plan: Plan, example: Any, body: str, said: str
) -> None:
    _run(connection, RAISING.format(body))
    with pytest.raises(OperatorError) as refused:
        remove(connection, plan, surplus_rows.report(connection, plan))
    assert said in refused.value.seen
    assert SECRET not in str(refused.value)
    _of_the_function(refused.value)
    # The next step's command, as it stands in the message.
    command = refused.value.next_step.partition('psql -c "')[2].rstrip('."').replace('\\"', '"')
    with connect(login) as other, other.cursor() as cursor:
        cursor.execute(command)
        assert any("trigger of_theirs" in described for (described,) in cursor.fetchall())


def test_a_function_in_an_index_expression_is_named(
    connection: Connection, plan_data: dict[str, Any], example: Any
) -> None:
    _run(
        connection,
        "CREATE SCHEMA own",
        'CREATE FUNCTION own."Refuses this"(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS'
        " $$ BEGIN RAISE 'cannot be computed'; END $$",
        "CREATE TABLE own.told (t text)",
        "INSERT INTO own.told VALUES ('x')",
    )
    with pytest.raises(psycopg2.Error) as failed, connection.cursor() as cursor:
        cursor.execute('CREATE INDEX ON own.told (own."Refuses this"(t))')
    connection.rollback()
    said = server_errors.explain(failed.value, "a plan that fits", "compare the plan's names")
    assert said.message == 'cannot be computed, raised inside the function own."Refuses this"(text)'
    assert "plan" not in said.next_step
    assert "::regprocedure" in said.next_step


def test_an_event_trigger_is_named(server: Server, connection: Connection, login: Login, plan: Plan) -> None:
    _run(
        connection,
        "CREATE SCHEMA own",
        'CREATE FUNCTION own."Refuses this"() RETURNS event_trigger LANGUAGE plpgsql AS'
        " $$ BEGIN RAISE 'nobody creates anything here' USING ERRCODE = '42501'; END $$",
    )
    superuser = replace(server.login, dbname=login.dbname)
    with connect(superuser, autocommit=True) as other, other.cursor() as cursor:
        cursor.execute('CREATE EVENT TRIGGER of_theirs ON ddl_command_start EXECUTE FUNCTION own."Refuses this"()')
    with pytest.raises(OperatorError) as refused:
        definitions.expected(connection, plan)
    assert "nobody creates anything here" in refused.value.seen
    _of_the_function(refused.value)
    connection.rollback()
    with pytest.raises((OperatorError, psycopg2.Error)) as created:
        own_schema.ensure(connection)
    assert "nobody creates anything here" in str(created.value)


def test_a_detail_without_row_values_is_kept_and_one_with_them_is_not(connection: Connection) -> None:
    def failing(statement: str) -> server_errors.Said:
        with pytest.raises(psycopg2.Error) as failed, connection.cursor() as cursor:
            cursor.execute(statement)
        connection.rollback()
        return server_errors.explain(failed.value, "expected.", "next.")

    _run(connection, "CREATE SCHEMA own", "CREATE TABLE own.t (t text UNIQUE)", "CREATE VIEW own.v AS TABLE own.t")
    depends = failing("DROP TABLE own.t")
    assert "view own.v depends on table own.t" in depends.message
    assert depends[1:] == ("expected.", "next.")
    twice = failing(f"INSERT INTO own.t VALUES ('{SECRET}'), ('{SECRET}')")
    assert SECRET not in twice.message


def test_what_a_function_only_passes_on_keeps_its_advice(connection: Connection) -> None:
    _run(
        connection,
        "CREATE SCHEMA own",
        "CREATE FUNCTION own.f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN 1; END $$",
    )
    with pytest.raises(psycopg2.Error) as failed, connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 50; SELECT own.f()")
    connection.rollback()
    said = server_errors.explain(failed.value, "an answer in time.", "raise statement_timeout_ms.")
    assert said.message.endswith("raised inside the function own.f()")
    assert said.next_step == "raise statement_timeout_ms."


def test_a_session_that_ends_between_two_transactions_is_said(login: Login, plan: Plan) -> None:
    """As the server's restart does, in the moment in which what a removal has set is put back."""

    def report_without_backend() -> None:
        with connect(login) as connection:
            with connect(login) as other, other.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
            with contextlib.suppress(psycopg2.Error), connection.cursor() as cursor:
                cursor.execute("RESET jit")
            surplus_rows.report(connection, plan)

    with pytest.raises(OperatorError, match=r"The connection to .* was lost: the server has closed the connection"):
        report_without_backend()
