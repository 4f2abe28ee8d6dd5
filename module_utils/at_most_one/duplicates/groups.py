"""Duplicate groups as a person sees them: the row that stays, the surplus ones, each by the columns the plan shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from ..plan import Plan
from ..postgres.catalog import Column, Cursor, Row
from ..system.strict_zip import strict_zip
from . import ranking
from .ranking import parameters, requested_rows, text_array


@dataclass(frozen=True)
class Group:
    """Rows that share a key. ``keep`` and ``surplus`` hold the text of the primary key's and the shown columns."""

    key: dict[str, str | None]
    keep: dict[str, str | None]
    surplus: list[dict[str, str | None]]  # best first; may be cut
    surplus_count: int


_SHOWN = 1_000  # characters of a column: enough to know a row by, and a report of large rows can be read again


def _shown(text: str | None) -> str | None:
    return text if text is None or len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def described(
    cursor: Cursor, plan: Plan, columns: Mapping[str, Column], shown: Sequence[tuple[int, int, Row]]
) -> list[Group]:
    """The rows with their texts, by group; a row that has gone meanwhile is left out, with its group if it was kept."""
    names = list(dict.fromkeys([*plan.primary_key, *plan.show]))
    own = ranking.of(plan.table, plan.primary_key)
    cut = [
        sql.SQL("pg_catalog.left({}::text, {})").format(column, sql.Literal(_SHOWN + 1))
        for column in ranking.of(plan.table, names[len(plan.primary_key) :])
    ]
    cursor.execute(
        sql.SQL("SELECT {}, {}, {} FROM {} JOIN ({}) AS shown ON {}").format(
            text_array(own),
            text_array(ranking.of(plan.table, plan.key)),
            text_array([*own, *cut]),
            sql.Identifier(plan.schema, plan.table),
            requested_rows(plan, columns),
            ranking.equal(own, ranking.parts_of("shown", plan)),
        ),
        parameters(plan, [primary_key for _, _, primary_key in shown]),
    )
    texts = {tuple(primary_key): (key, row) for primary_key, key, row in cursor.fetchall()}
    groups: list[Group] = []
    in_group = False
    for place, size, primary_key in shown:
        found = texts.get(tuple(primary_key))
        if place == 1:
            in_group = found is not None
        if found is None or not in_group:
            continue
        row = {name: text if name in plan.primary_key else _shown(text) for name, text in strict_zip(names, found[1])}
        if place == 1:
            groups.append(Group(dict(strict_zip(plan.key, found[0])), row, [], size - 1))
        else:
            groups[-1].surplus.append(row)
    return groups
