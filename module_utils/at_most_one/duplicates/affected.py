"""Which tables a plan touches: the rule's own, those it builds indexes on, and those whose references it re-points."""

from __future__ import annotations

from ..plan import Plan
from ..postgres.connection import Connection
from .references import foreign_keys


def tables(connection: Connection, plan: Plan, *, history: bool = False) -> list[tuple[str, str]]:
    """(schema, table), sorted, those that are there; with ``history`` Prisma's table of migrations too."""
    named = {(plan.schema, plan.table), *((plan.schema, index.table) for index in plan.indexes)}
    if history:
        named.add((plan.schema, "_prisma_migrations"))
    with connection.cursor() as cursor:
        if plan.surplus.references == "repoint":
            named |= {(schema, table) for _, schema, table, *_ in foreign_keys(cursor, plan)}
        cursor.execute(
            "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p') AND (n.nspname::text, c.relname::text) IN %s ORDER BY 1, 2",
            (tuple(sorted(named)),),
        )
        return list(cursor.fetchall())
