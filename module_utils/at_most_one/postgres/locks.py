"""Who holds a lock on a table, who waits for one and for how long: what a person needs when a lock is not obtained.

Any package that uses the database may import it. Nothing here takes a lock of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg2 import sql
from psycopg2.extras import RealDictCursor

from ..findings import joined, say
from ..system import live_step
from .connection import Connection

_QUERY_LENGTH = 80
_TELL_S = 1.0  # between two questions about a build, for who waits for it

# A prepared transaction holds its locks without a process: pg_locks.pid is NULL, pg_blocking_pids() says 0.
_SESSION = """
    coalesce(l.pid, 0) AS pid,
    coalesce(a.usename, '') AS "user",
    coalesce(a.application_name, '') AS application,
    coalesce(host(a.client_addr), 'local') AS client,
    CASE WHEN l.pid IS NULL THEN 'prepared transaction' ELSE coalesce(a.state, 'unknown') END AS state,
    coalesce(round(extract(epoch FROM clock_timestamp() - min(a.xact_start))), 0)::integer AS age_s,
    coalesce(a.query, '') AS query
"""
_RELATIONS = """
    SELECT coalesce(p.relid::oid, c.oid) FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL pg_catalog.pg_partition_tree(c.oid::regclass) AS p ON true
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s)
"""  # and their partitions
_TABLES = f"""
    l.locktype = 'relation'
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    AND l.relation IN ({_RELATIONS})
"""  # noqa: S608  (a constant of this file)
_HOLDERS = f"""
SELECT {_SESSION}, array_agg(DISTINCT l.mode ORDER BY l.mode) AS modes
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND {_TABLES}
GROUP BY l.pid, a.usename, a.application_name, a.client_addr, a.state, a.query
ORDER BY min(a.xact_start) NULLS FIRST, l.pid
"""  # noqa: S608  (both parts are constants of this file)

# waitstart came with PostgreSQL 14; before, the start of the waiting statement is the best there is.
_WAITS = f"""
SELECT (SELECT c.relname FROM pg_catalog.pg_class c WHERE c.oid = l.relation) AS table_name, l.mode,
       pg_blocking_pids(l.pid) AS blockers,
       (extract(epoch FROM clock_timestamp() - coalesce({{waitstart}}, a.query_start)) * 1000)::integer AS waited_ms
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE NOT l.granted AND {_TABLES}
"""  # noqa: S608  (both parts are constants of this file)

# In PostgreSQL's own words: the phase of a build, and how much of that phase is done.
_BUILDS = f"""
SELECT b.phase, CASE WHEN b.blocks_total > 0 THEN 100 * b.blocks_done / b.blocks_total
                     WHEN b.tuples_total > 0 THEN 100 * b.tuples_done / b.tuples_total END
FROM pg_catalog.pg_stat_progress_create_index b
WHERE b.datname = current_database() AND b.relid IN ({_RELATIONS}) ORDER BY b.pid LIMIT 1
"""  # noqa: S608  (a constant of this file)

# CREATE INDEX CONCURRENTLY waits for every snapshot in this database that is older than its last phase, whatever table
# it reads, and for every lock on its own table that a ShareLock would wait for. Transactions of less than a second come
# and go; one that is idle inside stays for as long as its client likes. A parallel worker's snapshot is its leader's.
_STALLING = f"""
WITH l AS (
    SELECT l.pid, l.virtualtransaction FROM pg_catalog.pg_locks l
    WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND {_TABLES}
      AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
    GROUP BY l.pid, l.virtualtransaction
), found AS (
    SELECT coalesce(a.pid, 0) AS pid, coalesce(a.usename, p.owner, '') AS "user",
           coalesce(a.application_name, '') AS application, coalesce(host(a.client_addr), 'local') AS client,
           CASE WHEN a.pid IS NULL THEN 'prepared transaction' ELSE coalesce(a.state, 'unknown') END AS state,
           extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared)) AS age,
           coalesce(a.query, 'PREPARE TRANSACTION ' || quote_literal(p.gid), '') AS query,
           l.virtualtransaction IS NOT NULL AS on_the_table
    FROM pg_catalog.pg_stat_activity a FULL JOIN l ON l.pid = a.pid
    LEFT JOIN pg_catalog.pg_locks x
      ON l.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction
    LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
    WHERE l.virtualtransaction IS NOT NULL
       OR a.backend_xmin IS NOT NULL AND a.datname = current_database() AND a.pid <> pg_backend_pid()
          AND coalesce(a.backend_type, '') NOT IN ('parallel worker', 'autovacuum worker', 'walsender')
)
SELECT pid, "user", application, client, state, coalesce(round(age), 0)::integer AS age_s, query, on_the_table
FROM found
WHERE coalesce(age, 0) >= 1 OR state LIKE 'idle in transaction%%' OR pid = 0
ORDER BY age DESC NULLS LAST, pid
"""  # noqa: S608  (the part is a constant of this file)


def holders(connection: Connection, schema: str, tables: Sequence[str]) -> list[dict[str, Any]]:
    """The other sessions that hold a lock on the tables now, the oldest transaction first.

    Each has pid, user, application, client, state, age_s (of its transaction), modes, and query: at most 80 characters,
    without its literals. Seeing other roles' queries takes the privileges of pg_read_all_stats.
    """
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(_HOLDERS, {"schema": schema, "tables": list(tables)})
        return [{**row, "query": without_literals(row["query"])} for row in cursor.fetchall()]


def describe(sessions: Sequence[Mapping[str, Any]]) -> str:
    """The sessions as a phrase for a person, the first five of them."""
    if not sessions:
        return say("no session holds a lock on it any more")
    phrases = [
        say(
            "pid {pid} ({user}, {state} for {age_s} s, {client}: {query})",
            **{name: session[name] for name in ("pid", "user", "state", "age_s", "query")},
            client=_client(session),
        )
        for session in sessions[:5]
    ]
    more = say(" and {count} more", count=len(sessions) - 5) if len(sessions) > 5 else ""
    return say("locks on it are held by {sessions}{more}", sessions=joined(phrases), more=more)


def ending(sessions: Sequence[Mapping[str, Any]]) -> str:
    """How a person ends the sessions, as the beginning of a next step."""
    pids = [session["pid"] for session in sessions if session["pid"]]
    ends = f" (SELECT {', '.join(f'pg_terminate_backend({pid})' for pid in pids)};)" if pids else ""
    return say("wait for those sessions or end them{ends}, once you know whose they are", ends=ends)


def stalling(connection: Connection, schema: str, tables: Sequence[str]) -> list[dict[str, Any]]:
    """The transactions that a concurrent build on the tables would have to wait for now, the oldest first.

    Like :func:`holders`, without modes; ``on_the_table`` tells a lock on a planned table from a mere old snapshot.
    """
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(_STALLING, {"schema": schema, "tables": list(tables)})
        return [
            # A prepared transaction's name is no value of a row, and nobody can end it without its name.
            {**row, "query": row["query"] if row["pid"] == 0 else without_literals(row["query"])}
            for row in cursor.fetchall()
        ]


def describe_stalling(sessions: Sequence[Mapping[str, Any]]) -> str:
    """The same as a phrase for a person, the first five of them."""
    if not sessions:
        return say("no transaction stands in its way any more")
    phrases = [
        say(
            "pid {pid} ({user}, {state}, {age_s} s old, {client}, {why}: {query})",
            **{name: session[name] for name in ("pid", "user", "state", "age_s", "query")},
            client=_client(session),
            why=_why(session),
        )
        for session in sessions[:5]
    ]
    more = say(" and {count} more", count=len(sessions) - 5) if len(sessions) > 5 else ""
    return say("it waits for {sessions}{more}", sessions=joined(phrases), more=more)


def _client(session: Mapping[str, Any]) -> str:
    """Which program it is and where it connects from."""
    return say(
        "{application} from {client}",
        application=session["application"] or say("without application_name"),
        client=session["client"],
    )


def _why(session: Mapping[str, Any]) -> str:
    return say("on its table") if session["on_the_table"] else say("an old snapshot")


def without_literals(query: str) -> str:
    """The query's first 80 characters, every literal replaced by ``?``: other people's values are not ours to show."""
    bare = re.sub(
        r"\$(\w*)\$.*?(?:\$\1\$|\Z)"  # dollar quotes
        r"|\b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)"  # escape strings; \Z: the server cuts long queries anywhere
        r"|'(?:[^']|'')*(?:'|\Z)"
        r"|(?<![\w$])\d+(?:\.\d+)?(?!\w)",
        "?",
        query,
        flags=re.DOTALL,
    )
    line = " ".join(bare.split())
    return line if len(line) <= _QUERY_LENGTH else f"{line[: _QUERY_LENGTH - 3]}..."


class Watch:
    """Samples the waits on some tables while something else builds on them.

    ``write_pause_ms`` is the longest wait of a writer that a sample has seen: a lower bound, short of the truth by at
    most the time between two samples. ``build_wait_ms`` is the same for a lock that a build needs; the caller may reset
    it. ``blockers`` are the sessions that stood in the way of such a lock, as last seen, ``blocked`` the tables that it
    was wanted on: they may be gone by the time the waiting statement gives up.
    """

    def __init__(self, connection: Connection, schema: str, tables: Sequence[str]) -> None:
        """``connection`` must be in autocommit: a sample must not hold a snapshot that a build would wait for."""
        self.connection, self.schema, self.tables = connection, schema, list(tables)
        self.write_pause_ms = 0
        self.build_wait_ms = 0
        self.blockers: list[dict[str, Any]] = []
        self.blocked: list[str] = []
        self._told_at = float("-inf")

    def sample(self) -> None:
        """Look once; costs one catalog query, two when somebody is blocked, and one a second where somebody watches."""
        waitstart = sql.SQL("l.waitstart" if self.connection.server_version >= 140_000 else "NULL::timestamptz")
        with self.connection.cursor() as cursor:
            cursor.execute(sql.SQL(_WAITS).format(waitstart=waitstart), {"schema": self.schema, "tables": self.tables})
            waits = cursor.fetchall()
        blocking, tables = set(), set()
        for table, mode, blockers, waited_ms in waits:
            if mode in ("RowExclusiveLock", "RowShareLock"):
                self.write_pause_ms = max(self.write_pause_ms, waited_ms)
            elif mode != "AccessShareLock":
                self.build_wait_ms = max(self.build_wait_ms, waited_ms)
                blocking.update(blockers)
                tables.add(table)
        if blocking:
            self.blocked = sorted(tables)
            seen = [h for h in holders(self.connection, self.schema, self.blocked) if h["pid"] in blocking]
            self.blockers = seen or self.blockers
        if live_step.is_watched() and time.monotonic() - self._told_at >= _TELL_S:
            self._told_at = time.monotonic()
            self._tell_progress()

    def _tell_progress(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(_BUILDS, {"schema": self.schema, "tables": self.tables})
            for phase, percent in cursor.fetchall():
                waits = percent is None or phase.startswith("waiting")  # then the percentage is of the phase before
                live_step.detail(phase if waits else f"{phase} {percent} %")
