"""How long a plain build would keep writers waiting, measured on a sample before anything is locked.

Prisma runs a migration.sql as one transaction: a table's writers wait from the first CREATE INDEX on it to the end of
the script. So what they wait is the sum of the builds from there on. Each build is measured for real, on a temporary
table that holds the needed columns of some of the table's pages, and extrapolated: reading grows with the pages,
sorting a little more than with the rows. Temporary tables are never built in parallel; the real build may be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg2
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Index, Plan
from ..postgres import server_errors
from ..postgres.connection import Connection
from . import definitions

_SAMPLE_PAGES = 1_000  # 8 MB of the usual 8 kB pages: some 50,000 rows of 150 bytes, built in some 20 ms
_OVERFLOW = 1.3  # a sort that does not fit into maintenance_work_mem writes runs and merges them
_PER_WORKER = 0.4  # what a parallel worker adds to the speed: it shares the reading and the sorting, not the writing


@dataclass(frozen=True)
class Forecast:
    """``write_pause_ms`` is the longest over the tables; ``rows`` are estimates; ``seconds`` is what asking cost."""

    write_pause_ms: int
    tables: dict[str, int]  # table to milliseconds
    rows: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class _Sample:
    name: str
    scale: float  # the table's pages by the sample's
    rows: int  # in the sample
    pages: int  # of the table
    reading_ms: float  # of the whole table


def write_pause(connection: Connection, plan: Plan, order: Sequence[Index] | None = None) -> Forecast:
    """The forecast for building ``order`` (the plan's indexes, unless given) in one transaction, in that order.

    The connection must be inside a transaction (not autocommit); what is written is temporary and rolled back. Raises
    OperatorError when the tables cannot be read, or not within the connection's statement_timeout.
    """
    started = time.monotonic()
    indexes = list(plan.indexes if order is None else order)
    samples: dict[str, _Sample] = {}
    with connection.cursor() as cursor, _rolled_back(connection):
        for table in dict.fromkeys(index.table for index in indexes):
            wanted = [index for index in indexes if index.table == table]
            samples[table] = _sample(cursor, plan, table, wanted, f"at_most_one_sample_{len(samples)}")
        builds = [_build_ms(cursor, samples[index.table], index) for index in indexes]
    tables = {
        table: round(sum(builds[next(n for n, index in enumerate(indexes) if index.table == table) :]))
        for table in samples
    }
    rows = {table: round(sample.rows * sample.scale) for table, sample in samples.items()}
    return Forecast(max(tables.values(), default=0), tables, rows, round(time.monotonic() - started, 2))


def _sample(cursor: psycopg2.extensions.cursor, plan: Plan, table: str, indexes: Sequence[Index], name: str) -> _Sample:
    """Copy what the indexes need of some pages, and time the reading of these pages on the way."""
    real = sql.Identifier(plan.schema, table)
    cursor.execute(  # a partitioned table has its pages in its partitions
        "SELECT coalesce((SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree(%(table)s)),"
        " pg_relation_size(%(table)s)) / current_setting('block_size')::bigint",
        {"table": real.as_string(cursor)},
    )
    pages = int((cursor.fetchone() or (0,))[0])
    percent = min(100.0, 100.0 * _SAMPLE_PAGES / max(pages, 1))
    columns = sql.SQL(", ").join(map(sql.Identifier, _columns(cursor, real, f"{name}_shadow", indexes)))
    some = sql.SQL("{} TABLESAMPLE SYSTEM ({}) REPEATABLE (0)").format(real, sql.Literal(percent))
    reading_ms = _timed_ms(cursor, sql.SQL("SELECT count(*) FROM {}").format(some))
    sample = sql.Identifier("pg_temp", name)
    cursor.execute(sql.SQL("CREATE TEMPORARY TABLE {} AS SELECT {} FROM {}").format(sample, columns, some))
    rows = cursor.rowcount
    return _Sample(name, 100.0 / percent, rows, pages, reading_ms * 100.0 / percent)


def _columns(
    cursor: psycopg2.extensions.cursor, real: sql.Composable, shadow: str, indexes: Sequence[Index]
) -> list[str]:
    """The columns that keys, expressions and predicates need, as the server sees it: from a shadow table's indexes."""
    like = sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {})")
    cursor.execute(like.format(sql.Identifier("pg_temp", shadow), real))
    for number, index in enumerate(indexes):
        cursor.execute(_statement(index, shadow, f"{shadow}_{number}"))
    cursor.execute(
        "SELECT a.attname FROM pg_catalog.pg_attribute a WHERE a.attrelid = %(shadow)s::regclass AND a.attnum > 0"
        " AND EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_index i ON i.indexrelid = d.objid"
        " WHERE i.indrelid = a.attrelid AND d.classid = 'pg_catalog.pg_class'::regclass"
        " AND d.refobjid = a.attrelid AND d.refobjsubid IN (0, a.attnum)) ORDER BY a.attnum",
        {"shadow": f"pg_temp.{shadow}"},
    )
    return [row[0] for row in cursor.fetchall()]


def _statement(index: Index, table: str, name: str) -> sql.Composed:
    """The planned statement on a temporary table, but never unique: the sample may hold the very duplicates."""
    return definitions.create_statement(
        replace(index, name=name, table=table, unique=False, nulls_not_distinct=False), "pg_temp"
    )


def _build_ms(cursor: psycopg2.extensions.cursor, sample: _Sample, index: Index) -> float:
    """What the real build takes, from the sample's."""
    name = f"{sample.name}_index"
    took_ms = _timed_ms(cursor, _statement(index, sample.name, name))
    cursor.execute(
        "SELECT reltuples, pg_relation_size(oid) FROM pg_catalog.pg_class WHERE oid = %s::regclass",
        (f"pg_temp.{name}",),
    )
    entries, size = cursor.fetchone() or (0, 0)
    cursor.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier("pg_temp", name)))
    in_sample, in_table = max(2.0, entries), max(2.0, entries * sample.scale)
    sorting_ms = took_ms * sample.scale * math.log(in_table) / math.log(in_sample)
    cursor.execute(
        "SELECT pg_size_bytes(current_setting('maintenance_work_mem')),"
        " current_setting('max_parallel_maintenance_workers')::integer,"
        " pg_size_bytes(current_setting('min_parallel_table_scan_size')) / current_setting('block_size')::bigint"
    )
    memory, most_workers, pages_for_one = cursor.fetchone() or (1, 0, 1)
    if size * sample.scale > memory:
        sorting_ms *= _OVERFLOW
    helpers = workers(sample.pages, pages_for_one, most_workers, memory) if index.method == "btree" else 0
    return (sorting_ms + sample.reading_ms) / (1 + _PER_WORKER * helpers)


def workers(pages: int, pages_for_one: int, most: int, memory: int) -> int:
    """How many workers help a build: one for each tripling of the table beyond the smallest, 32 MB of memory for each.

    As PostgreSQL's plan_create_index_workers() and compute_parallel_worker() decide.
    """
    workers = 0
    while workers < most and pages >= max(1, pages_for_one) * 3**workers:
        workers += 1
    while workers > 0 and memory / (workers + 1) < 32 * 1024**2:
        workers -= 1
    return workers


def _timed_ms(cursor: psycopg2.extensions.cursor, statement: sql.Composable) -> float:
    started = time.monotonic()
    cursor.execute(statement)
    return 1000 * (time.monotonic() - started)


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT at_most_one_forecast")
        try:
            yield
        except psycopg2.Error as failure:
            said = server_errors.explain(
                failure,
                say("SELECT on the tables of the plan and TEMPORARY on the database, within statement_timeout_ms."),
                say("grant it, or name the strategy yourself: migrate_strategy=prisma or concurrent."),
            )
            raise OperatorError(
                observed(
                    "AMO-3517", "How long writers would wait could not be measured: {message}.", message=said.message
                ),
                expected=said.expected,
                next_step=said.next_step,
                cause="forecast",
                sqlstate=failure.pgcode,
            ) from failure
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_forecast; RELEASE SAVEPOINT at_most_one_forecast")
