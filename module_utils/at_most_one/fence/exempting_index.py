"""The write fence in the catalog: a unique index like the planned one, from which the surplus rows are exempt.

``CREATE UNIQUE INDEX ... WHERE (predicate) AND NOT (id = ANY ('{the surplus rows}'))``. Every other row is in it, so no
new duplicate can be committed, in any isolation level, by any statement. Its comment holds what it was made of: nobody
has to take the predicate apart again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg2.errors
from psycopg2 import sql

from ..duplicates import ranking
from ..duplicates.key_equality import equality
from ..indexes import definitions
from ..plan import Index, Plan
from ..postgres.catalog import Column, Cursor, Row
from ..postgres.fence_names import name_of
from ..system.strict_zip import strict_zip

# Before PostgreSQL 18 a row of pg_index has to fit on a page: 256 uuids or 519 bigints do, 55 texts of 100 characters,
# 105 keys of two columns. Whether a list fits the server says before it builds: see is_too_large.
MOST = 200


@dataclass(frozen=True)
class Fence:
    """One index of the fence, as found. ``definition`` is empty when its comment is not ours."""

    name: str
    usable: bool
    ready: bool  # kept up to date: it refuses new duplicates, valid or not
    definition: str = ""
    plain: bool = False  # built under a lock, not concurrently
    exempt: tuple[Row, ...] = ()


_FENCES = """
SELECT i.relname::text, x.indisvalid AND x.indisready AND x.indislive, x.indisready,
    pg_catalog.obj_description(i.oid, 'pg_class')
FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
WHERE x.indrelid = pg_catalog.to_regclass(%s) AND i.relname ~ %s ORDER BY i.oid
"""
_TRIGGERS = """
SELECT tgname::text FROM pg_catalog.pg_trigger
WHERE tgrelid = pg_catalog.to_regclass(%s) AND tgname = ANY (%s) ORDER BY tgname
"""


def table_of(plan: Plan) -> sql.Identifier:
    return sql.Identifier(plan.schema, plan.table)


def found(cursor: Cursor, plan: Plan) -> list[Fence]:
    """Every index of this plan's fence, whatever its state, the oldest first."""
    cursor.execute(_FENCES, (table_of(plan).as_string(cursor), f"^{name_of(plan.id)}(_[0-9]+)?$"))
    return [_fence(*row) for row in cursor.fetchall()]


def _fence(name: str, usable: bool, ready: bool, comment: str | None) -> Fence:
    try:
        kept = json.loads((comment or "").partition("\n")[2])
        exempt = tuple([str(part) for part in row] for row in kept["exempt"])
        return Fence(name, usable, ready, str(kept["definition"]), bool(kept["plain"]), exempt)
    except (ValueError, KeyError, TypeError):
        return Fence(name, usable, ready)


def triggers(cursor: Cursor, plan: Plan) -> list[str]:
    """The two triggers of which the fence consisted before it was an index, where an older release has left them."""
    names = [f"{name_of(plan.id)}_{event}" for event in ("insert", "update")]
    cursor.execute(_TRIGGERS, (table_of(plan).as_string(cursor), names))
    return [name for (name,) in cursor.fetchall()]


def drop_triggers(plan: Plan, names: Sequence[str]) -> list[sql.Composed]:
    """The statements that remove what :func:`triggers` has found."""
    function = sql.Identifier("at_most_one", name_of(plan.id).removeprefix("at_most_one_"))
    return [
        *(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(name), table_of(plan)) for name in names),
        sql.SQL("DROP FUNCTION IF EXISTS {}()").format(function),
    ]


def definition(cursor: Cursor, plan: Plan) -> str:
    """A digest of everything that the fence is made of but for its list."""
    statement = definitions.create_statement(replace(plan.rule_index, name="fence", include=()), plan.schema)
    return hashlib.sha256(f"{statement.as_string(cursor)} {plan.primary_key}".encode()).hexdigest()


def surplus(cursor: Cursor, plan: Plan) -> list[Row] | None:
    """The primary keys of the surplus rows; None when they are more than a list may hold."""
    parts = ranking.listed(sql.SQL("{}::text").format(part) for part in ranking.numbered("p", len(plan.primary_key)))
    statement = sql.SQL("SELECT {} FROM ({}) AS surplus LIMIT {}").format(
        parts, ranking.surplus(plan), sql.Literal(MOST + 1)
    )
    cursor.execute(statement, ())
    rows = [list(row) for row in cursor.fetchall()]
    return None if len(rows) > MOST else rows


def staying(cursor: Cursor, plan: Plan, columns: Mapping[str, Column], fence: Fence) -> tuple[list[Row], list[Row]]:
    """The exempt rows that are still in the table, and those of them that are surplus rows now.

    Any other was closed, or is the only one of its group by now. It could be opened again, or another beside it.
    """
    here = ranking.of(plan.table, plan.primary_key)
    there = sql.SQL("SELECT {} FROM {} JOIN ({}) AS r ON {}").format(
        ranking.listed(sql.SQL("{}::text").format(part) for part in here),
        table_of(plan),
        ranking.requested_rows(plan, columns),
        ranking.equal(here, ranking.parts_of("r", plan)),
    )
    cursor.execute(there, ranking.parameters(plan, fence.exempt))
    left = [list(row) for row in cursor.fetchall()]
    if not left:
        return left, left
    now = surplus(cursor, plan)
    return left, left if now is None else [row for row in left if row in now]


def index_of(
    cursor: Cursor, plan: Plan, columns: Mapping[str, Column], name: str, rows: Sequence[Row], *, shown: bool
) -> Index:
    """The index that exempts these rows; ``shown``: with their number in place of the list, for a person."""
    predicate = plan.predicate
    if rows:
        exempt = sql.SQL("({}) = ANY ({} rows)").format(
            ranking.listed(map(sql.Identifier, plan.primary_key)), sql.Literal(len(rows))
        )
        if not shown:
            exempt = _among(cursor, plan, columns, rows)
        predicate = f"({plan.predicate}\n) AND NOT ({exempt.as_string(cursor)})"
    return replace(plan.rule_index, name=name, include=(), predicate=predicate)


def _among(cursor: Cursor, plan: Plan, columns: Mapping[str, Column], rows: Sequence[Row]) -> sql.Composed:
    """Whether a row is one of these: an immutable expression, with the operators that the primary key's index uses."""
    typed = [(sql.Identifier(name), sql.SQL(columns[name].type), equality(cursor, plan, name))
             for name in plan.primary_key]  # fmt: skip
    if len(typed) == 1 and not columns[plan.primary_key[0]].type.endswith("[]"):
        ((name, type_, operator),) = typed
        elements = ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for (value,) in rows)
        return sql.SQL("{} {} ANY ({}::{}[])").format(name, operator, sql.Literal(f"{{{elements}}}"), type_)
    return sql.SQL(" OR ").join(
        sql.SQL(" AND ").join(
            sql.SQL("{} {} {}::{}").format(name, operator, sql.Literal(value), type_)
            for (name, type_, operator), value in strict_zip(typed, row)
        )
        for row in rows
    )


def comment(cursor: Cursor, plan: Plan, name: str, rows: Sequence[Row], *, plain: bool) -> sql.Composed:
    """The statement that says, to people and to :func:`found`, what the index is."""
    kept = {"definition": definition(cursor, plan), "plain": plain, "exempt": list(rows)}
    text = (
        f"The write fence of at-most-one, plan {' '.join(plan.id.split())}: temporary, dropped by the run that built "
        f"it or by the next one.\n{json.dumps(kept, ensure_ascii=False)}"
    )
    return definitions.comment_statement(name, plan.schema, sql.Literal(text).as_string(cursor))


def is_too_large(failure: psycopg2.errors.ProgramLimitExceeded) -> bool:
    """Whether the list does not fit into the catalog. A key that is too long for a B-tree has the same SQLSTATE."""
    return failure.diag.source_function == "RelationGetBufferForTuple"
