"""How an index is dropped so that nobody waits for it, wherever PostgreSQL can do that."""

from __future__ import annotations

import time

import psycopg2.errors
from psycopg2 import sql

from ..postgres.catalog import Cursor
from ..postgres.lock_retry import pause_s
from .definitions import drop_statement

_ATTEMPTS = 6
_LOCK_TIMEOUT_MS = 200  # so long a reader waits at most, for each attempt


def drop_concurrently(cursor: Cursor, name: str, schema: str) -> None:
    """``DROP INDEX CONCURRENTLY``, on a connection in autocommit. Raises what the server raises.

    PostgreSQL refuses it (0A000) where an event trigger on ddl_command_start has written before the command begins.
    The index is then dropped plainly, in attempts whose lock nobody has to wait for longer than an instant.
    """
    try:
        cursor.execute(drop_statement(name, schema))
    except psycopg2.errors.FeatureNotSupported:
        _drop_plainly(cursor, name, schema)


def _drop_plainly(cursor: Cursor, name: str, schema: str) -> None:
    # One message, so one transaction: the limit of the lock ends with it.
    statement = sql.SQL("SET LOCAL lock_timeout = {}; DROP INDEX IF EXISTS {}").format(
        sql.Literal(_LOCK_TIMEOUT_MS), sql.Identifier(schema, name)
    )
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            cursor.execute(statement)
            return
        except psycopg2.errors.LockNotAvailable:
            if attempt == _ATTEMPTS:
                raise
        time.sleep(pause_s(attempt, first_s=0.1, longest_s=1))
