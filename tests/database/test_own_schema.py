"""The schema at_most_one: made once, upgraded when an older release has written it, refused when a newer one has."""

from __future__ import annotations

from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres import own_schema
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.runs import journal, run_status
from at_most_one.runs.controllers import Controller

# As the first release wrote them: without a version, run.before, archived_row.after_sha256, and the later tables.
FIRST_RELEASE = """
CREATE SCHEMA at_most_one;
CREATE TABLE at_most_one.run (
    run_id text PRIMARY KEY, plan_id text NOT NULL, plan_sha256 text NOT NULL, environment text NOT NULL,
    who text NOT NULL, controller text NOT NULL, controller_pid integer NOT NULL, controller_process text,
    commit_before text, commit_after text, started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease interval NOT NULL, lease_until timestamptz NOT NULL, finished_at timestamptz,
    outcome text CHECK (outcome IN ('deployed', 'unchanged', 'rolled_back', 'stopped', 'abandoned')),
    failed_phase text, error text, report jsonb, taken_over_by text,
    CHECK ((finished_at IS NULL) = (outcome IS NULL)));
CREATE UNIQUE INDEX run_one_unfinished_per_plan ON at_most_one.run (plan_id) WHERE finished_at IS NULL;
CREATE TABLE at_most_one.step (
    run_id text NOT NULL REFERENCES at_most_one.run, position integer NOT NULL, phase text NOT NULL,
    status text NOT NULL CHECK (status IN ('ok', 'unchanged', 'failed', 'skipped')), started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL, details jsonb NOT NULL, PRIMARY KEY (run_id, position));
COMMENT ON TABLE at_most_one.run IS 'at-most-one: one row for each deployment or rollback of a plan';
CREATE TABLE at_most_one.archived_row (
    id bigserial PRIMARY KEY, run_id text NOT NULL, plan_id text NOT NULL, table_schema text NOT NULL,
    table_name text NOT NULL, primary_key jsonb NOT NULL, keeper jsonb NOT NULL, row jsonb NOT NULL,
    row_sha256 text NOT NULL, action text NOT NULL, archived_at timestamptz NOT NULL DEFAULT now(),
    restored_at timestamptz);
INSERT INTO at_most_one.run (run_id, plan_id, plan_sha256, environment, who, controller, controller_pid, lease,
    lease_until, finished_at, outcome)
VALUES ('old', 'one-active-inspection-session', 'x', 'production', 'somebody', 'gone', 1, '1 h', now(), now(),
    'deployed');
INSERT INTO at_most_one.step VALUES ('old', 1, 'cleanup', 'ok', now(), now(), '{"removed": 1}');
INSERT INTO at_most_one.archived_row (run_id, plan_id, table_schema, table_name, primary_key, keeper, row, row_sha256,
    action)
VALUES ('old', 'one-active-inspection-session', 'aedpics', 'inspection_sessions', '{"id": "1"}', '{"id": "2"}', '{}',
    'x', 'delete');
"""
# Everything that a table is known by in the catalog.
CATALOG = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, obj_description(c.oid, 'pg_class')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace('at_most_one') ORDER BY 1, 2"""


def rows(connection: Connection, statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def opening(plan: Plan) -> journal.Opening:
    return journal.Opening(plan, "production", "deploy", Controller("gateway", 1), before={"objects": ["index i"]})


def test_it_is_made_once_and_then_needs_no_right_to_create(connection: Connection) -> None:
    missing = own_schema.missing(connection)
    assert own_schema.ensure(connection) == missing
    assert missing[0] == "CREATE SCHEMA at_most_one"
    rows(connection, "SET default_transaction_read_only = on")
    connection.commit()
    assert own_schema.ensure(connection) == []


def test_what_is_made_has_the_version_that_this_release_knows(connection: Connection) -> None:
    own_schema.ensure(connection)
    ((comment,),) = rows(connection, "SELECT obj_description('at_most_one.run'::regclass)")
    assert comment.endswith(f"schema version {own_schema.VERSION}")


def test_an_older_release_is_upgraded_in_place(login: Login, connection: Connection, plan: Plan) -> None:
    own_schema.ensure(connection)
    new = rows(connection, CATALOG)
    connection.rollback()
    rows(connection, FIRST_RELEASE)
    connection.commit()

    with connect(login) as other:  # who only reads sees the older runs, and changes nothing
        assert [run["run_id"] for run in journal.read(other)] == ["old"]
        assert journal.before(other, "old") is None
        with pytest.raises(OperatorError, match=r"An older release .* has written the archive"):
            own_schema.has_archive(other)
    assert "before" not in {name for _, name, *_ in rows(connection, CATALOG)}
    opened = journal.open_run(connection, opening(plan))

    assert opened.created
    assert own_schema.has_archive(connection)
    assert journal.before(connection, opened.run_id) == {"objects": ["index i"]}
    assert journal.before(connection, "old") is None
    assert rows(connection, CATALOG) == new
    assert [run["run_id"] for run in journal.read(connection)] == [opened.run_id, "old"]
    assert run_status.rows_of(connection, ["old"])["old"]["archived"] == 1
    assert not own_schema.missing(connection)


def test_a_newer_release_is_refused_by_name_and_untouched(login: Login, connection: Connection, plan: Plan) -> None:
    own_schema.ensure(connection)
    newer = own_schema.VERSION + 1
    rows(connection, f"COMMENT ON TABLE at_most_one.run IS 'at-most-one: runs; schema version {newer}'")
    connection.commit()
    before = rows(connection, CATALOG)

    for act in (
        lambda: journal.open_run(connection, opening(plan)),
        lambda: journal.look(connection, opening(plan)),
        lambda: journal.read(connection),
        lambda: own_schema.has_archive(connection),
    ):
        with pytest.raises(OperatorError, match=rf"newer release .* version is {newer}") as refused:
            act()
        assert "use the release that wrote it" in refused.value.next_step
        connection.rollback()
    assert rows(connection, CATALOG) == before
