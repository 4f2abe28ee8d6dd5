"""The SQL that groups and ranks rows, and removes the surplus ones: the back room of ``duplicates``.

Groups are made and ranked by windows, because PARTITION BY and ORDER BY compare as the column's own type does, while
the operator ``=`` is looked up through search_path: citext would silently become case-sensitive. Inside a statement a
row's primary key is p0, p1, ...; its group's key k0, ...; what the plan's order sorts by s0, ...
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from psycopg2 import sql

from . import archive
from .plan import Plan
from .table import Column, predicate_sql, without_null_keys


def listed(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def numbered(prefix: str, count: int) -> list[sql.Composable]:
    return [sql.Identifier(f"{prefix}{number}") for number in range(count)]


def text_array(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL("ARRAY[{}]::text[]").format(listed(sql.SQL("{}::text").format(part) for part in parts))


def same(one: str, other: str, count: int) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{}.{p} = {}.{p}").format(sql.Identifier(one), sql.Identifier(other), p=p) for p in numbered("p", count)
    )


def requested_rows(plan: Plan, columns: Mapping[str, Column]) -> sql.Composed:
    """The given primary keys as typed rows (p0, p1, ...), from one text array per part."""
    parts = numbered("p", len(plan.primary_key))
    casts = (
        sql.SQL("r.{part}::{type} AS {part}").format(part=part, type=sql.SQL(columns[name].type))
        for part, name in zip(parts, plan.primary_key, strict=True)
    )
    arrays = (sql.SQL("{}::text[]").format(sql.Placeholder(f"p{number}")) for number in range(len(parts)))
    return sql.SQL("SELECT {} FROM unnest({}) AS r ({})").format(listed(casts), listed(arrays), listed(parts))


def parameters(plan: Plan, rows: Collection[Sequence[str]]) -> dict[str, Any]:
    return {f"p{number}": [row[number] for row in rows] for number in range(len(plan.primary_key))}


def candidates(plan: Plan, *more: sql.Composable) -> sql.Composed:
    """The rows the rule is about: primary key as p0..., key as k0..., the keeping order's columns as s0..."""
    named = {"p": plan.primary_key, "k": plan.key, "s": [sort.column for sort in plan.keep]}
    columns = [
        sql.SQL("{}.{} AS {}").format(
            sql.Identifier(plan.table), sql.Identifier(name), sql.Identifier(f"{prefix}{number}")
        )
        for prefix, names in named.items()
        for number, name in enumerate(names)
    ]
    return sql.SQL("SELECT {} FROM {} WHERE {}{}").format(
        listed([*columns, *more]),
        sql.Identifier(plan.schema, plan.table),
        predicate_sql(plan),
        without_null_keys(plan),
    )


def keys(plan: Plan) -> sql.Composed:
    return listed(numbered("k", len(plan.key)))


def windows(plan: Plan) -> sql.Composed:
    """``best``: a group in the plan's order, the row to keep first; the primary key makes the order total."""
    order: list[sql.Composable] = [
        sql.SQL(f"{{}} {sort.direction.upper()} NULLS {sort.nulls.upper()}").format(sql.Identifier(f"s{number}"))
        for number, sort in enumerate(plan.keep)
    ]
    order += numbered("p", len(plan.primary_key))
    return sql.SQL("WINDOW best AS (PARTITION BY {} ORDER BY {})").format(keys(plan), listed(order))


_TOUCHED = """
requested AS MATERIALIZED ({requested}),
touched AS MATERIALIZED (
    SELECT {parts} FROM (
        SELECT {own}, pg_catalog.bool_or(requested.p0 IS NOT NULL) OVER (PARTITION BY {keys}) AS is_touched
        FROM ({candidates}) AS c LEFT JOIN requested ON {same}
    ) AS grouped WHERE is_touched)"""

_LOCK = """WITH {touched}
SELECT FROM {table} WHERE ({key}) IN (SELECT {parts} FROM touched UNION SELECT {parts} FROM requested)
ORDER BY {key} FOR UPDATE"""

# Under READ COMMITTED, FOR UPDATE waits for a writer and then takes the row as that writer left it, or drops it when it
# is no longer inside the predicate. So what gets ranked can change no more, and one of it always stays.
# https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED
_SURPLUS = """WITH {touched},
candidate AS MATERIALIZED ({candidates} AND ({key}) IN (SELECT {parts} FROM touched) ORDER BY {key}{lock}),
ranked AS (SELECT {parts}, {keepers}, pg_catalog.row_number() OVER best AS place FROM candidate {windows}),
surplus AS (SELECT ranked.* FROM ranked JOIN requested ON {same} WHERE place > 1)"""

_REMOVAL = """{surplus},
removed AS (
    DELETE FROM {table} USING surplus WHERE {matches}
    RETURNING {key} AS key, {keeper} AS keeper, {image} AS row)
INSERT INTO at_most_one.archived_row
    (run_id, plan_id, table_schema, table_name, primary_key, keeper, row, row_sha256, action)
SELECT %(run_id)s, %(plan_id)s, %(schema)s, %(table)s,
    pg_catalog.jsonb_object(%(key_names)s::text[], key), pg_catalog.jsonb_object(%(key_names)s::text[], keeper),
    row, {hash}, 'delete'
FROM removed
RETURNING ARRAY(SELECT primary_key ->> name
    FROM unnest(%(key_names)s::text[]) WITH ORDINALITY AS part (name, place) ORDER BY place)"""


class Removing:
    """The statements of one removal; ``parameters`` goes with each of them."""

    def __init__(
        self, plan: Plan, columns: Mapping[str, Column], requested: Collection[Sequence[str]], run_id: str
    ) -> None:
        self.plan, self.columns = plan, columns
        self.size = len(plan.primary_key)
        self.parts = numbered("p", self.size)
        self.table = sql.Identifier(plan.schema, plan.table)
        self.key = [sql.Identifier(plan.table, name) for name in plan.primary_key]
        self.parameters = {
            **parameters(plan, requested),
            "run_id": run_id,
            "plan_id": plan.id,
            "schema": plan.schema,
            "table": plan.table,
            "names": list(columns),
            "key_names": list(plan.primary_key),
        }

    def _touched(self) -> sql.Composed:
        """The primary keys of all rows in groups that hold a requested row."""
        return sql.SQL(_TOUCHED).format(
            requested=requested_rows(self.plan, self.columns),
            parts=listed(self.parts),
            own=listed(sql.SQL("c.{}").format(part) for part in self.parts),
            keys=keys(self.plan),
            candidates=candidates(self.plan),
            same=same("c", "requested", self.size),
        )

    def lock(self) -> sql.Composed:
        """Lock the touched groups and every requested row, in the order of the primary key: no deadlock among us."""
        return sql.SQL(_LOCK).format(
            touched=self._touched(), table=self.table, key=listed(self.key), parts=listed(self.parts)
        )

    def _surplus(self, *, lock: bool) -> sql.Composed:
        keepers = (
            sql.SQL("pg_catalog.first_value({}) OVER best AS {}").format(part, keeper)
            for part, keeper in zip(self.parts, numbered("keeper", self.size), strict=True)
        )
        return sql.SQL(_SURPLUS).format(
            touched=self._touched(),
            candidates=candidates(self.plan),
            key=listed(self.key),
            parts=listed(self.parts),
            lock=sql.SQL(" FOR UPDATE" if lock else ""),
            keepers=listed(keepers),
            windows=windows(self.plan),
            same=same("ranked", "requested", self.size),
        )

    def surplus(self) -> sql.Composed:
        """Read the requested rows that are still surplus, without a lock."""
        return sql.SQL("{} SELECT {} FROM surplus").format(self._surplus(lock=False), text_array(self.parts))

    def removal(self) -> sql.Composed:
        """Lock, rank, delete and archive in one statement; returns the primary keys of the rows that went."""
        matches = (sql.SQL("{} = surplus.{}").format(*pair) for pair in zip(self.key, self.parts, strict=True))
        return sql.SQL(_REMOVAL).format(
            surplus=self._surplus(lock=True),
            table=self.table,
            matches=sql.SQL(" AND ").join(matches),
            key=text_array(self.key),
            keeper=text_array(numbered("keeper", self.size)),
            image=archive.image(list(self.columns), sql.Identifier(self.plan.table), "names"),
            hash=archive.sha256(sql.SQL("row")),
        )
