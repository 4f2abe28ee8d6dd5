"""Partitioned tables: what belongs to one, and whether a unique index can hold over all of it.

A unique index of a partitioned table is one of each partition, so two rows are compared only where they lie in the same
one. PostgreSQL therefore asks that its key has all columns of the partition key:
https://www.postgresql.org/docs/current/ddl-partitioning.html#DDL-PARTITIONING-DECLARATIVE-LIMITATIONS
"""

from __future__ import annotations

from collections.abc import Collection

import psycopg2.extensions
from psycopg2 import sql

from ..findings import Phrase, say
from .connection import Connection

Cursor = psycopg2.extensions.cursor


def tree(relation: str) -> str:
    """SQL for the oids of a table, or an index, and of its partitions of every level; of another one its own alone.

    ``relation`` is SQL for its oid. pg_partition_tree() has no rows for what is neither partitioned nor a partition.
    """
    tree = f"pg_catalog.pg_partition_tree({relation}::regclass)"
    return f"(SELECT {relation} UNION ALL SELECT p.relid::oid FROM {tree} AS p WHERE p.level > 0)"  # noqa: S608


def is_partitioned(connection: Connection, schema: str, table: str) -> bool:
    """Whether it is; a table that is not there is not."""
    with connection.cursor() as cursor:
        name = sql.Identifier(schema, table).as_string(cursor)
        cursor.execute("SELECT relkind = 'p' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s)", (name,))
        return cursor.fetchone() == (True,)


_NAMES = f"""
SELECT c.relname::text FROM pg_catalog.pg_class AS c WHERE c.oid IN {tree("pg_catalog.to_regclass(%(name)s)::oid")}
"""  # noqa: S608  (the part is a constant)


def names_in_tree(cursor: Cursor, schema: str, name: str) -> list[str]:
    """The name of a table or an index, and those of its partitions; of one that is not there its own."""
    cursor.execute(_NAMES, {"name": sql.Identifier(schema, name).as_string(cursor)})
    return [name, *(one for (one,) in cursor.fetchall() if one != name)]


_PARTS = f"""
SELECT c.relname::text, c.relkind::text, ARRAY(
    SELECT coalesce(a.attname::text, '') FROM pg_catalog.pg_partitioned_table AS p
    CROSS JOIN LATERAL unnest(p.partattrs::int2[]) AS k (number)
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = k.number
    WHERE p.partrelid = c.oid)
FROM pg_catalog.pg_class AS c WHERE c.oid IN {tree("%(table)s::oid")} ORDER BY c.relname
"""  # noqa: S608  (the part is a constant)


def obstacle(connection: Connection, schema: str, table: str, key: Collection[str]) -> Phrase | None:
    """Why no unique index over these columns can hold over all partitions of the table; None where one can."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.to_regclass(%s)::oid", (sql.Identifier(schema, table).as_string(cursor),))
        ((oid,),) = cursor.fetchall()
        if oid is None:
            return None
        cursor.execute(_PARTS, {"table": oid})
        for name, kind, partition_key in cursor.fetchall():
            if kind == "f":
                return say("its partition {name} is a foreign table, which can have no index", name=name)
            if "" in partition_key:
                return say("{name} is partitioned by an expression, which no unique index can cover", name=name)
            if missing := [column for column in partition_key if column not in key]:
                return say(
                    "{name} is partitioned by {columns}, and rows of different partitions are compared by no index",
                    name=name,
                    columns=", ".join(missing),
                )
    return None
