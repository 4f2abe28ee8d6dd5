"""The SQL that groups and ranks rows: what ``surplus_rows`` reports and ``batches`` removes is ranked the same way.

Groups are made and ranked by windows, because PARTITION BY and ORDER BY compare as the column's own type does, while
the operator ``=`` is looked up through search_path: citext would silently become case-sensitive. The collation is the
planned index's. Inside a statement a row's primary key is p0, p1, ...; its group's key k0, ...; what the plan's order
sorts by s0, ...
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from psycopg2 import sql

from ..plan import Plan
from ..postgres.catalog import Column, predicate_sql, without_null_keys
from ..system.strict_zip import strict_zip


def listed(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def numbered(prefix: str, count: int) -> list[sql.Composable]:
    return [sql.Identifier(f"{prefix}{number}") for number in range(count)]


def text_array(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL("ARRAY[{}]::text[]").format(listed(sql.SQL("{}::text").format(part) for part in parts))


def equal(ones: Iterable[sql.Composable], others: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(" AND ").join(sql.SQL("{} = {}").format(*pair) for pair in strict_zip(ones, others))


def of(source: str, names: Iterable[str]) -> list[sql.Composable]:
    """The columns of one source, qualified."""
    return [sql.Identifier(source, name) for name in names]


def parts_of(source: str, plan: Plan) -> list[sql.Composable]:
    """p0, p1, ... of one source, qualified."""
    return of(source, [f"p{number}" for number in range(len(plan.primary_key))])


# Where a row is: at that place of that partition, which of another table is the table itself.
_PLACE = ("ctid", "tableoid")
_NAMED = (sql.Identifier("place_in_table"), sql.Identifier("place_in_parts"))


def at_its_place(
    plan: Plan, source: str, *, named: Sequence[str] = ("place_in_table", "place_in_parts")
) -> sql.Composed:
    """The condition that a row of the table is where one of ``source`` was seen: found without an index."""
    pairs = strict_zip(of(plan.table, _PLACE), of(source, named))
    return sql.SQL(" AND ").join(sql.SQL("{} = {}").format(*pair) for pair in pairs)


def requested_rows(plan: Plan, columns: Mapping[str, Column]) -> sql.Composed:
    """The given primary keys as typed rows (p0, p1, ...), from one text array per part."""
    parts = numbered("p", len(plan.primary_key))
    casts = (
        sql.SQL("r.{part}::{type} AS {part}").format(part=part, type=sql.SQL(columns[name].type))
        for part, name in strict_zip(parts, plan.primary_key)
    )
    arrays = (sql.SQL("{}::text[]").format(sql.Placeholder(f"p{number}")) for number in range(len(parts)))
    return sql.SQL("SELECT {} FROM unnest({}) AS r ({})").format(listed(casts), listed(arrays), listed(parts))


def parameters(plan: Plan, rows: Collection[Sequence[str]]) -> dict[str, Any]:
    return {f"p{number}": [row[number] for row in rows] for number in range(len(plan.primary_key))}


def candidates(plan: Plan) -> sql.Composed:
    """The rows the rule is about: primary key as p0..., key as k0..., the keeping order's columns as s0..."""
    named = {"p": plan.primary_key, "k": plan.key, "s": [sort.column for sort in plan.keep]}
    columns = [
        sql.SQL("{}.{}{} AS {}").format(
            sql.Identifier(plan.table),
            sql.Identifier(name),
            _collation(plan, name) if prefix == "k" else sql.SQL(""),
            sql.Identifier(f"{prefix}{number}"),
        )
        for prefix, names in named.items()
        for number, name in enumerate(names)
    ]
    return sql.SQL("SELECT {} FROM {} WHERE {}{}").format(
        listed([*columns, *(sql.SQL("{} AS {}").format(*pair) for pair in strict_zip(of(plan.table, _PLACE), _NAMED))]),
        sql.Identifier(plan.schema, plan.table),
        predicate_sql(plan),
        without_null_keys(plan),
    )


def _collation(plan: Plan, column: str) -> sql.Composable:
    """The collation that the planned index compares the key's column with, where it is not the column's own."""
    named = next((key.collation for key in plan.rule_index.keys if key.column == column), None)
    return sql.SQL(" COLLATE {}").format(sql.Identifier(*named.split("."))) if named else sql.SQL("")


def inside(plan: Plan) -> sql.Composed:
    """The rows inside the predicate, those with a NULL in their key included."""
    return sql.SQL("SELECT FROM {} WHERE {}").format(sql.Identifier(plan.schema, plan.table), predicate_sql(plan))


def keys(plan: Plan) -> sql.Composed:
    return listed(numbered("k", len(plan.key)))


def order(plan: Plan) -> sql.Composed:
    """The plan's order, the row to keep first; the primary key makes it total."""
    order: list[sql.Composable] = [
        sql.SQL(f"{{}} {sort.direction.upper()} NULLS {sort.nulls.upper()}").format(sql.Identifier(f"s{number}"))
        for number, sort in enumerate(plan.keep)
    ]
    return listed([*order, *numbered("p", len(plan.primary_key))])


_DUPLICATES = """
SELECT * FROM (
    SELECT c.*, pg_catalog.row_number() OVER best AS place, pg_catalog.count(*) OVER (PARTITION BY {keys}) AS size
    FROM ({candidates}) AS c WINDOW best AS (PARTITION BY {keys} ORDER BY {order})
) AS sized WHERE size > 1"""

_COUNT = """
SELECT pg_catalog.count(*), coalesce(pg_catalog.sum(size - 1), 0)::bigint
FROM (
    SELECT pg_catalog.count(*) AS size FROM ({candidates}) AS c GROUP BY {keys} HAVING pg_catalog.count(*) > 1
) AS sized"""


def duplicates(plan: Plan) -> sql.Composed:
    """Every row of every duplicate group: p0..., k0..., s0..., its place in the plan's order, its group's size."""
    return sql.SQL(_DUPLICATES).format(keys=keys(plan), candidates=candidates(plan), order=order(plan))


def surplus(plan: Plan) -> sql.Composed:
    """The primary keys (p0, ...) of every surplus row."""
    return sql.SQL("SELECT {} FROM ({}) AS duplicate WHERE place > 1").format(
        listed(numbered("p", len(plan.primary_key))), duplicates(plan)
    )


def count(plan: Plan) -> sql.Composed:
    """How many duplicate groups and how many surplus rows there are."""
    return sql.SQL(_COUNT).format(candidates=candidates(plan), keys=keys(plan))
