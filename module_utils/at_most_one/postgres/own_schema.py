"""The schema at_most_one: all of its tables, with a version, so that an older one is upgraded and a newer one refused.

The version stands in the comment on the table ``run``, which is not replicated and which a dump keeps.
"""

from __future__ import annotations

import re

import psycopg2.errors

from ..errors import OperatorError
from ..findings import observed, say
from .connection import Connection
from .own_schema_trust import refuse_foreign, revoke_grants
from .server_errors import first_line

# 1: without a version in the comment, and, in the oldest, without run.before and archived_row.after_sha256.
# 2: with whatever rights the database's default privileges had given others.
# 3: without run.server.
# 4: without run.number.
# 5: without request and run.progress.
VERSION = 6

_RULE = "run_one_unfinished_per_plan"
# Each statement can be run again: that is how an older schema is upgraded. CREATE SCHEMA IF NOT EXISTS asks for the
# privilege even where the schema is there, so it is not among them.
_STATEMENTS = (
    """
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
)""",
    "ALTER TABLE at_most_one.run ADD COLUMN IF NOT EXISTS before jsonb",
    "ALTER TABLE at_most_one.run ADD COLUMN IF NOT EXISTS server jsonb",
    "ALTER TABLE at_most_one.run ADD COLUMN IF NOT EXISTS number bigint",
    "ALTER TABLE at_most_one.run ADD COLUMN IF NOT EXISTS progress jsonb",
    f"CREATE UNIQUE INDEX IF NOT EXISTS {_RULE} ON at_most_one.run (plan_id) WHERE finished_at IS NULL",
    """
CREATE TABLE IF NOT EXISTS at_most_one.step (
    run_id text NOT NULL REFERENCES at_most_one.run,
    position integer NOT NULL,
    phase text NOT NULL,
    status text NOT NULL CHECK (status IN ('ok', 'unchanged', 'failed', 'skipped')),
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    details jsonb NOT NULL,
    PRIMARY KEY (run_id, position)
)""",
    """
CREATE TABLE IF NOT EXISTS at_most_one.archived_row (
    id bigserial PRIMARY KEY,
    run_id text NOT NULL,
    plan_id text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    primary_key jsonb NOT NULL,
    keeper jsonb NOT NULL,
    row jsonb NOT NULL,
    row_sha256 text NOT NULL,
    action text NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT now(),
    restored_at timestamptz
)""",
    "ALTER TABLE at_most_one.archived_row ADD COLUMN IF NOT EXISTS after_sha256 text",
    "CREATE INDEX IF NOT EXISTS archived_row_run_id ON at_most_one.archived_row (run_id)",
    """
CREATE TABLE IF NOT EXISTS at_most_one.repointed_row (
    id bigserial PRIMARY KEY,
    run_id text NOT NULL,
    plan_id text NOT NULL,
    constraint_name text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    primary_key jsonb NOT NULL,
    before jsonb NOT NULL,
    after jsonb NOT NULL,
    repointed_at timestamptz NOT NULL DEFAULT now(),
    restored_at timestamptz
)""",
    """
CREATE TABLE IF NOT EXISTS at_most_one.rehearsal (
    rehearsal_id text PRIMARY KEY,
    plan_id text NOT NULL,
    plan_sha256 text NOT NULL,
    commit_after text NOT NULL,
    outcome text NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    evidence jsonb NOT NULL
)""",
    """
CREATE TABLE IF NOT EXISTS at_most_one.request (
    run_id text NOT NULL REFERENCES at_most_one.run,
    position integer NOT NULL,
    action text NOT NULL CHECK (action IN ('pause', 'resume', 'hold_cutover', 'continue', 'abort')),
    who text NOT NULL,
    controller text NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, position)
)""",
    "COMMENT ON TABLE at_most_one.step IS 'at-most-one: the phases of each run'",
    "COMMENT ON TABLE at_most_one.archived_row IS 'at-most-one: each row that left its table, whole'",
    "COMMENT ON TABLE at_most_one.rehearsal IS 'at-most-one: the evidence of each rehearsal, as in its file'",
    "COMMENT ON TABLE at_most_one.request IS 'at-most-one: what people have asked of each run while it was at work'",
    "COMMENT ON TABLE at_most_one.run IS"
    f" 'at-most-one: one row for each deployment or rollback of a plan; schema version {VERSION}'",
)
_OBJECTS = ("run", _RULE, "step", "archived_row", "archived_row_run_id", "repointed_row", "rehearsal", "request")
_JOURNAL = ("run", _RULE, "step")

# Read from the catalog's tables: to_regclass and to_regnamespace answer out of a session's cache, which does not learn
# while the session waits for the lock below.
_OURS = """FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'at_most_one'"""

# Two first runs may create the schema at once; IF NOT EXISTS alone does not survive that.
_CREATION_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('at_most_one journal', 0))"


def definition() -> list[str]:
    """The statements that create all of it, where none of it is there."""
    return [
        "CREATE SCHEMA IF NOT EXISTS at_most_one",
        *(statement.strip() for statement in _STATEMENTS),
        "REVOKE ALL ON SCHEMA at_most_one FROM PUBLIC",
        "REVOKE ALL ON ALL TABLES IN SCHEMA at_most_one FROM PUBLIC",
    ]


def ensure(connection: Connection) -> list[str]:
    """Create or upgrade all of it in the caller's transaction; the statements that were run, none when it is current.

    A second run finds everything in the catalog and needs no privilege to create. Raises OperatorError where a newer
    release has written it, where the role may not create it, and where somebody else has a hand in it. Nobody else gets
    a right in what was created, whatever the database's default privileges are.
    """
    if not missing(connection):
        return []
    with connection.cursor() as cursor:
        try:
            cursor.execute(_CREATION_LOCK)
            statements = missing(connection)
            for statement in statements:
                cursor.execute(statement)
            if statements:
                revoke_grants(connection)
                refuse_foreign(connection)  # what another session has put into it meanwhile
        except psycopg2.errors.InsufficientPrivilege as refused:
            raise OperatorError(
                observed("AMO-3112", "The journal cannot be created: {first_line}.", first_line=first_line(refused)),
                expected=say(
                    "a role that may create the schema at_most_one in this database, once, and owns its tables."
                ),
                next_step=say(
                    "GRANT CREATE ON DATABASE to this role, or create the schema with this role as its owner."
                ),
                sqlstate=refused.pgcode,
            ) from refused
    return statements


def missing(connection: Connection) -> list[str]:
    """The statements that :func:`ensure` would run. Raises OperatorError where a newer release has written it."""
    if _version(connection) == VERSION and _are_there(connection, _OBJECTS):
        return []
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'at_most_one'")
        create = [] if cursor.fetchall() else ["CREATE SCHEMA at_most_one"]
    return [*create, *(statement.strip() for statement in _STATEMENTS)]


def exists(connection: Connection) -> bool:
    """Whether the whole journal is there, of this release or an older one. Raises OperatorError for a newer one."""
    _version(connection)
    return _are_there(connection, _JOURNAL)


def has_archive(connection: Connection) -> bool:
    """Whether there is an archive. Raises OperatorError where its release is another one, so that it cannot be read."""
    if not missing(connection):
        return True
    if not _are_there(connection, ("archived_row",)):
        return False
    raise OperatorError(
        observed("AMO-3113", "An older release of at-most-one has written the archive in the schema at_most_one."),
        expected=say("version {version} of it.", version=VERSION),
        next_step=say(
            "run the same command without --check: opening a run upgrades the archive, and changes no row of it."
        ),
    )


def _are_there(connection: Connection, objects: tuple[str, ...]) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) {_OURS} AND c.relname = ANY (%s)", (list(objects),))
        return cursor.fetchone() == (len(objects),)


def _version(connection: Connection) -> int:
    """The version that the journal's comment names; 1 where it names none, or where there is no journal.

    Whatever asks for the schema comes by here: what somebody else has put into it is refused before it is used.
    """
    refuse_foreign(connection)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_catalog.obj_description(c.oid, 'pg_class') {_OURS} AND c.relname = 'run'")
        comment = " ".join(text or "" for (text,) in cursor.fetchall())
    found = re.search(r"schema version (\d+)", comment)
    version = int(found[1]) if found else 1
    if version > VERSION:
        raise OperatorError(
            observed(
                "AMO-3114",
                "A newer release of at-most-one has written the schema at_most_one: its version is {version}.",
                version=version,
            ),
            expected=say("{version} at most, which is what this release knows.", version=VERSION),
            next_step=say("use the release that wrote it, or a newer one; nothing was touched."),
            version=version,
        )
    return version
