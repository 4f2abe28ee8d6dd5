"""Foreign keys into the planned table: who points to a surplus row, and what its removal would do to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..plan import Plan
from ..postgres.catalog import Column, Cursor, Row, table_name
from ..postgres.partitions import tree
from ..system.strict_zip import strict_zip
from .ranking import equal, listed, of, parts_of, text_array
from .worklist import MEMBER

# conparentid: the copies that partitions inherit are left out.
_FOREIGN_KEYS = f"""
SELECT f.conname, n.nspname, c.relname,
       ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place),
       ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = k.number ORDER BY k.place),
       f.confdeltype::text,
       ARRAY(SELECT pg_catalog.format(
                 '%%s OPERATOR(%%I.%%s)',
                 CASE WHEN l.collname = 'default' OR l.oid IS NULL THEN ''
                     ELSE pg_catalog.format('COLLATE %%I.%%I', ln.nspname, l.collname) END, o.nspname, p.oprname)
             FROM unnest(f.conpfeqop, f.confkey) WITH ORDINALITY AS k (operator, number, place)
             JOIN pg_catalog.pg_operator AS p ON p.oid = k.operator
             JOIN pg_catalog.pg_namespace AS o ON o.oid = p.oprnamespace
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = k.number
             LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
             LEFT JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace ORDER BY k.place)
FROM pg_catalog.pg_constraint AS f
JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confrelid IN {tree("pg_catalog.to_regclass(%(relation)s)::oid")}
ORDER BY 1, 2, 3
"""  # noqa: S608  (the part is a constant)
_ON_DELETE = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


@dataclass(frozen=True)
class Reference:
    """A foreign key into the table, and how many rows point through it to the surplus rows in question."""

    constraint: str
    table: str
    columns: list[str]
    on_delete: str
    rows: int


def foreign_keys(cursor: Cursor, plan: Plan) -> list[tuple[Any, ...]]:
    """(constraint, schema, table, referencing columns, referenced columns, action on delete, comparisons).

    A comparison is the foreign key's own operator with the referenced column's collation, whose value stands left.
    """
    name = sql.Identifier(plan.schema, plan.table).as_string(cursor)
    cursor.execute(_FOREIGN_KEYS, {"relation": name})
    return cursor.fetchall()


def _points(
    pointed: Sequence[sql.Composable], comparisons: Sequence[str], pointing: Sequence[sql.Composable]
) -> sql.Composed:
    """The condition that a row points to another, as the foreign key itself compares: whatever ``=`` is elsewhere."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}").format(one, sql.SQL(comparison), other)
        for one, comparison, other in strict_zip(pointed, comparisons, pointing)
    )


def count_references(
    cursor: Cursor,
    plan: Plan,
    rows: sql.Composable,
    values: Mapping[str, Any],
    *,
    within: sql.Composable | None = None,
) -> list[Reference]:
    """Every foreign key into the table, with the number of rows that point to one of ``rows``.

    ``rows`` is a query that yields primary keys as p0, p1, ..., and may read from the WITH clause ``within``;
    ``values`` are the parameters of both.
    """
    found = []
    for constraint, schema, table, pointing, pointed, action, comparisons in foreign_keys(cursor, plan):
        cursor.execute(
            sql.SQL(
                "{within} gone AS MATERIALIZED ({rows}) SELECT pg_catalog.count(*) FROM {referencing} AS pointing"
                " WHERE EXISTS (SELECT FROM {table} AS row JOIN gone ON {own} WHERE {points})"
            ).format(
                within=sql.SQL("WITH") if within is None else sql.SQL("{},").format(within),
                rows=rows,
                referencing=sql.Identifier(schema, table),
                table=sql.Identifier(plan.schema, plan.table),
                own=equal(of("row", plan.primary_key), parts_of("gone", plan)),
                points=_points(of("row", pointed), comparisons, of("pointing", pointing)),
            ),
            values,
        )
        ((count,),) = cursor.fetchall()
        found.append(Reference(constraint, f"{schema}.{table}", pointing, _ON_DELETE[action], count))
    return found


def refuse_referenced(plan: Plan, references: Sequence[Reference]) -> None:
    """Stop when something points to a surplus row: with CASCADE or SET NULL its removal would change that silently."""
    pointing = [reference for reference in references if reference.rows]
    if pointing:
        named = joined(
            say(
                "{rows} of {table} by {constraint} (ON DELETE {on_delete})",
                rows=one.rows,
                table=one.table,
                constraint=one.constraint,
                on_delete=one.on_delete,
            )
            for one in pointing
        )
        raise OperatorError(
            observed(
                "AMO-3206",
                "Surplus rows of {table} are referenced: {named}.",
                table=table_name(plan),
                named=named,
            ),
            expected=say("surplus rows that nothing points to (surplus.references: stop)."),
            next_step=say("point those rows to the row that stays, or take them away, and run this again."),
            references=[asdict(reference) for reference in pointing],
        )


_PRIMARY_KEY = """
SELECT ARRAY(SELECT a.attname::text FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.number
             WHERE k.place <= x.indnkeyatts ORDER BY k.place)
FROM pg_catalog.pg_index AS x
WHERE x.indrelid = pg_catalog.to_regclass(%s) AND x.indisprimary AND x.indisvalid AND x.indimmediate
"""

_POINT = """{locked},
pair AS MATERIALIZED (
    SELECT {both} FROM locked
    JOIN {member} AS best ON best.at_most_one_position = locked.at_most_one_head
    JOIN {table} AS stay ON {stays} JOIN {table} AS gone ON {goes}
    WHERE {known}),
repointed AS (
    UPDATE {referencing} AS pointing SET {assign} FROM pair WHERE {points}
    RETURNING {key} AS key, {before} AS before, {after} AS after)
INSERT INTO at_most_one.repointed_row
    (run_id, plan_id, constraint_name, table_schema, table_name, primary_key, before, after)
SELECT %(run_id)s, %(plan_id)s, {constraint}, {schema}, {name}, pg_catalog.jsonb_object({key_names}, key),
    pg_catalog.jsonb_object({columns}, before), pg_catalog.jsonb_object({columns}, after)
FROM repointed"""


def _primary_key(cursor: Cursor, schema: str, table: str) -> list[str]:
    cursor.execute(_PRIMARY_KEY, (sql.Identifier(schema, table).as_string(cursor),))
    found = cursor.fetchone()
    return found[0] if found else []


def refuse_unpointable(cursor: Cursor, plan: Plan) -> None:
    """Stop when rows that refer to the table could not be pointed elsewhere and back again."""
    for constraint, schema, table, *_ in foreign_keys(cursor, plan):
        seen = None
        if (schema, table) == (plan.schema, plan.table):
            seen = say("the table itself, whose rows would be archived as changed")
        elif not _primary_key(cursor, schema, table):
            seen = say("{schema}.{table}, which has no primary key, or a deferrable one", schema=schema, table=table)
        if seen:
            raise OperatorError(
                observed(
                    "AMO-3207",
                    "{constraint} refers to {table} from {seen}: its rows cannot be pointed to a keeper.",
                    constraint=constraint,
                    table=table_name(plan),
                    seen=seen,
                ),
                expected=say("other tables with a primary key, so that there is a way back (references: repoint)."),
                next_step=say(
                    "add a primary key, or take surplus.references: stop in plans/{plan_id}.yml.", plan_id=plan.file
                ),
                constraint=constraint,
            )


_POINTING = """
SELECT {key}, pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pointing::text, 'UTF8')), 'hex')
FROM {referencing} AS pointing WHERE {which} ORDER BY 1 LIMIT {most} FOR NO KEY UPDATE"""
_MOST = 100

_TYPES = """
SELECT attname::text, pg_catalog.format_type(atttypid, -1) FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""


@dataclass(frozen=True)
class Pointing:
    """Some rows of a table that refer to rows of the planned one: by primary key, the hash of each one's text."""

    schema: str
    table: str
    key: list[str]
    rows: dict[tuple[str, ...], str]


def pointing_rows(cursor: Cursor, plan: Plan, columns: Mapping[str, Column], rows: Sequence[Row]) -> list[Pointing]:
    """Lock and read a few of the rows that refer to each of ``rows``, primary keys of the planned table."""
    found = []
    types = {name: column.type for name, column in columns.items()}
    for _, schema, table, pointing, pointed, _, comparisons in foreign_keys(cursor, plan):
        which = sql.SQL("EXISTS (SELECT FROM {} AS row WHERE {} AND {})").format(
            sql.Identifier(plan.schema, plan.table),
            _one_of("row", plan.primary_key, types, rows),
            _points(of("row", pointed), comparisons, of("pointing", pointing)),
        )
        one = Pointing(schema, table, _primary_key(cursor, schema, table), {})
        found.append(replace(one, rows=_contents(cursor, one, which)))
    return found


def read_again(cursor: Cursor, before: Pointing) -> Pointing:
    """The same rows as they are now."""
    if not before.rows:
        return before
    cursor.execute(_TYPES, (sql.Identifier(before.schema, before.table).as_string(cursor),))
    which = _one_of("pointing", before.key, dict(cursor.fetchall()), list(before.rows))
    return replace(before, rows=_contents(cursor, before, which))


def _contents(cursor: Cursor, one: Pointing, which: sql.Composable) -> dict[tuple[str, ...], str]:
    cursor.execute(
        sql.SQL(_POINTING).format(
            key=text_array(of("pointing", one.key)),
            referencing=sql.Identifier(one.schema, one.table),
            which=which,
            most=sql.Literal(_MOST),
        )
    )
    return {tuple(key): content for key, content in cursor.fetchall()}


def _one_of(source: str, names: Sequence[str], types: Mapping[str, str], rows: Sequence[Sequence[str]]) -> sql.Composed:
    typed = (
        listed(
            sql.SQL("{}::{}").format(sql.Literal(part), sql.SQL(types[name])) for part, name in strict_zip(row, names)
        )
        for row in rows
    )
    return sql.SQL("({}) IN ({})").format(
        listed(of(source, names)), listed(sql.SQL("({})").format(one) for one in typed)
    )


def point_to_keepers(cursor: Cursor, plan: Plan, locked: sql.Composable, values: Mapping[str, Any]) -> int:
    """Point every row that refers to a row of ``locked`` to its keeper, and write down which. Returns how many.

    By the columns that the foreign key refers to, which need not be the primary key. A keeper with a NULL in them can
    take nobody over: its rows are left as they are, and the count that follows stops the batch.
    """
    total = 0
    for constraint, schema, table, pointing, pointed, _, comparisons in foreign_keys(cursor, plan):
        key = _primary_key(cursor, schema, table)
        if not key:  # dropped, or created without one, since the removal began
            refuse_unpointable(cursor, plan)
        old = [sql.Identifier(f"at_most_one_old{number}") for number in range(len(pointed))]
        new = [sql.Identifier(f"at_most_one_new{number}") for number in range(len(pointed))]
        ours = [sql.Identifier("pointing", name) for name in pointing]
        stays, goes = of("stay", pointed), of("gone", pointed)
        best = [sql.Identifier("best", f"at_most_one_p{number}") for number in range(len(plan.primary_key))]
        cursor.execute(
            sql.SQL(_POINT).format(
                locked=locked,
                both=listed(
                    sql.SQL("{} AS {}").format(*pair) for pair in [*strict_zip(goes, old), *strict_zip(stays, new)]
                ),
                member=MEMBER,
                table=sql.Identifier(plan.schema, plan.table),
                stays=equal(of("stay", plan.primary_key), best),
                goes=equal(of("gone", plan.primary_key), parts_of("locked", plan)),
                known=sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(column) for column in stays),
                referencing=sql.Identifier(schema, table),
                assign=listed(
                    sql.SQL("{} = {}").format(sql.Identifier(name), column)
                    for name, column in strict_zip(pointing, new)
                ),
                points=_points(old, comparisons, ours),
                key=text_array(of("pointing", key)),
                before=text_array(old),
                after=text_array(new),
                constraint=sql.Literal(constraint),
                schema=sql.Literal(schema),
                name=sql.Literal(table),
                key_names=sql.Literal(key),
                columns=sql.Literal(pointing),
            ),
            values,
        )
        total += cursor.rowcount
    return total
