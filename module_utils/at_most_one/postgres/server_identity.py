"""Which server answers: the cluster, by its system identifier, and the timeline, which a promotion ends."""

from __future__ import annotations

from typing import Any

import psycopg2

from .connection import Connection

# The timeline of what is written now: the control file's is that of the last checkpoint.
_QUESTIONS = {
    "system_identifier": "SELECT system_identifier::text FROM pg_catalog.pg_control_system()",
    "timeline": "SELECT ('x' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))"
    "::pg_catalog.bit(32)::pg_catalog.int4",
}


def read(connection: Connection) -> dict[str, Any]:
    """``system_identifier`` and ``timeline``, in the caller's transaction; None where the server does not tell."""
    found: dict[str, Any] = {}
    with connection.cursor() as cursor:
        for name, question in _QUESTIONS.items():
            cursor.execute("SAVEPOINT at_most_one_identity")
            try:
                cursor.execute(question)
                (found[name],) = cursor.fetchone() or (None,)
            except psycopg2.Error as refused:
                if refused.pgcode is None or refused.pgcode[:2] not in ("42", "55", "0A"):
                    raise
                cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_identity")
                found[name] = None
            cursor.execute("RELEASE SAVEPOINT at_most_one_identity")
    return found
