"""The journal's tables, created by the first run that needs them."""

from __future__ import annotations

import psycopg2.errors

from ..errors import OperatorError
from .connection import Connection

_RULE = "run_one_unfinished_per_plan"
DEFINITION = f"""
CREATE TABLE IF NOT EXISTS at_most_one.run (
    run_id text PRIMARY KEY,
    plan_id text NOT NULL,
    plan_sha256 text NOT NULL,
    environment text NOT NULL,
    who text NOT NULL,
    controller text NOT NULL,
    controller_pid integer NOT NULL,
    controller_process text,
    commit_before text,
    commit_after text,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease interval NOT NULL,
    lease_until timestamptz NOT NULL,
    finished_at timestamptz,
    outcome text CHECK (outcome IN ('deployed', 'unchanged', 'rolled_back', 'stopped', 'abandoned')),
    failed_phase text,
    error text,
    report jsonb,
    taken_over_by text,
    CHECK ((finished_at IS NULL) = (outcome IS NULL))
);
CREATE UNIQUE INDEX IF NOT EXISTS {_RULE} ON at_most_one.run (plan_id) WHERE finished_at IS NULL;
CREATE TABLE IF NOT EXISTS at_most_one.step (
    run_id text NOT NULL REFERENCES at_most_one.run,
    position integer NOT NULL,
    phase text NOT NULL,
    status text NOT NULL CHECK (status IN ('ok', 'unchanged', 'failed', 'skipped')),
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    details jsonb NOT NULL,
    PRIMARY KEY (run_id, position)
);
ALTER TABLE at_most_one.run ADD COLUMN IF NOT EXISTS before jsonb;
COMMENT ON TABLE at_most_one.run IS 'at-most-one: one row for each deployment or rollback of a plan';
COMMENT ON TABLE at_most_one.step IS 'at-most-one: the phases of each run'
"""
_OBJECTS = ("run", _RULE, "step")

# Two first runs may create the journal at once; IF NOT EXISTS alone does not survive that.
_CREATION_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('at_most_one journal', 0))"


def ensure(connection: Connection) -> bool:
    """Create the journal's tables in the caller's transaction; whether anything was missing.

    A second run finds them in the catalog and needs no privilege to create.
    """
    if _is_current(connection):
        return False
    with connection.cursor() as cursor:
        try:
            cursor.execute(_CREATION_LOCK)
            if _is_current(connection):
                return False
            # CREATE SCHEMA IF NOT EXISTS asks for the privilege even where the schema is there.
            cursor.execute("SELECT to_regnamespace('at_most_one') IS NULL")
            if (cursor.fetchone() or (False,))[0]:
                cursor.execute("CREATE SCHEMA at_most_one")
            cursor.execute(DEFINITION)
        except psycopg2.errors.InsufficientPrivilege as refused:
            raise OperatorError(
                f"The journal cannot be created: {refused.diag.message_primary}.",
                expected="a role that may create the schema at_most_one in this database, once.",
                next_step="GRANT CREATE ON DATABASE to this role, or create the schema with this role as its owner.",
                sqlstate=refused.pgcode,
            ) from refused
    return True


def exists(connection: Connection) -> bool:
    """Whether the whole journal is there."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT bool_and(to_regclass('at_most_one.' || name) IS NOT NULL) FROM unnest(%s) AS name",
            (list(_OBJECTS),),
        )
        return cursor.fetchone() == (True,)


def _is_current(connection: Connection) -> bool:
    """Whether nothing is missing, the column that the first journals did not have included."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) = 1 FROM pg_attribute"
            " WHERE attrelid = to_regclass('at_most_one.run') AND attname = 'before' AND NOT attisdropped"
        )
        return cursor.fetchone() == (True,) and exists(connection)
