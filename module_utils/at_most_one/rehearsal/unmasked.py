"""Whether what is masked can still be read elsewhere in the clone: materialized views written anew, texts searched.

A value that somebody wrote into a note, or that a view or a log table has copied, is in no list of masked columns. So
some of the values are remembered before they are masked, in memory only, and every other text of the clone is searched
for them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..postgres.connection import Connection
from .masking import Mask, others

SAMPLE = 20  # values of each masked column
_SHORTEST = 8  # bytes; shorter ones, such as a yes or a city, are found by chance
# The types that a text can stand in: texts, and what is made of them as a list, a domain, a range or a row.
_HOLDING = sql.SQL("""
WITH RECURSIVE made_of (part, whole) AS (
  SELECT typelem, oid FROM pg_catalog.pg_type WHERE typelem <> 0
  UNION ALL SELECT typbasetype, oid FROM pg_catalog.pg_type WHERE typbasetype <> 0
  UNION ALL SELECT rngsubtype, rngtypid FROM pg_catalog.pg_range
  UNION ALL SELECT a.atttypid, c.reltype FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    WHERE c.reltype <> 0 AND a.attnum > 0 AND NOT a.attisdropped
), holding (holder) AS (
  SELECT oid FROM pg_catalog.pg_type
  WHERE typcategory = 'S' OR typname IN ('hstore', 'json', 'jsonb', 'ltree', 'tsvector', 'xml')
  UNION SELECT made_of.whole FROM holding JOIN made_of ON made_of.part = holding.holder
)
""")
_TEXTS = sql.SQL("""
{}
SELECT n.nspname::text, c.relname::text, pg_catalog.array_agg(a.attname::text ORDER BY a.attnum)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND c.relpersistence <> 't'
AND a.atttypid IN (SELECT holder FROM holding)
AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
AND pg_catalog.format('%%s.%%s.%%s', n.nspname, c.relname, a.attname) <> ALL (%s)
GROUP BY 1, 2 ORDER BY 1, 2
""").format(_HOLDING)
_IS_TEXT_COLUMN = sql.SQL("""
{}
SELECT a.atttypid IN (SELECT holder FROM holding) FROM pg_catalog.pg_attribute a
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attname = %s
""").format(_HOLDING)
# What a materialized view is made of comes first, through any number of views.
_VIEWS = """
WITH RECURSIVE reads AS (
  SELECT r.ev_class AS view, d.refobjid AS source
  FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d
    ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
    AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class
), chain AS (
  SELECT view, source, 1 AS length FROM reads
  UNION SELECT chain.view, reads.source, chain.length + 1 FROM chain JOIN reads ON reads.view = chain.source
)
SELECT n.nspname::text, c.relname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated
ORDER BY (SELECT coalesce(pg_catalog.max(length), 0) FROM chain WHERE chain.view = c.oid), 1, 2
"""


@dataclass(frozen=True)
class Searched:
    """What was looked for, and in how many columns; nothing of it was found."""

    values: int
    columns: int


def sample(connection: Connection, masks: Sequence[Mask]) -> list[str]:
    """Some values that are about to be masked. They stay in memory: no message and no file ever has one.

    A value that a row of ``unless`` has too is left out: it stays readable, as it should.
    """
    values: set[str] = set()
    with connection.cursor() as cursor:
        for mask in masks:
            table, column = sql.Identifier(mask.schema, mask.table), sql.Identifier("masked_row", mask.column)
            cursor.execute(_IS_TEXT_COLUMN, (table.as_string(cursor), mask.column))
            if cursor.fetchone() != (True,):
                continue
            every = sql.SQL("SELECT {}::text FROM {} AS masked_row WHERE {}")
            cursor.execute(
                sql.SQL(
                    "SELECT value FROM ({} AND pg_catalog.octet_length({}::text) >= %(shortest)s EXCEPT {})"
                    " AS s (value) ORDER BY pg_catalog.random() LIMIT %(sample)s"
                ).format(
                    every.format(column, table, others(mask)),
                    column,
                    every.format(column, table, sql.SQL("NOT ({})").format(others(mask))),
                ),
                {**mask.kept(), "shortest": _SHORTEST, "sample": SAMPLE},
            )
            values |= {value for (value,) in cursor.fetchall()}
    return sorted(values)


def refresh_views(connection: Connection) -> None:
    """Write every populated materialized view anew, those first that others are made of."""
    with connection.cursor() as cursor:
        cursor.execute(_VIEWS)
        for schema, view in cursor.fetchall():
            cursor.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(schema, view)))


def search(connection: Connection, values: Sequence[str], masks: Sequence[Mask], readable: Collection[str]) -> Searched:
    """Search each text column that is not masked for the values. Raises OperatorError with the columns that have one.

    ``readable`` are columns, as schema.table.column, that may have them. A table is read once, whatever its columns.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TEXTS, ([mask.name for mask in masks] + list(readable),))
        texts: list[tuple[str, str, list[str]]] = cursor.fetchall() if values else []
        found: dict[str, int] = {}
        for schema, table, columns in texts:
            cursor.execute(
                sql.SQL("SELECT {} FROM {} AS r").format(
                    sql.SQL(", ").join(map(_count, columns)), sql.Identifier(schema, table)
                ),
                {"values": list(values)},
            )
            row: tuple[Any, ...] = cursor.fetchone() or ()
            found |= {f"{schema}.{table}.{name}": rows for name, rows in zip(columns, row) if rows}
    if found:
        raise OperatorError(
            observed(
                "AMO-2413",
                "The clone still shows values that are masked elsewhere, in {columns}.",
                columns=joined(
                    (say("{name} ({rows} rows)", name=name, rows=rows) for name, rows in sorted(found.items())), ", "
                ),
            ),
            expected=say(
                "none of {count} values, which were taken at random from the masked columns before.", count=len(values)
            ),
            next_step=say(
                "add these columns to rehearsal_masked_columns, or, where such a value may be read, to "
                "rehearsal_readable_columns. The target's database was not touched."
            ),
        )
    return Searched(len(values), sum(len(columns) for _, _, columns in texts))


def _count(column: str) -> sql.Composable:
    """Rows in which this column has one of the values somewhere in its text."""
    return sql.SQL(
        "pg_catalog.count(*) FILTER (WHERE EXISTS (SELECT FROM pg_catalog.unnest(%(values)s) AS v"
        " WHERE pg_catalog.strpos({}::text, v) > 0))"
    ).format(sql.Identifier("r", column))
