"""How an index is dropped so that nobody waits for it, wherever PostgreSQL can do that."""

from __future__ import annotations

import psycopg2.errors
from psycopg2 import sql

from ..postgres.catalog import Cursor
from . import brief_lock
from .definitions import drop_statement


def drop_concurrently(cursor: Cursor, name: str, schema: str) -> None:
    """``DROP INDEX CONCURRENTLY``, on a connection in autocommit. Raises what the server raises.

    PostgreSQL refuses it (0A000) for an index of a partitioned table, and where an event trigger on ddl_command_start
    has written before the command begins. The index is then dropped plainly, in attempts whose lock nobody has to wait
    for longer than an instant.
    """
    try:
        cursor.execute(drop_statement(name, schema))
    except psycopg2.errors.FeatureNotSupported:
        brief_lock.execute(cursor, sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(schema, name)))
