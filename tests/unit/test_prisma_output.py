"""What a person gets to see of Prisma's output: the code, the first lines, no secret, no row value."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, quote_plus, unquote, urlsplit

import pytest
from at_most_one.postgres.connection import Login
from at_most_one.prisma.cli import Call, _lost_a_lock, connection_url
from at_most_one.prisma.migration_history import judge
from at_most_one.prisma.output import error_code, first_lines, scrub

PASSWORD = 'p@ss/w:rd "1" é\'%'
LOGIN = Login("db.example.test", 5432, "aed pics", "aedpics_admin", PASSWORD)

# As Prisma 6 prints it.
P3018 = """\
Prisma schema loaded from prisma/schema.prisma
Datasource "db": PostgreSQL database "aedpics", schema "aedpics" at "db.example.test:5432"

12 migrations found in prisma/migrations

Applying migration `20251110_add_partial_unique_indexes`
\x1b[1;31mError: P3018\x1b[0m

A migration failed to apply. New migrations cannot be applied before the error is recovered from.

Migration name: 20251110_add_partial_unique_indexes

Database error code: 23505

Database error:
ERROR: could not create unique index "idx_inspection_sessions_active_session_per_equipment"
DETAIL: Key (equipment_serial)=(AED-0001 (정문)) is duplicated.

DbError { severity: "ERROR", detail: Some("Key (equipment_serial)=(AED-0001 (정문)) is duplicated."), code: "23505" }
"""


@pytest.mark.parametrize(
    "leak",
    [
        PASSWORD,
        quote(PASSWORD, safe=""),
        quote(PASSWORD),
        quote_plus(PASSWORD),
        'the URL "' + LOGIN.url() + '" is wrong',
        f"postgres://aedpics_admin:{PASSWORD}@db.example.test/aedpics",
        "DATABASE_URL=postgresql://somebody:else's@host/db",
        connection_url(LOGIN, "aedpics", 3000),
    ],
)
def test_no_spelling_of_the_password_survives(leak: str) -> None:
    shown = scrub(f"Error: P1000 {leak} end\nnext line", LOGIN)
    for secret in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), quote_plus(PASSWORD), "p@ss", "p%40ss", "else"):
        assert secret not in shown
    assert "***" in shown
    assert shown.startswith("Error: P1000")
    assert shown.endswith("next line")


def test_an_empty_password_hides_nothing() -> None:
    assert scrub("Error: P1001", Login("h", 1, "d", "u", "")) == "Error: P1001"


def test_row_values_and_colours_are_gone() -> None:
    shown = scrub(P3018, LOGIN)
    assert "AED-0001" not in shown
    assert "정문" not in shown
    assert "\x1b" not in shown
    assert "Key (equipment_serial)=(...)" in shown
    assert "x" not in scrub('DETAIL:  Failing row contains (1, x, "x)").', LOGIN).partition("row")[2]


def test_the_lines_that_say_what_went_wrong() -> None:
    shown = scrub(P3018, LOGIN)
    assert error_code(shown) == "P3018"
    assert first_lines(shown)[0] == "Error: P3018"
    assert any("Database error code: 23505" in line for line in first_lines(shown))
    assert first_lines("one\n\ntwo\n") == ["one", "two"]
    assert first_lines("") == []
    assert error_code("P42 and XP3018x") is None


# As Prisma 6 prints it with the JavaScript engine: no code, no SQLSTATE, the message in the server's language.
JS_ENGINE = """\
WARNING: Your schema specifies the following datasource properties but you are using a Driver Adapter:
- url

3 migrations found in prisma/migrations

Error: external connector error
Error querying the database: ERROR: {message}
   0: sql_schema_connector::apply_migration::apply_script
           with migration_name="20251110_add_partial_unique_indexes"
             at schema-engine/connectors/sql-schema-connector/src/apply_migration.rs:113
   1: schema_commands::commands::apply_migrations::Applying migration
           with migration_name="20251110_add_partial_unique_indexes"
             at schema-engine/commands/src/commands/apply_migrations.rs:95
"""
ENGLISH = "canceling statement due to lock timeout"
KOREAN = "잠금 대기 시간 초과로 작업을 취소합니다"


def test_the_engines_own_stack_is_no_message() -> None:
    assert first_lines(JS_ENGINE.format(message=KOREAN)) == [
        "Error: external connector error",
        f"Error querying the database: ERROR: {KOREAN}",
    ]


@pytest.mark.parametrize(
    ("returncode", "output", "waited_ms", "lost"),
    [
        (1, JS_ENGINE.format(message=ENGLISH), 0, True),
        (1, JS_ENGINE.format(message=KOREAN), 2_900, True),
        (1, JS_ENGINE.format(message=KOREAN), 1_500, False),
        (1, P3018.replace("23505", "55P03"), 0, True),
        (1, P3018.replace("23505", "40P01"), 0, True),
        (1, JS_ENGINE.format(message="deadlock detected"), 0, True),
        (1, P3018, 0, False),
        (1, "Error: P1002\n\nThe database server was reached but timed out.", 0, True),
        (0, JS_ENGINE.format(message=ENGLISH), 3_000, False),
        (None, JS_ENGINE.format(message=ENGLISH), 3_000, False),
    ],
)
def test_only_a_lost_lock_is_tried_again(returncode: int | None, output: str, waited_ms: int, lost: bool) -> None:
    verdict = judge((), None, "20251110_add_partial_unique_indexes", False)
    assert _lost_a_lock(Call(returncode, output, 1.0), verdict, waited_ms, 3_000) is lost


@pytest.mark.parametrize("schema", ["aedpics", "AedPics", 'we"ird na\\me'])
def test_both_engines_are_told_the_schema_and_the_lock_timeout(schema: str) -> None:
    url = urlsplit(connection_url(LOGIN, schema, 1500))
    query = parse_qs(url.query)
    assert (unquote(url.username or ""), unquote(url.password or "")) == (LOGIN.user, PASSWORD)
    assert query["schema"] == [schema]
    assert query["options"][0].startswith("-c lock_timeout=1500 -c application_name=at-most-one-prisma -c search_path=")
    assert "+" not in url.query  # libpq and Rust do not read + as a space
