"""Surplus rows of an "at most one" rule: find them, and remove exactly the reviewed ones into the archive.

Only rows inside the plan's predicate are ever candidates: history is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from . import archive
from .database import Connection
from .errors import OperatorError
from .plan import Plan
from .ranking import Removing, candidates, keys, numbered, parameters, requested_rows, same, text_array, windows
from .references import Reference, count_references, foreign_keys, refuse_referenced
from .table import READING, WRITING, Column, Cursor, Row, columns_of, predicate_sql, table_name, transaction


@dataclass(frozen=True)
class Group:
    """Rows that share a key. ``keep`` and ``surplus`` hold the text of the primary key's and the shown columns."""

    key: dict[str, str | None]
    keep: dict[str, str | None]
    surplus: list[dict[str, str | None]]


@dataclass(frozen=True)
class Report:
    """What there is to clean up, as of one snapshot. ``groups`` may be truncated; ``rows`` and the counts never are."""

    groups: list[Group]
    truncated: bool
    group_count: int
    row_count: int
    rows: list[Row]
    digest: str
    referenced: list[Reference]
    open_total: int


@dataclass(frozen=True)
class Removal:
    """What was removed, or in check mode would be, and what is left by now."""

    removed: list[Row]
    archived: int
    kept_meanwhile: list[Row]  # requested, still in the table, no longer surplus
    gone_meanwhile: list[Row]  # requested, no longer in the table
    groups_left: int
    rows_left: int
    groups: list[Group]  # as they were before
    statements: list[str]


def digest(rows: Iterable[Sequence[str]]) -> str:
    """SHA-256 over the sorted primary keys: names one exact set of rows, whatever their order."""
    lines = sorted(json.dumps(list(row), ensure_ascii=False) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def report(connection: Connection, plan: Plan, *, limit: int = 1_000) -> Report:
    """The duplicate groups, from one snapshot in a read-only transaction; at most ``limit`` groups in detail."""
    with transaction(connection, READING, plan) as cursor:
        columns = columns_of(cursor, plan)
        return _report(cursor, plan, columns, limit)


def remove(
    connection: Connection,
    plan: Plan,
    *,
    rows: Iterable[Sequence[str]],
    digest: str,
    run_id: str,
    max_rows: int | None = None,
    expected_groups: int | None = None,
    expected_rows: int | None = None,
    check: bool = False,
) -> Removal:
    """Remove those of ``rows`` that are still surplus, each archived whole, in one transaction.

    The rows of the touched groups are locked first and ranked as they are under the lock. So a row completed meanwhile
    stays; and when the row to keep was completed meanwhile, the next one in the plan's order is kept in its place.
    Limits default to the plan's. Check mode runs the same query without the lock and writes nothing.
    """
    requested = sorted({tuple(row) for row in rows})
    _refuse_unreviewed(plan, requested, digest)
    ceiling = plan.ceiling if max_rows is None else max_rows
    if len(requested) > ceiling:
        raise OperatorError(
            f"{len(requested)} rows are to leave {table_name(plan)}, the ceiling is {ceiling}.",
            expected=f"at most {ceiling} rows in one run.",
            next_step="look at the report for rows that should not be in it; raise the plan's ceiling only after that.",
            rows=len(requested),
            ceiling=ceiling,
        )
    with transaction(connection, READING if check else WRITING, plan) as cursor:
        columns = columns_of(cursor, plan)
        before = _report(cursor, plan, columns, limit=1_000)
        _refuse_unexpected(
            before,
            plan.expected.groups if expected_groups is None else expected_groups,
            plan.expected.rows if expected_rows is None else expected_rows,
        )
        work = Removing(plan, columns, requested, run_id)
        if foreign_keys(cursor, plan):
            # Under the lock no new reference can come, and the next statement sees every one that came before. Only the
            # rows it has looked at may go: a row that becomes surplus after it has to wait for the next report.
            if not check:
                cursor.execute(work.lock(), work.parameters)
            surplus = _execute(cursor, work.surplus(), work)
            refuse_referenced(plan, count_references(cursor, plan, columns, surplus))
            work = Removing(plan, columns, surplus, run_id)
        statements: list[str] = []
        if requested:
            statements += archive.missing_objects(cursor) if check else archive.ensure(cursor)
        removed = _execute(cursor, work.surplus() if check else work.removal(), work) if requested else []
        rest = sorted(set(requested) - {tuple(key) for key in removed})
        kept = _still_there(cursor, plan, columns, rest)
        groups_left, rows_left = _count(cursor, plan, columns, without=removed if check else [])
        if removed:
            statements.append(work.removal().as_string(cursor))
        return Removal(
            removed=removed,
            archived=len(removed),
            kept_meanwhile=[list(row) for row in rest if row in kept],
            gone_meanwhile=[list(row) for row in rest if row not in kept],
            groups_left=groups_left,
            rows_left=rows_left,
            groups=before.groups,
            statements=statements,
        )


def _execute(cursor: Cursor, statement: sql.Composed, work: Removing) -> list[Row]:
    cursor.execute(statement, work.parameters)
    return sorted(key for (key,) in cursor.fetchall())


def _refuse_unreviewed(plan: Plan, requested: Sequence[tuple[str, ...]], reviewed: str) -> None:
    seen = digest(requested)
    if seen != reviewed:
        raise OperatorError(
            f"The {len(requested)} given rows have digest {seen[:12]}, the reviewed report has {reviewed[:12]}.",
            expected="exactly the rows that were reviewed.",
            next_step="make the report again, review it, and give its rows and its digest together.",
            digest=seen,
            reviewed=reviewed,
        )
    if any(len(row) != len(plan.primary_key) for row in requested):
        raise OperatorError(
            f"A given row does not have the {len(plan.primary_key)} parts of a primary key of {table_name(plan)}.",
            expected=f"for each row a list: {', '.join(plan.primary_key)}.",
            next_step="give the rows of a report made with this plan.",
        )
    if plan.surplus.action != "delete":
        raise _unsupported(plan, "action", plan.surplus.action, "delete")
    if plan.surplus.references != "stop":
        raise _unsupported(plan, "references", plan.surplus.references, "stop")


def _unsupported(plan: Plan, key: str, seen: str, supported: str) -> OperatorError:
    return OperatorError(
        f"Plan {plan.id}: surplus.{key} is {seen}, which this version cannot do.",
        expected=f"surplus.{key}: {supported}.",
        next_step=f"change surplus.{key} in plans/{plan.id}.yml, or bring these rows in order by hand.",
        plan=plan.id,
        key=f"surplus.{key}",
    )


def _refuse_unexpected(found: Report, groups: int | None, rows: int | None) -> None:
    for what, seen, expected in (("groups", found.group_count, groups), ("surplus rows", found.row_count, rows)):
        if expected is not None and seen > expected:
            raise OperatorError(
                f"{seen} {what} found, {expected} expected: {seen - expected} more than when the plan was written.",
                expected=f"at most {expected} {what}.",
                next_step="find out where the others come from; then correct the plan's expected figures, or clean up.",
                found={"groups": found.group_count, "rows": found.row_count},
                expected_counts={"groups": groups, "rows": rows},
            )


# Groups beyond the limit come without their texts: the exact list of rows is needed, their contents are not.
_REPORT = """
SELECT number, place, {key}, CASE WHEN number <= %(limit)s THEN {group} END,
    CASE WHEN number <= %(limit)s THEN described END
FROM (
    SELECT sized.*, pg_catalog.dense_rank() OVER (ORDER BY {keys}) AS number
    FROM (
        SELECT c.*, pg_catalog.row_number() OVER best AS place, pg_catalog.count(*) OVER (PARTITION BY {keys}) AS size
        FROM ({candidates}) AS c {windows}
    ) AS sized WHERE size > 1
) AS numbered WHERE place > 1 OR number <= %(limit)s ORDER BY number, place"""

_COUNT = """
WITH gone AS MATERIALIZED ({gone})
SELECT pg_catalog.count(*), coalesce(pg_catalog.sum(size - 1), 0)::bigint
FROM (
    SELECT pg_catalog.count(*) AS size FROM ({candidates}) AS c
    WHERE NOT EXISTS (SELECT FROM gone WHERE {same}) GROUP BY {keys} HAVING pg_catalog.count(*) > 1
) AS sized"""


def _report(cursor: Cursor, plan: Plan, columns: Mapping[str, Column], limit: int) -> Report:
    described = list(dict.fromkeys([*plan.primary_key, *plan.show]))
    texts = text_array(sql.Identifier(plan.table, name) for name in described)
    cursor.execute(
        sql.SQL(_REPORT).format(
            key=text_array(numbered("p", len(plan.primary_key))),
            group=text_array(numbered("k", len(plan.key))),
            keys=keys(plan),
            candidates=candidates(plan, sql.SQL("{} AS described").format(texts)),
            windows=windows(plan),
        ),
        {"limit": limit},
    )
    groups: dict[int, Group] = {}
    rows: list[Row] = []
    last = 0
    for last, place, primary_key, key, texts_of_row in cursor.fetchall():
        if place > 1:
            rows.append(primary_key)
        if texts_of_row is None:
            continue
        row = dict(zip(described, texts_of_row, strict=True))
        if place == 1:
            groups[last] = Group(dict(zip(plan.key, key, strict=True)), row, [])
        else:
            groups[last].surplus.append(row)
    rows.sort()
    cursor.execute(
        sql.SQL("SELECT pg_catalog.count(*) FROM {} WHERE {}").format(
            sql.Identifier(plan.schema, plan.table), predicate_sql(plan)
        ),
        (),
    )
    ((open_total,),) = cursor.fetchall()
    return Report(
        groups=list(groups.values()),
        truncated=last > limit,
        group_count=last,
        row_count=len(rows),
        rows=rows,
        digest=digest(rows),
        referenced=count_references(cursor, plan, columns, rows),
        open_total=open_total,
    )


def _count(cursor: Cursor, plan: Plan, columns: Mapping[str, Column], without: Collection[Row]) -> tuple[int, int]:
    """Duplicate groups and surplus rows, as if the rows ``without`` had gone."""
    cursor.execute(
        sql.SQL(_COUNT).format(
            gone=requested_rows(plan, columns),
            candidates=candidates(plan),
            same=same("c", "gone", len(plan.primary_key)),
            keys=keys(plan),
        ),
        parameters(plan, without),
    )
    ((groups, rows),) = cursor.fetchall()
    return groups, rows


def _still_there(
    cursor: Cursor, plan: Plan, columns: Mapping[str, Column], rows: Collection[tuple[str, ...]]
) -> set[tuple[str, ...]]:
    table = sql.Identifier(plan.table)
    parts = numbered("p", len(plan.primary_key))
    own = [sql.SQL("{}.{}").format(table, sql.Identifier(name)) for name in plan.primary_key]
    cursor.execute(
        sql.SQL("SELECT {} FROM {} JOIN ({}) AS requested ON {}").format(
            text_array(own),
            sql.Identifier(plan.schema, plan.table),
            requested_rows(plan, columns),
            sql.SQL(" AND ").join(sql.SQL("{} = requested.{}").format(*pair) for pair in zip(own, parts, strict=True)),
        ),
        parameters(plan, rows),
    )
    return {tuple(key) for (key,) in cursor.fetchall()}
