"""Put archived rows back inside the caller's transaction, and say of each that cannot return why.

A batch is written by a few statements. When one fails, or when a row does not come back byte for byte, the batch is
undone to its savepoint and written row by row on the server, each in a subtransaction of its own: the table's own
constraints, indexes and triggers judge every row, so that equality is theirs and no rule is modelled twice. It costs
one more pass over a batch, whatever the number of rows that cannot return. No row passes through Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg2
from psycopg2 import sql

from ..findings import Phrase, say
from ..postgres.catalog import Cursor
from ..system.strict_zip import strict_zip

IN_BATCH = sql.SQL("pg_temp.at_most_one_returning")
LEFT_OUT = sql.SQL("pg_temp.at_most_one_left_out")

# SQLSTATE classes of a fault that is not the row's: the connection, the transaction, resources, the operator, the disk.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_NOT_OF_THE_ROW = ("08", "25", "40", "53", "55", "57", "58", "F0", "XX")
_RIGHTS = "42501"


@dataclass(frozen=True)
class LeftOut:
    """Rows that cannot return for one and the same reason.

    ``reason`` is one of :data:`REASONS`; ``name`` the constraint, function, columns or SQLSTATE; ``rows`` primary keys,
    at most 100.
    """

    table: str
    reason: str
    name: str
    count: int
    rows: list[list[str]]

    def __str__(self) -> str:
        return str(self.phrase)

    @property
    def phrase(self) -> Phrase:
        """What a person reads."""
        why = say(REASONS[self.reason].template, name=self.name)
        return say("{count} of {table}: {why}", count=self.count, table=self.table, why=why)


REASONS = {
    "taken": say("their primary key is in the table again ({name})", name="{name}"),
    "rule": say("{name} is there and would reject them", name="{name}"),
    "constraint": say("constraint {name} rejects them", name="{name}"),
    "trigger": say("{name} raises an error for them", name="{name}"),
    "changed_value": say(
        "{name} would not come back as archived (a trigger, a generated column or a changed type)", name="{name}"
    ),
    "swallowed": say("a trigger keeps them out"),
    "writes": say("triggers write to {name} when they return, which is neither archived nor taken back", name="{name}"),
    "changed_since": say("they are no longer as the clean-up left them, and newer data is never overwritten"),
    "moved": say("they no longer point to the row that stayed"),
    "table": say("there is no such table any more"),
    "column": say("the table no longer has column {name}", name="{name}"),
    "key": say("their table has no unique index over {name} any more, by which each is known", name="{name}"),
    "partition": say("the table has no partition for them"),
    "error": say("{name}", name="{name}"),
}


class Way(Protocol):
    """How the rows of one shape (a JSON value that the batch's rows share) return."""

    tables: Collection[str]  # the table, and its partitions
    own: str  # the table with its schema
    # By the name of a unique index of ``tables``: the reason (empty: the row counts as back), and the table's index.
    judges: Mapping[str, tuple[str, str]]

    def barred(self) -> tuple[str, str] | None:
        """The reason, and the name in it, where none of these rows can be written: what they need is gone."""

    def write(self) -> list[sql.Composed]:
        """The statements for the whole batch; the number of rows of the last is how many are back, marked so."""

    def write_one(self) -> sql.Composed:
        """PL/pgSQL for ``item.id``: sets ``done``, and when it is false ``reason`` and ``name``."""


def begin(cursor: Cursor) -> None:
    """Create the session's two tables: the batch's rows, and those that cannot return."""
    cursor.execute("DROP TABLE IF EXISTS pg_temp.at_most_one_returning, pg_temp.at_most_one_left_out")
    cursor.execute("CREATE TEMPORARY TABLE at_most_one_returning (id bigint PRIMARY KEY, shape jsonb NOT NULL)")
    cursor.execute(
        "CREATE TEMPORARY TABLE at_most_one_left_out (source text, id bigint, reason text NOT NULL, name text NOT NULL)"
    )


def put_back(cursor: Cursor, source: str, way_of: Callable[[Any], Way], guard: sql.Composable | None = None) -> int:
    """Put back what :data:`IN_BATCH` names, and name in :data:`LEFT_OUT` what cannot return. Returns how many are back.

    ``source`` is the archive's table, ``way_of`` gives the way of a shape. ``guard`` is an expression for how many rows
    of each table the transaction has written, as jsonb: a row with which others are written does not return. Deferred
    constraints are checked here, where their row is known, and not at the commit.
    """
    cursor.execute("ANALYZE pg_temp.at_most_one_returning")
    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    cursor.execute(sql.SQL("SELECT shape::text, pg_catalog.count(*) FROM {} GROUP BY 1 ORDER BY 1").format(IN_BATCH))
    total = 0
    for shape, size in cursor.fetchall():
        way = way_of(json.loads(shape))
        if barred := way.barred():
            cursor.execute(
                sql.SQL("INSERT INTO {} SELECT %s, id, %s, %s FROM {} WHERE shape = %s::jsonb").format(
                    LEFT_OUT, IN_BATCH
                ),
                (source, *barred, shape),
            )
        elif _whole(cursor, way, size, guard):
            total += size
        else:
            total += size - _one_by_one(cursor, source, way, shape, guard)
    return total


def _written(cursor: Cursor, guard: sql.Composable | None) -> Mapping[str, int]:
    if guard is None:
        return {}
    cursor.execute(sql.SQL("SELECT {}").format(guard))
    ((counts,),) = cursor.fetchall()
    return dict(counts)


def _whole(cursor: Cursor, way: Way, size: int, guard: sql.Composable | None) -> bool:
    """Whether every row of the shape is back, and they alone are written; when not, nothing is."""
    back: int | None = None
    before = _written(cursor, guard)
    cursor.execute("SAVEPOINT at_most_one_batch")
    try:
        for statement in way.write():
            cursor.execute(statement)
            back = cursor.rowcount
            cursor.execute("SELECT pg_catalog.set_config('search_path', '', true)")
    except psycopg2.Error as failure:
        code = failure.pgcode or "08000"
        if code == _RIGHTS or code.startswith(_NOT_OF_THE_ROW):
            raise
        back = None
    alone = back == size
    if alone and guard is not None:
        alone = _written(cursor, guard) == {**before, way.own: before.get(way.own, 0) + size}
    if not alone:
        cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_batch")
    cursor.execute("RELEASE SAVEPOINT at_most_one_batch")
    return alone


# What "the same primary key" means: the operator and the collation of the unique index, wherever search_path leads. A
# column that the index only INCLUDEs has no operator class.
_KEY = """
SELECT i.relname, pg_catalog.array_agg(a.attname::text ORDER BY k.place),
    pg_catalog.array_agg(pg_catalog.format('OPERATOR(%%I.%%s)', s.nspname, o.oprname) ORDER BY k.place),
    pg_catalog.array_agg(
        CASE WHEN l.oid IS NULL THEN '' ELSE pg_catalog.format(' COLLATE %%I.%%I', ls.nspname, l.collname) END
        ORDER BY k.place)
FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
CROSS JOIN LATERAL unnest(x.indkey::int2[], x.indclass::oid[], x.indcollation::oid[]) WITH ORDINALITY
    AS k (number, class, collation_, place)
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.number
JOIN pg_catalog.pg_opclass AS c ON c.oid = k.class
JOIN pg_catalog.pg_amop AS m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
    AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
JOIN pg_catalog.pg_operator AS o ON o.oid = m.amopopr JOIN pg_catalog.pg_namespace AS s ON s.oid = o.oprnamespace
LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = k.collation_ AND l.collname <> 'default'
LEFT JOIN pg_catalog.pg_namespace AS ls ON ls.oid = l.collnamespace
WHERE x.indrelid = pg_catalog.to_regclass(%(table)s) AND x.indisunique AND x.indisvalid AND x.indimmediate
    AND x.indpred IS NULL AND x.indexprs IS NULL
GROUP BY i.relname, x.indexrelid, x.indisprimary, x.indnatts, x.indnkeyatts
HAVING pg_catalog.array_agg(a.attname::text ORDER BY a.attname) = %(key)s::text[]
ORDER BY x.indisprimary DESC, x.indnatts > x.indnkeyatts, i.relname LIMIT 1"""


@dataclass(frozen=True)
class UniqueKey:
    """What makes a row of a table the same row."""

    index: str
    columns: Mapping[str, tuple[str, str]]  # the operator and the collation, as SQL

    def same(self, left: str, right: str) -> sql.Composed:
        """The condition that two sources have the same key."""
        return sql.SQL(" AND ").join(
            sql.SQL("{} {} {}{}").format(
                sql.Identifier(left, name), sql.SQL(operator), sql.Identifier(right, name), sql.SQL(collation)
            )
            for name, (operator, collation) in self.columns.items()
        )


def unique_key(cursor: Cursor, schema: str, table: str, key: Sequence[str]) -> UniqueKey | None:
    """The unique index over exactly these columns; the table had one when its rows were archived."""
    cursor.execute(_KEY, {"table": sql.Identifier(schema, table).as_string(cursor), "key": sorted(key)})
    found = cursor.fetchone()
    if found is None:
        return None
    index, names, operators, collations = found
    return UniqueKey(index, dict(strict_zip(names, strict_zip(operators, collations))))


# A variable keeps its value when the subtransaction is undone; search_path goes back with it. The context names
# functions: this block itself is left out, and no text of a statement is kept, because it may hold row values.
# OTHERS does not catch what ASSERT raises.
_ONE_BY_ONE = r"""
#variable_conflict use_column
DECLARE
    item record; done boolean; changed bigint; reason text; name text;
    code text; constrained text; of_table text; of_column text; context text; written jsonb;
BEGIN
    FOR item IN SELECT r.id FROM pg_temp.at_most_one_returning AS r WHERE r.shape = {shape}::jsonb ORDER BY r.id LOOP
        name := NULL;
        BEGIN
            written := {guard};
            {one}
            IF done AND written IS NOT NULL THEN
                name := (
                    SELECT pg_catalog.string_agg(now.key, ', ' ORDER BY now.key)
                    FROM pg_catalog.jsonb_each({guard}) AS now
                    WHERE now.value::bigint > coalesce((written -> now.key)::bigint, 0) + (now.key = {own})::integer);
                done := name IS NULL;
                reason := 'writes';
            END IF;
            IF NOT done THEN RAISE EXCEPTION USING ERRCODE = 'AM001'; END IF;
        EXCEPTION WHEN others OR assert_failure THEN
            GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, constrained = CONSTRAINT_NAME, of_table = TABLE_NAME,
                of_column = COLUMN_NAME, context = PG_EXCEPTION_CONTEXT;
            IF code = {rights} OR left(code, 2) = ANY ({classes}) THEN RAISE; END IF;
            IF code <> 'AM001' THEN
                context := (SELECT m[1] FROM pg_catalog.regexp_matches(
                    context, 'PL/pgSQL function (?!inline_code_block)(\S+\([^)]*\))', 'n') AS m);
                reason := CASE
                    WHEN constrained <> '' THEN 'constraint' WHEN context <> '' THEN 'trigger' ELSE 'error' END;
                name := coalesce(nullif(constrained, ''), context || ', SQLSTATE ' || code, 'SQLSTATE ' || code);
                IF code = '23505' AND of_table = ANY ({tables}) THEN
                    reason := coalesce({judges}::jsonb -> constrained ->> 0, reason);
                    name := coalesce({judges}::jsonb -> constrained ->> 1, name);
                ELSIF code = '23514' AND constrained = '' AND of_table = ANY ({tables}) THEN
                    reason := 'partition';
                ELSIF code = '23502' AND context IS NULL AND of_column <> '' THEN  -- only the column is named
                    reason := 'constraint';
                    name := of_column || ' NOT NULL';
                END IF;
            END IF;
            IF reason <> '' THEN
                INSERT INTO pg_temp.at_most_one_left_out VALUES ({source}, item.id, reason, coalesce(name, ''));
            END IF;
        END;
    END LOOP;
END"""


def _one_by_one(cursor: Cursor, source: str, way: Way, shape: str, guard: sql.Composable | None) -> int:
    """Write the rows of the shape one by one. Returns how many cannot return."""
    cursor.execute("SELECT pg_catalog.count(*) FROM pg_temp.at_most_one_left_out")
    ((before,),) = cursor.fetchall()
    block = sql.SQL(_ONE_BY_ONE).format(
        shape=sql.Literal(shape),
        guard=guard or sql.SQL("NULL::jsonb"),
        own=sql.Literal(way.own),
        one=way.write_one(),
        rights=sql.Literal(_RIGHTS),
        classes=sql.Literal(list(_NOT_OF_THE_ROW)),
        source=sql.Literal(source),
        tables=sql.Literal(list(way.tables)),
        judges=sql.Literal(json.dumps(way.judges, ensure_ascii=False)),
    )
    cursor.execute(sql.SQL("DO {}").format(sql.Literal(block.as_string(cursor))))
    cursor.execute("SELECT pg_catalog.count(*) FROM pg_temp.at_most_one_left_out")
    ((after,),) = cursor.fetchall()
    return int(after - before)
