"""Rows that are too large for the archive, known before the first one leaves, and batches that large rows keep short.

A row enters the archive as jsonb, whose strings together take at most 28 bits of a length (JENTRY_OFFLENMASK in
src/include/utils/jsonb.h), and its hash is made of that value's text, which takes at most a gigabyte (MaxAllocSize).
Sizes are read from where a value is stored, without unpacking it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg2
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Plan
from ..postgres.catalog import Column, Cursor, Row, table_name
from ..postgres.partitions import tree
from ..system.strict_zip import strict_zip
from . import archive, ranking
from .worklist import MEMBER, member_at_its_place

LARGEST = 0x0FFFFFFF  # bytes of a row's texts together
BATCH_BYTES = 64_000_000  # of a batch's rows as they are stored
_TRIED = 20  # so many rows are made into an image, where only that tells
_MOST_PACKED = 300  # no compression of PostgreSQL's makes a text so many times smaller
_UNPACKED_FROM = 8_192  # bytes stored: below, a value that is no text is not made into one

# 'text': what is stored is the text. A domain is what it is over; citext and its like can be read as text.
_COLUMNS = """
WITH RECURSIVE based AS (
    SELECT a.attnum, a.attname::text AS name, a.atttypid AS type FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = pg_catalog.to_regclass(%(table)s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attlen = -1
    UNION ALL
    SELECT b.attnum, b.name, t.typbasetype FROM based AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.type
    WHERE t.typtype = 'd')
SELECT b.name, CASE WHEN t.oid = 'pg_catalog.bytea'::pg_catalog.regtype THEN 'bytea'
    WHEN t.oid = 'pg_catalog.text'::pg_catalog.regtype OR EXISTS (
        SELECT FROM pg_catalog.pg_cast AS c WHERE c.castsource = t.oid AND c.castmethod = 'b'
            AND c.casttarget = 'pg_catalog.text'::pg_catalog.regtype) THEN 'text' ELSE '' END
FROM based AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.type WHERE t.typtype <> 'd' ORDER BY b.attnum"""

_STORED_APART = f"""
SELECT coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(nullif(c.reltoastrelid, 0))), 0)
FROM pg_catalog.pg_class AS c WHERE c.oid IN {tree("pg_catalog.to_regclass(%(table)s)::oid")}"""  # noqa: S608  (the part is a constant)

_BYTES = {
    "text": "pg_catalog.octet_length({column}::pg_catalog.text)::bigint",
    "bytea": "2 * pg_catalog.octet_length({column}::pg_catalog.bytea)::bigint + 2",
    "": "CASE WHEN pg_catalog.pg_column_size({column}) > {from_}"
    " THEN pg_catalog.octet_length({column}::pg_catalog.text)::bigint ELSE 0 END",
}

_LARGEST_ROWS = """
SELECT key, bytes, pg_catalog.count(*) FILTER (WHERE total > {largest}) OVER (), total
FROM (
    SELECT {key} AS key, sized.bytes, (SELECT pg_catalog.sum(one)::bigint FROM unnest(sized.bytes) AS one) AS total
    FROM ({duplicates}) AS at_most_one_duplicate CROSS JOIN LATERAL (
        SELECT ARRAY[{bytes}]::bigint[] AS bytes FROM {table}
        WHERE {at_its_place}) AS sized
    WHERE place > 1
) AS summed WHERE total > {near} ORDER BY total DESC, key LIMIT {tried}"""

_IMAGE = "SELECT {hash} FROM {table} WHERE {same}"

# A row that has moved since it was ranked counts nothing: its batch looks for it again.
_FITTING = """
SELECT pg_catalog.count(*) FROM (
    SELECT pg_catalog.sum(bytes) OVER (ORDER BY at_most_one_position) AS total FROM (
        SELECT at_most_one_position, CASE WHEN at_most_one_place > 1 AND at_most_one_requested THEN (
            SELECT {stored} FROM {table} WHERE {at_its_place}) END AS bytes
        FROM {member} AS at_most_one_member
        WHERE at_most_one_position >= %(first)s AND at_most_one_position < %(first)s + %(size)s) AS weighed
) AS summed WHERE total IS NULL OR total <= %(limit)s"""


def refuse_too_large(cursor: Cursor, plan: Plan, columns: Mapping[str, Column]) -> None:
    """Stop if a surplus row does not fit into the archive. Needs a transaction.

    What its texts take decides; near the limit, its image is made as the removal makes it.
    """
    near = LARGEST * 2 // 3  # the text of such a row stays below a gigabyte, whatever has to be escaped in it
    kinds = _kinds(cursor, plan)
    if not kinds or stored_apart(cursor, plan) * _MOST_PACKED <= near:
        return
    cursor.execute("SAVEPOINT at_most_one_size")
    try:
        cursor.execute(
            sql.SQL(_LARGEST_ROWS).format(
                key=ranking.text_array(ranking.numbered("p", len(plan.primary_key))),
                duplicates=ranking.duplicates(plan),
                table=sql.Identifier(plan.schema, plan.table),
                at_its_place=ranking.at_its_place(plan, "at_most_one_duplicate"),
                bytes=ranking.listed(
                    sql.SQL(f"coalesce({_BYTES[kind]}, 0)").format(
                        column=sql.Identifier(plan.table, name), from_=sql.Literal(_UNPACKED_FROM)
                    )
                    for name, kind in kinds.items()
                ),
                largest=sql.Literal(LARGEST),
                near=sql.Literal(near),
                tried=sql.Literal(_TRIED),
            ),
            (),
        )
    except psycopg2.Error as failure:
        if not _is_too_large(failure):
            raise
        cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_size")
        raise _refusal(plan, say("at least one"), say("more than the server can write"), sorted(kinds), []) from failure
    found = cursor.fetchall()
    too_large = [
        (key, dict(strict_zip(kinds, sizes)), total)
        for key, sizes, _all, total in found
        if total > LARGEST or not _has_image(cursor, plan, columns, key)
    ]
    if too_large:
        sizes, total = too_large[0][1:]
        count = max(found[0][2], len(too_large))
        megabytes = say("{megabytes} MB", megabytes=f"{total / 1e6:.0f}")
        widest = [max(sizes, key=lambda name: sizes[name])]
        raise _refusal(plan, count, megabytes, widest, [row[0] for row in too_large])


def _refusal(plan: Plan, count: Any, largest: Any, names: list[str], rows: list[Row]) -> OperatorError:
    return OperatorError(
        observed(
            "AMO-3216",
            "{count} of the surplus rows of {table} are too large for the archive: as text, the largest takes "
            "{largest}, most of it in {columns}. Nothing was written.",
            count=count,
            table=table_name(plan),
            largest=largest,
            columns=", ".join(names),
        ),
        expected=say(
            "rows of at most {limit} MB as text, in which a bytea counts twice: a larger one cannot be archived, and "
            "so it could not come back.",
            limit=LARGEST // 1_000_000,
        ),
        next_step=say(
            "take these rows out of the rule as the application does, or move what fills {columns} elsewhere "
            "(details.rows has primary keys); then run this again.",
            columns=", ".join(names),
        ),
        rows=rows,
    )


def _has_image(cursor: Cursor, plan: Plan, columns: Mapping[str, Column], key: Row) -> bool:
    """Whether the image of a row and its hash can be made; a row that has gone meanwhile needs none."""
    table = sql.Identifier(plan.table)
    cursor.execute("SAVEPOINT at_most_one_size")
    try:
        cursor.execute(
            sql.SQL(_IMAGE).format(
                hash=archive.sha256(archive.image(list(columns.values()), table)),
                table=sql.Identifier(plan.schema, plan.table),
                same=ranking.equal(
                    ranking.of(plan.table, plan.primary_key),
                    [
                        sql.SQL("{}::{}").format(sql.Literal(part), sql.SQL(columns[name].type))
                        for part, name in strict_zip(key, plan.primary_key)
                    ],
                ),
            )
        )
    except psycopg2.Error as failure:
        if not _is_too_large(failure):
            raise
        cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_size")
        return False
    return True


def _is_too_large(failure: psycopg2.Error) -> bool:
    """A limit of the server's, no memory, or a piece of memory that it refuses (in English always)."""
    code = failure.pgcode or ""
    return code.startswith(("54", "53200")) or (code == "XX000" and "memory alloc" in str(failure))


def stored_apart(cursor: Cursor, plan: Plan) -> int:
    """The bytes of the table's values that are stored beside its rows: only there a row can be large."""
    cursor.execute(_STORED_APART, {"table": sql.Identifier(plan.schema, plan.table).as_string(cursor)})
    ((size,),) = cursor.fetchall()
    return int(size)


def fitting(cursor: Cursor, plan: Plan, first: int, size: int) -> int:
    """How many of ``size`` positions of the work list a batch may take, so that its rows stay within BATCH_BYTES."""
    stored = [
        sql.SQL("coalesce(pg_catalog.pg_column_size({})::bigint, 0)").format(sql.Identifier(plan.table, name))
        for name in _kinds(cursor, plan)
    ]
    cursor.execute(
        sql.SQL(_FITTING).format(
            stored=sql.SQL(" + ").join(stored or [sql.SQL("0")]),
            table=sql.Identifier(plan.schema, plan.table),
            at_its_place=member_at_its_place(plan),
            member=MEMBER,
        ),
        {"first": first, "size": size, "limit": BATCH_BYTES},
    )
    ((fits,),) = cursor.fetchall()
    return max(1, int(fits))


def _kinds(cursor: Cursor, plan: Plan) -> dict[str, str]:
    """The columns whose values vary in length, and what the text of each is."""
    cursor.execute(_COLUMNS, {"table": sql.Identifier(plan.schema, plan.table).as_string(cursor)})
    return dict(cursor.fetchall())
