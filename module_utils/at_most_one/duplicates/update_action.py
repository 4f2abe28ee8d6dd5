"""``surplus.action: update``: whether the plan's values can be written, and take a row out of the rule."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Plan
from ..postgres.catalog import Column, Cursor, predicate_sql, table_name, without_null_keys
from .ranking import equal, listed, of, parts_of

_EXPRESSIONS = """
SELECT a.attname::text, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attgenerated <> ''
"""

_STILL_INSIDE = """
SELECT pg_catalog.count(*) FROM (
    SELECT {computed} FROM (
        SELECT {future} FROM {table} JOIN ({rows}) AS going ON {same}) AS {name}) AS {name}
WHERE {predicate}{keys}"""


def require_leaves_predicate(cursor: Cursor, plan: Plan, columns: Mapping[str, Column], rows: sql.Composable) -> None:
    """Stop unless every one of ``rows`` (a query that yields p0, ...) leaves the rule by the plan's values.

    Judged by the predicate itself, on the rows as they would be, generated columns included.
    """
    for name in plan.surplus.values:
        if name not in columns:
            raise _refusal(plan, name, say("the table has no such column"), say("columns of the table"))
        if columns[name].generated:
            raise _refusal(plan, name, say("the column is generated"), say("columns that can be written"))
        if name in plan.primary_key:
            raise _refusal(
                plan, name, say("the column is part of the primary key"), say("columns that do not name the row")
            )
    cursor.execute(_EXPRESSIONS, (sql.Identifier(plan.schema, plan.table).as_string(cursor),))
    expressions = dict(cursor.fetchall())

    def future(name: str) -> sql.Composed:
        if name not in plan.surplus.values:
            return sql.SQL("{}").format(sql.Identifier(plan.table, name))
        value = sql.Placeholder(f"value{list(plan.surplus.values).index(name)}")
        return sql.SQL("{}::{} AS {}").format(value, sql.SQL(columns[name].type), sql.Identifier(name))

    def computed(name: str) -> sql.Composed:
        if name not in expressions:
            return sql.SQL("{}").format(sql.Identifier(plan.table, name))
        return sql.SQL("({}) AS {}").format(sql.SQL(expressions[name].replace("%", "%%")), sql.Identifier(name))

    cursor.execute(
        sql.SQL(_STILL_INSIDE).format(
            computed=listed(map(computed, columns)),
            future=listed(future(name) for name in columns if name not in expressions),
            table=sql.Identifier(plan.schema, plan.table),
            rows=rows,
            same=equal(of(plan.table, plan.primary_key), parts_of("going", plan)),
            name=sql.Identifier(plan.table),
            predicate=predicate_sql(plan),
            keys=without_null_keys(plan),
        ),
        {f"value{number}": value for number, value in enumerate(plan.surplus.values.values())},
    )
    ((inside,),) = cursor.fetchall()
    if inside:
        raise OperatorError(
            observed(
                "AMO-3212",
                "{inside} surplus rows of {table} would still be inside the predicate with the values of {values}.",
                inside=inside,
                table=table_name(plan),
                values=", ".join(plan.surplus.values),
            ),
            expected=say("values that take every surplus row out of the rule."),
            next_step=say("correct surplus.values in plans/{plan_id}.yml.", plan_id=plan.file),
            rows=inside,
        )


def _refusal(plan: Plan, name: str, seen: str, expected: str) -> OperatorError:
    return OperatorError(
        observed(
            "AMO-3213",
            "Plan {plan_id}: surplus.values.{name} cannot be written to {table}: {seen}.",
            plan_id=plan.id,
            name=name,
            table=table_name(plan),
            seen=seen,
        ),
        expected=say("{expected}.", expected=expected),
        next_step=say("correct surplus.values in plans/{plan_id}.yml.", plan_id=plan.file),
        plan=plan.id,
        key=f"surplus.values.{name}",
    )
