"""The one line of a database error that people get to see."""

from __future__ import annotations

from dataclasses import replace

import psycopg2
import pytest
from at_most_one.errors import OperatorError
from at_most_one.postgres.connection import Connection, Login
from at_most_one.postgres.server_errors import first_line


def test_it_has_no_row_value_and_no_place_in_the_statement(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE key (value text PRIMARY KEY); INSERT INTO key VALUES ('s3cret')")
        with pytest.raises(psycopg2.Error) as refused:
            cursor.execute("INSERT INTO key VALUES ('s3cret')")
    assert "s3cret" in str(refused.value)
    assert first_line(refused.value) == 'duplicate key value violates unique constraint "key_pkey"'


def test_without_a_server_it_is_what_libpq_says(login: Login) -> None:
    with pytest.raises(psycopg2.OperationalError) as failed:
        psycopg2.connect(**vars(replace(login, port=1)))
    assert first_line(failed.value).endswith("Connection refused")
    assert "\n" not in first_line(failed.value)


def test_an_error_without_words_has_a_line_too() -> None:
    assert first_line(psycopg2.OperationalError()) == "no reason given"
    assert first_line(OperatorError("One.\nTwo.", expected="x", next_step="y")).startswith("One.")


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("SELECT value::int FROM key", "invalid input syntax for type integer: (a value)"),
        ("SELECT value::date FROM key", "invalid input syntax for type date: (a value)"),
        ("SELECT (value || '99999999999')::int FROM key", "value (a value) is out of range for type integer"),
        # Written in the statement, as a plan's own is.
        ("SELECT FROM key WHERE value::int = 'x5cret'", 'invalid input syntax for type integer: "x5cret"'),
    ],
)
def test_a_value_that_a_cast_refuses_is_shown_only_where_the_statement_has_it(
    connection: Connection, statement: str, line: str
) -> None:
    value = "1" if "||" in statement else "s3cret"
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE key (value text); INSERT INTO key VALUES (%s)", (value,))
        with pytest.raises(psycopg2.Error) as refused:
            cursor.execute(statement)
    assert value in str(refused.value) or "x5cret" in str(refused.value)
    assert first_line(refused.value) == line
