"""Foreign keys into the planned table: who points to a surplus row, and what its removal would do to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg2 import sql

from .errors import OperatorError
from .plan import Plan
from .ranking import equal, of, parts_of
from .table import Cursor, table_name

# conparentid: the copies that partitions inherit are left out.
_FOREIGN_KEYS = """
SELECT f.conname, n.nspname, c.relname,
       ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place),
       ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = k.number ORDER BY k.place),
       f.confdeltype::text
FROM pg_catalog.pg_constraint AS f
JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS t ON t.oid = f.confrelid JOIN pg_catalog.pg_namespace AS s ON s.oid = t.relnamespace
WHERE f.contype = 'f' AND f.conparentid = 0 AND s.nspname = %s AND t.relname = %s ORDER BY 1, 2, 3
"""
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
    """(constraint, schema, table, referencing columns, referenced columns, action on delete)."""
    cursor.execute(_FOREIGN_KEYS, (plan.schema, plan.table))
    return cursor.fetchall()


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
    for constraint, schema, table, pointing, pointed, action in foreign_keys(cursor, plan):
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
                points=equal(of("row", pointed), of("pointing", pointing)),
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
        named = "; ".join(f"{r.rows} of {r.table} by {r.constraint} (ON DELETE {r.on_delete})" for r in pointing)
        raise OperatorError(
            f"Surplus rows of {table_name(plan)} are referenced: {named}.",
            expected="surplus rows that nothing points to (surplus.references: stop).",
            next_step="point those rows to the row that stays, or take them away, and run this again.",
            references=[asdict(reference) for reference in pointing],
        )


def point_to_keepers(cursor: Cursor, plan: Plan, batch: sql.Composable, values: Mapping[str, Any]) -> int:
    raise NotImplementedError
