"""Keep a clone from the world of its source: a rehearsal on it writes nothing that anybody else works with.

A copy has the foreign servers of its source with their logins, its functions that call other servers, and the jobs that
it has planned. The logins go, by name, once the copy is whole; extensions that call out or start work by themselves are
refused, unless the inventory accepts them.
"""

from __future__ import annotations

from collections.abc import Collection

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..postgres.connection import Connection

# What reaches other servers from a function or a trigger, without a login that is kept as one; and what starts jobs.
REACHING = (
    *("aws_lambda", "aws_s3", "dblink", "http", "multicorn", "pg_net", "pglogical", "plproxy", "plsh", "redis_fdw"),
    *("pg_cron", "pgagent"),
)
_EXTENSIONS = "SELECT extname::text FROM pg_catalog.pg_extension WHERE extname = ANY (%s) ORDER BY 1"
_LOGINS = """
SELECT srvname::text, CASE WHEN umuser = 0 THEN NULL ELSE usename::text END
FROM pg_catalog.pg_user_mappings WHERE umuser = 0 OR usename IS NOT NULL ORDER BY 1, 2 NULLS FIRST
"""


def require_quiet(connection: Connection, accepted: Collection[str]) -> None:
    """Raise OperatorError where the database has an extension that reaches outside, unless it is ``accepted``."""
    with connection.cursor() as cursor:
        cursor.execute(_EXTENSIONS, (sorted(set(REACHING) - set(accepted)),))
        found = [name for (name,) in cursor.fetchall()]
    if found:
        raise OperatorError(
            observed(
                "AMO-2429",
                "The source has extensions that call other servers or start jobs by themselves: {extensions}. A copy "
                "of it would do so, too.",
                extensions=", ".join(found),
            ),
            expected=say("a copy that reaches nothing outside of itself."),
            next_step=say(
                "look at what calls them (functions, triggers, jobs). Where a rehearsal may do that for real, or "
                "nothing does it, name them in rehearsal_accepted_extensions; otherwise rehearse on a source without "
                "them. The target's database was not touched."
            ),
            extensions=found,
        )


def cut(connection: Connection) -> list[str]:
    """Drop the logins to foreign servers, in the caller's transaction; whose they were, and where."""
    with connection.cursor() as cursor:
        cursor.execute(_LOGINS)
        logins = cursor.fetchall()
        for server, role in logins:
            whose = sql.SQL("PUBLIC") if role is None else sql.Identifier(role)
            cursor.execute(sql.SQL("DROP USER MAPPING FOR {} SERVER {}").format(whose, sql.Identifier(server)))
    return [f"{role or 'PUBLIC'} at {server}" for server, role in logins]
