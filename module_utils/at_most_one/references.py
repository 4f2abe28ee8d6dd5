"""Foreign keys into the planned table: who points to a surplus row, and what its removal would do to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg2 import sql

from .errors import OperatorError
from .plan import Plan
from .ranking import numbered, parameters, requested_rows
from .table import Column, Cursor, table_name

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
    cursor: Cursor, plan: Plan, columns: Mapping[str, Column], rows: Collection[Sequence[str]]
) -> list[Reference]:
    """Every foreign key into the table, with the number of rows that point to one of ``rows``."""
    found = []
    for constraint, schema, table, pointing, pointed, action in foreign_keys(cursor, plan):
        row = sql.Identifier("row")
        cursor.execute(
            sql.SQL(
                "SELECT pg_catalog.count(*) FROM {referencing} AS pointing WHERE EXISTS (SELECT FROM {table} AS row"
                " JOIN ({requested}) AS requested ON {own} WHERE {points})"
            ).format(
                referencing=sql.Identifier(schema, table),
                table=sql.Identifier(plan.schema, plan.table),
                requested=requested_rows(plan, columns),
                own=sql.SQL(" AND ").join(
                    sql.SQL("{}.{} = requested.{}").format(row, sql.Identifier(name), part)
                    for name, part in zip(plan.primary_key, numbered("p", len(plan.primary_key)), strict=True)
                ),
                points=sql.SQL(" AND ").join(
                    sql.SQL("{}.{} = pointing.{}").format(row, sql.Identifier(theirs), sql.Identifier(ours))
                    for ours, theirs in zip(pointing, pointed, strict=True)
                ),
            ),
            parameters(plan, rows),
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
