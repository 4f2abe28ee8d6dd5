"""A statement for whose lock readers and writers would queue: it asks for it for an instant, and then again.

It is one message, so one transaction: the limit of the lock ends with it.
"""

from __future__ import annotations

import time

import psycopg2.errors
from psycopg2 import sql

from ..postgres.catalog import Cursor
from ..postgres.lock_retry import pause_s

_ATTEMPTS = 6
_LOCK_TIMEOUT_MS = 200  # so long a reader waits at most, for each attempt


def message(statement: sql.Composable) -> sql.Composed:
    """One attempt, for a connection in autocommit."""
    return sql.SQL("SET LOCAL lock_timeout = {}; {}").format(sql.Literal(_LOCK_TIMEOUT_MS), statement)


def execute(cursor: Cursor, statement: sql.Composable) -> None:
    """All attempts. Raises what the server raises; LockNotAvailable, when none has got the lock."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            cursor.execute(message(statement))
            return
        except psycopg2.errors.LockNotAvailable:
            if attempt == _ATTEMPTS:
                raise
        time.sleep(pause_s(attempt, first_s=0.1, longest_s=1))
