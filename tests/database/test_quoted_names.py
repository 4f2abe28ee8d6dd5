"""The whole procedure where every name needs quoting: schema, table, type, columns, indexes, plan id.

Report, fence, clean-up, build, verification, lowering, dropping, restoring; with the application writing in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2.errors
import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.fence import write_fence
from at_most_one.indexes import definitions, verification
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight import server_checks

from tests.database.test_fence import open_as_app, run

SCHEMA, TABLE, STATUS = 'Aed-픽스 "1"\'s', "Session {Rows}; --", "Session $$Status$$"
ID, SERIAL, OPEN, SINCE = "Id", 'Equipment "Serial" 번호', "select", "Started\\At"
RULE, LIST = "One Open-Session per 장비's", 'Idx "of" rows; DROP'
PREDICATE = f"\"{OPEN}\" IN ('active', 'paused') -- \"open\""


def quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


@pytest.fixture
def odd(login: Login, plan_data: dict[str, Any]) -> Plan:
    """40 rows: on 8 equipments 3 open ones each and 2 closed ones; so 16 are surplus."""
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"CREATE SCHEMA {quoted(SCHEMA)};"
            f"CREATE TYPE {quoted(SCHEMA, STATUS)} AS ENUM ('active', 'paused', 'it''s %s');"
            f"CREATE TABLE {quoted(SCHEMA, TABLE)} ({quoted(ID)} int PRIMARY KEY, {quoted(SERIAL)} varchar(40),"
            f" {quoted(OPEN)} {quoted(SCHEMA, STATUS)}, {quoted(SINCE)} timestamptz, note text);"
            f"CREATE INDEX ON {quoted(SCHEMA, TABLE)} ({quoted(SERIAL)})"
        )
        cursor.execute(
            f"INSERT INTO {quoted(SCHEMA, TABLE)} SELECT n, 'AED ' || n % 8, (ARRAY['active', 'paused', 'active',"
            f" 'it''s %s', 'it''s %s'])[1 + n / 8]::{quoted(SCHEMA, STATUS)}, timestamptz '2025-11-10' + n * interval"
            " '1 hour', '100% \"픽스\" \\ ' || n FROM generate_series(0, 39) AS n"
        )
    changes = {
        "id": "plan \"1\"'s", "schema": SCHEMA, "table": TABLE, "primary_key": [ID], "key": [SERIAL],
        "predicate": PREDICATE, "keep": [{"column": SINCE, "direction": "desc", "nulls": "last"}], "show": [OPEN],
        "expected": {"groups": 8, "rows": 16}, "ceiling": 16,
        "indexes": [{"name": RULE, "unique": True, "columns": [SERIAL], "predicate": PREDICATE},
                    {"name": LIST, "columns": [{"column": SINCE, "order": "desc"}], "include": [OPEN]}],
        "family": {"pattern": "^(One Open|Idx)"},
    }  # fmt: skip
    return parse({**plan_data, **changes})


def content(connection: Connection) -> list[tuple[Any, ...]]:
    return run(connection, f"SELECT r::text FROM {quoted(SCHEMA, TABLE)} AS r ORDER BY 1")


@pytest.mark.versions
def test_report_fence_clean_up_build_verify_lower_drop_restore(
    connection: Connection, login: Login, odd: Plan, run_module: Callable[..., dict[str, Any]]
) -> None:
    app = open_as_app(login)
    before = content(connection)
    again = f"INSERT INTO {quoted(SCHEMA, TABLE)} VALUES (99, 'AED 1', 'active', now())"
    facts = server_checks.read(connection, odd, server_checks.Limits(3600, 3600))
    connection.rollback()
    assert facts["tables"][TABLE]["owned"]

    found = surplus_rows.report(connection, odd)
    assert (found.group_count, found.row_count, found.open_total) == (8, 16, 24)
    assert write_fence.raise_fence(connection, odd).exempt == 16
    with pytest.raises(psycopg2.errors.UniqueViolation, match="at_most_one_fence_"):
        run(app, again)
    removal = surplus_rows.remove(connection, odd, rows=found.rows, digest=found.digest, run_id="run 1's")
    assert (removal.archived, removal.groups_left) == (16, 0)

    with connection, connection.cursor() as cursor:
        for index in odd.indexes:
            cursor.execute(definitions.create_statement(index, odd.schema))
    inspection = verification.inspect(connection, odd)
    connection.rollback()
    assert (inspection.exact, inspection.faults()) == (True, [])
    assert write_fence.lower_fence(connection, odd).before == "raised"
    with pytest.raises(psycopg2.errors.UniqueViolation, match="One Open-Session"):
        run(app, again)

    with connect(login, lock_timeout_ms=0, autocommit=True) as dropping:
        verification.drop(dropping, odd, inspection)
        with dropping.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_class WHERE relname IN (%s, %s)", (RULE, LIST))
            assert cursor.fetchone() == (0,)
    assert verification.inspect(connection, odd).existing == ()
    connection.rollback()
    restore(connection, odd, run_id="run 1's")
    assert content(connection) == before
    app.close()
