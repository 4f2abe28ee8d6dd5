"""Counting a candidate's duplicates within a limit of time, in read-only transactions that nobody has to wait for.

SELECT takes ACCESS SHARE, which only meets ACCESS EXCLUSIVE; with lock_timeout it does not wait long for that either,
nor does the queue behind it. Each question is a transaction of its own, so that no old snapshot holds back a vacuum.
DEFERRABLE would change nothing: it is about SERIALIZABLE, and this is REPEATABLE READ.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from ..postgres.catalog import READING, Cursor
from ..postgres.connection import Connection
from . import statuses
from .candidates import Candidate, Count
from .catalog_facts import Table, is_status

SAMPLE_PAGES = 10_000  # 80 MB of the usual pages: read where the whole table takes too long
_FIRST_ROWS = 10_000  # that show a status column's values where no statistics do
_SAMPLE_S = 10.0

_COUNT = """
SELECT count(*) FILTER (WHERE n > 1), coalesce(sum(n - 1), 0)::bigint, count(*), coalesce(sum(n), 0)::bigint
FROM (SELECT count(*) AS n FROM {table} {sample} WHERE ({condition}) AND {known} GROUP BY {key}) AS once
"""
_SIZE = """
SELECT pg_catalog.pg_table_size(c.oid), pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::bigint
FROM pg_catalog.pg_class c WHERE c.oid = %s::bigint::oid
"""
_VALUES = """
SELECT value, count(*)::float8 / sum(count(*)) OVER ()
FROM (SELECT {column}::text AS value FROM {table} WHERE {column} IS NOT NULL LIMIT {rows}) AS first
GROUP BY value ORDER BY value
"""


@dataclass
class Deadline:
    """When everything must have been answered; ``scans`` counts what has read a whole table."""

    ends: float
    each_s: float  # the longest one statement may take
    scans: int = 0
    unread: list[str] = field(default_factory=list)  # tables whose lock was not obtained, or whose rows are hidden

    def left_s(self) -> float:
        """Seconds that remain."""
        return self.ends - time.monotonic()

    def next_ms(self, most_s: float | None = None) -> int:
        """The limit of the next statement, in milliseconds; 0 when there is no time for one."""
        return max(0, round(1000 * min(self.left_s(), self.each_s if most_s is None else most_s)))


@contextlib.contextmanager
def reading(connection: Connection, statement_timeout_ms: int) -> Iterator[Cursor]:
    """A read-only transaction of one snapshot that ends with the block, whatever comes of it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(READING)
            cursor.execute("SELECT pg_catalog.set_config('statement_timeout', %s, true)", (str(statement_timeout_ms),))
            yield cursor
    finally:
        if not connection.closed:
            connection.rollback()


def count(connection: Connection, candidate: Candidate, deadline: Deadline) -> tuple[Count, int | None]:
    """The candidate's duplicates and its table's size in bytes.

    Of the whole table, or of a sample where that takes too long; by the statistics where there is no time for either.
    """
    limit_ms, table = deadline.next_ms(), candidate.table
    size: int | None = None
    if limit_ms == 0 or f"{table.schema}.{table.name}" in deadline.unread:
        return candidate.count, size
    pages = 0
    try:
        with reading(connection, limit_ms) as cursor:
            cursor.execute(_SIZE, (table.number,))
            size, pages = cursor.fetchone() or (None, 0)
            deadline.scans += 1
            return _counted(cursor, candidate, "exact", sql.SQL("")), size
    except psycopg2.errors.QueryCanceled:
        pass
    except (psycopg2.errors.LockNotAvailable, psycopg2.errors.InsufficientPrivilege, psycopg2.errors.UndefinedTable):
        deadline.unread.append(f"{table.schema}.{table.name}")
        return candidate.count, size
    limit_ms = deadline.next_ms(_SAMPLE_S)
    if limit_ms and pages:
        percent = sql.Literal(min(100.0, 100.0 * SAMPLE_PAGES / pages))
        sample = sql.SQL("TABLESAMPLE SYSTEM ({}) REPEATABLE (0)").format(percent)
        late = contextlib.suppress(psycopg2.errors.QueryCanceled, psycopg2.errors.LockNotAvailable)
        with late, reading(connection, limit_ms) as cursor:
            return _counted(cursor, candidate, "sample", sample), size
    return candidate.count, size


def add_values(connection: Connection, tables: list[Table], deadline: Deadline) -> None:
    """Look at the first rows for the values of status columns of which nothing is known: nobody has analyzed them."""
    for table in tables:
        for column in table.columns.values():
            if not column.named_status or column.frequent or column.checks or not is_status(column):
                continue
            if not (limit_ms := deadline.next_ms(_SAMPLE_S)):
                return
            values = sql.SQL(_VALUES).format(
                column=sql.Identifier(column.name),
                table=sql.Identifier(table.schema, table.name),
                rows=sql.Literal(_FIRST_ROWS),
            )
            try:
                with reading(connection, limit_ms) as cursor:
                    cursor.execute(values)
                    # One value more than a status column may have shows that this is no status column.
                    found = cursor.fetchmany(statuses.MOST_VALUES + 1)
            except psycopg2.errors.QueryCanceled:
                continue
            except (psycopg2.errors.LockNotAvailable, psycopg2.errors.InsufficientPrivilege):
                deadline.unread.append(f"{table.schema}.{table.name}")
                break
            column.frequent = dict(found)


def _counted(cursor: Cursor, candidate: Candidate, how: str, sample: sql.Composable) -> Count:
    table, columns = candidate.table, [sql.Identifier(name) for name in candidate.key.columns]
    cursor.execute(
        sql.SQL(_COUNT).format(
            table=sql.Identifier(table.schema, table.name),
            sample=sample,
            condition=sql.SQL(candidate.condition.sql),
            known=sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(column) for column in columns),
            key=sql.SQL(", ").join(columns),
        )
    )
    groups, surplus, keys, rows = cursor.fetchone() or (0, 0, 0, 0)
    return Count(how, rows, keys, groups, surplus)
