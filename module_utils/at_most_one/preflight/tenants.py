"""The tenants of a plan: those that the inventory, the plan's list or its query names; and schemas left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Plan, Tenants, is_tenant, tenant_place
from ..postgres.connection import Connection, lost
from ..postgres.server_errors import first_line

# The whole text has to be one query in parentheses, and it ends before them, also where it ends in a comment.
_QUERY = sql.SQL("SELECT tenant.* FROM ({}\n) AS tenant")
_OTHERS = """
SELECT n.nspname::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname = %(table)s AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname <> ALL (%(schemas)s) AND n.nspname !~ '^pg_'
ORDER BY 1"""


@dataclass(frozen=True)
class Found:
    """The tenants in their order.

    ``others`` are schemas of this database with a table of the rule's name, for which nothing is said.
    """

    names: tuple[str, ...]
    source: str  # inventory | plan | query
    others: tuple[str, ...]


def find(connection: Connection, plan: Plan, listed: Sequence[str] = (), only: str = "") -> Found:
    """Resolve the list; with ``only`` that one of it. Reads alone, in a transaction that cannot write.

    Raises OperatorError where there is none, where one has no usable name, and where ``only`` is none of them.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        cursor.execute("SELECT pg_catalog.current_database()::text")
        own = str((cursor.fetchone() or ("",))[0])
    tenants = plan.tenants or Tenants()
    source = "inventory" if listed else "plan" if tenants.query is None else "query"
    names = listed or (tenants.schemas if tenants.query is None else _asked(connection, plan, tenants.query))
    for place, name in enumerate(names, 1):
        if not is_tenant(name):
            raise _unusable(plan, source, say("name {place} of the list", place=place))
        if tenant_place(name)[0] == own:  # it would be another plan there than by its schema alone
            raise _unusable(plan, source, say("name {place} of the list has this very database in it", place=place))
    known = tuple(dict.fromkeys(names))
    if not known:
        raise _unusable(plan, source, say("an empty list"))
    if only and only not in known:
        raise OperatorError(
            observed("AMO-2386", "{schema} is no tenant of plan {plan_id}.", schema=only, plan_id=plan.id),
            expected=say("one of {known}.", known=", ".join(known)),
            next_step=say("the same command with one of them behind the @ of the plan, or the plan alone for all."),
            known=list(known),
        )
    here = [schema for database, schema in map(tenant_place, known) if not database]
    with connection.cursor() as cursor:
        cursor.execute(_OTHERS, {"table": plan.table, "schemas": here})
        others = tuple(name for (name,) in cursor.fetchall())
    return Found((only,) if only else known, source, others)


def _asked(connection: Connection, plan: Plan, query: str) -> list[Any]:
    """What the plan's query answers in its one column."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_QUERY.format(sql.SQL(query.rstrip().rstrip(";"))))
            columns, rows = len(cursor.description or ()), cursor.fetchall()
    except psycopg2.Error as refused:
        if lost(refused):
            raise
        raise OperatorError(
            observed(
                "AMO-2387",
                "tenants.query of plan {plan_id} was refused: {first_line}.",
                plan_id=plan.id,
                first_line=first_line(refused),
            ),
            expected=say(
                "one SELECT that only reads, with the schema in front of each table: search_path is empty here."
            ),
            next_step=say("correct it in plans/{plan_id}.yml; nothing was changed.", plan_id=plan.id),
            sqlstate=refused.pgcode,
        ) from refused
    if columns != 1:
        raise _unusable(plan, "query", say("{columns} columns", columns=columns))
    return [name for (name,) in rows]


def _unusable(plan: Plan, source: str, seen: str) -> OperatorError:
    places = {"inventory": "tenants_schemas", "plan": "tenants.schemas", "query": "tenants.query"}
    return OperatorError(
        observed(
            "AMO-2388",
            "{place} does not name the tenants of plan {plan_id}: {seen}.",
            place=places[source],
            plan_id=plan.id,
            seen=seen,
        ),
        expected=say(
            "one column or list with at least one name: a schema, or <database>.<schema> in another database, of"
            " letters, digits, _, $ and -."
        ),
        next_step=say("correct it in plans/{plan_id}.yml, or in the inventory; nothing was changed.", plan_id=plan.id),
        source=source,
    )
