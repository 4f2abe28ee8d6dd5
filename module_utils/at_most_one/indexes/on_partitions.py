"""An index on a partitioned table, built while writers write: PostgreSQL does that on a partition, not on all at once.

The table gets an index of its own, empty and not valid yet (ON ONLY). Each partition gets one CONCURRENTLY, and that is
attached to it; with the last one the whole is valid. What is added to the table meanwhile gets its index at once.
https://www.postgresql.org/docs/current/ddl-partitioning.html#DDL-PARTITIONING-DECLARATIVE-MAINTENANCE
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from psycopg2 import sql

from ..plan import Index
from ..postgres.catalog import Cursor
from ..postgres.connection import Connection
from ..postgres.partitions import is_partitioned
from . import brief_lock, definitions

_LONGEST_NAME = 63  # bytes: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS


@dataclass(frozen=True)
class Step:
    """One statement, to be run by itself; ``briefly``: others would queue for its lock, so by :mod:`.brief_lock`."""

    statement: sql.Composed
    briefly: bool = False

    def run(self, cursor: Cursor) -> None:
        """On a connection in autocommit. Raises what the server raises."""
        if self.briefly:
            brief_lock.execute(cursor, self.statement)
        else:
            cursor.execute(self.statement)


def steps(connection: Connection, index: Index, schema: str) -> Iterator[Step]:
    """What builds an index that is not there, in this order; on a table without partitions one statement.

    Each is to be run before the next is asked for: which partitions are without an index of their own is read once the
    one above them is there. From then on PostgreSQL gives one to each that is attached, and before that to none. Where
    nothing is run, they are those of now.
    """
    if not is_partitioned(connection, schema, index.table):
        yield Step(definitions.create_statement(index, schema, concurrently=True))
        return
    attached = {one[0] for one in _parts(connection, index.table, schema, index.name) if one[-1]}  # to one that goes
    yield from left_over(connection, index.name, index.table, schema)
    yield Step(definitions.create_statement(index, schema, only=True), briefly=True)
    names: dict[int, sql.Identifier] = {}
    while True:
        left = _parts(connection, index.table, schema, index.name)
        left = [one for one in left if one[0] not in names and (not one[-1] or one[0] in attached)]
        if not left:
            return
        oid, parent, partitioned, in_schema, table = left[0][:5]
        own = replace(index, name=_name_on(index.name, oid), table=table)
        names[oid] = sql.Identifier(in_schema, own.name)
        create = definitions.create_statement(own, in_schema, only=partitioned, concurrently=not partitioned)
        yield Step(create, briefly=partitioned)
        whole = names.get(parent, sql.Identifier(schema, index.name))
        yield Step(sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(whole, names[oid]), briefly=True)


_UNATTACHED = """
SELECT n.nspname::text, c.relname::text, c.relkind = 'I'
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::name[], %s::name[]))
    AND c.relkind IN ('i', 'I') AND NOT c.relispartition ORDER BY 1, 2"""


def left_over(connection: Connection, name: str, table: str, schema: str) -> list[Step]:
    """What drops the indexes that a build of this one, cut short, has left on partitions. Those that are attached to it
    go with it."""
    names = [(part[3], _name_on(name, part[0])) for part in _parts(connection, table, schema)]
    if not names:
        return []
    with connection.cursor() as cursor:
        cursor.execute(_UNATTACHED, ([one for one, _name in names], [own for _schema, own in names]))
        return [_drop(own, in_schema, plainly=partitioned) for in_schema, own, partitioned in cursor.fetchall()]


def drop_step(connection: Connection, name: str, table: str, schema: str) -> Step:
    """What drops an index: plainly where its table is partitioned, which PostgreSQL does not do concurrently."""
    return _drop(name, schema, plainly=is_partitioned(connection, schema, table))


def _drop(name: str, schema: str, *, plainly: bool) -> Step:
    if plainly:
        return Step(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(schema, name)), briefly=True)
    return Step(definitions.drop_statement(name, schema))


def _name_on(index: str, partition: int) -> str:
    """The name that an index has on the partition with that oid."""
    name, end = index.encode(), f"_p{partition}"
    if len(name) > _LONGEST_NAME - len(end):  # two long names may differ behind what there is room for
        end = f"_{hashlib.sha256(name).hexdigest()[:8]}{end}"
    return name[: _LONGEST_NAME - len(end)].decode(errors="ignore") + end


_PARTS = """
SELECT t.relid::oid::bigint, t.parentrelid::oid::bigint, c.relkind = 'p', n.nspname::text, c.relname::text,
    EXISTS (SELECT FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%s)) AS i
            JOIN pg_catalog.pg_index AS x ON x.indexrelid = i.relid WHERE x.indrelid = t.relid)
FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%s)) AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.relid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE t.level > 0 ORDER BY t.level, n.nspname, c.relname"""


def _parts(
    connection: Connection, table: str, schema: str, index: str = ""
) -> list[tuple[int, int, bool, str, str, bool]]:
    """Each partition's oid and its parent's, whether it has partitions itself, its schema and its name, and whether its
    part of ``index`` is there; the upper ones first. None of a table that is not partitioned."""
    with connection.cursor() as cursor:
        names = (sql.Identifier(schema, name).as_string(cursor) if name else None for name in (index, table))
        cursor.execute(_PARTS, (*names,))
        return cursor.fetchall()
