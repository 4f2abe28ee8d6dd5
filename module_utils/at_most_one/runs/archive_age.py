"""How old the archived rows of each run are, and why those of a run are still needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg2.extras import RealDictCursor

from ..errors import OperatorError
from ..findings import observed, say
from ..postgres import own_schema
from ..postgres.connection import Connection
from . import journal, run_status, undo

# Both tables hold values of rows: the removed ones whole, of the others what referred to these.
_ARCHIVED = """
SELECT plan_id, run_id, count(*) FILTER (WHERE whole)::integer AS rows,
       count(*) FILTER (WHERE whole AND restored_at IS NULL)::integer AS pending,
       count(*) FILTER (WHERE whole AND restored_at IS NOT NULL)::integer AS restored,
       count(*) FILTER (WHERE NOT whole)::integer AS repointed,
       sum(bytes)::bigint AS bytes,
       (extract(epoch FROM clock_timestamp() - max(at)) / 86400)::float8 AS age_days,
       (extract(epoch FROM clock_timestamp() - min(at)) / 86400)::float8 AS oldest_days
FROM (
    SELECT plan_id, run_id, restored_at, archived_at AS at, pg_catalog.pg_column_size(a.*) AS bytes, true AS whole
    FROM at_most_one.archived_row AS a
    UNION ALL
    SELECT plan_id, run_id, restored_at, repointed_at, pg_catalog.pg_column_size(r.*), false
    FROM at_most_one.repointed_row AS r
) AS kept
WHERE %(plan_id)s::text IS NULL OR plan_id = %(plan_id)s
GROUP BY plan_id, run_id
"""
_BEGAN = """
SELECT run_id, (extract(epoch FROM clock_timestamp() - started_at) / 86400)::float8 AS age_days
FROM at_most_one.run WHERE plan_id = %s"""
_SIZE = """
SELECT sum(pg_catalog.pg_total_relation_size(c.oid))::bigint FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'at_most_one' AND c.relname IN ('archived_row', 'repointed_row')"""


@dataclass(frozen=True)
class KeptRun:
    """What is kept of a run. ``why`` it stays: open, rollback, left_behind, half_restored, every_run, never, young;
    empty when it is past its time."""

    run_id: str
    plan_id: str
    environment: str  # empty when the run is not in the journal any more
    outcome: str | None
    started_at: str
    rows: int
    repointed: int  # rows that referred to these: what was in them before
    bytes: int
    age_days: float  # since its newest row was archived, or since it began where it has none
    why: str
    purged: Mapping[str, Any] | None  # what an earlier purge has removed of it

    @property
    def goes(self) -> bool:
        """Whether a purge removes anything of it from the archive."""
        return bool(self.rows or self.repointed) and not self.why

    def public(self) -> dict[str, Any]:
        """As a module returns it."""
        return {**asdict(self), "age_days": round(self.age_days, 1)}


def require_days(keep_days: int) -> None:
    """Raise OperatorError for a negative number of days."""
    if keep_days < 0:
        raise OperatorError(
            observed("AMO-2201", "archive_keep_days is {keep_days}.", keep_days=keep_days),
            expected=say("a number of days, or 0 to keep archived rows for ever."),
            next_step=say("correct archive_keep_days of this inventory, or leave it out."),
        )


def kept_runs(connection: Connection, plan_id: str, keep_days: int) -> list[KeptRun]:
    """Every run of the plan, newest first, and after them those of which only rows are left."""
    require_days(keep_days)
    runs = journal.read(connection, plan_id=plan_id, limit=10_000)
    archived = {row["run_id"]: row for row in _archived(connection, plan_id)}
    with connection.cursor() as cursor:
        cursor.execute(_BEGAN, (plan_id,))
        ages = dict(cursor.fetchall())
    return _judged(runs, archived, ages, plan_id, keep_days)


def summary(connection: Connection, keep_days: int) -> dict[str, Any] | None:
    """The archive as a whole and by plan: its size, its oldest row, what purge.yml would remove.

    ``None`` where there is no archive of this release yet.
    """
    require_days(keep_days)
    if own_schema.missing(connection):
        return None
    rows = _archived(connection, None)
    with connection.cursor() as cursor:
        cursor.execute(_SIZE)
        ((size,),) = cursor.fetchall()
    plans = []
    for plan_id in sorted({row["plan_id"] for row in rows}):
        kept = kept_runs(connection, plan_id, keep_days)
        overdue = [one for one in kept if one.goes]
        plans.append({"plan_id": plan_id, "rows": sum(one.rows for one in overdue), "runs": len(overdue)})
    oldest = max((row["oldest_days"] for row in rows), default=None)
    return {
        "keep_days": keep_days,
        "bytes": int(size or 0),
        "rows": sum(row["rows"] for row in rows),
        "oldest_days": None if oldest is None else round(oldest, 1),
        "overdue": [plan for plan in plans if plan["runs"]],
    }


def _archived(connection: Connection, plan_id: str | None) -> list[dict[str, Any]]:
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(_ARCHIVED, {"plan_id": plan_id})
        return [dict(row) for row in cursor.fetchall()]


def _judged(
    runs: Sequence[Mapping[str, Any]],
    archived: Mapping[str, Mapping[str, Any]],
    ages: Mapping[str, float],
    plan_id: str,
    keep_days: int,
) -> list[KeptRun]:
    needed = undo.needed_by_rollback(
        runs,
        {name: row["pending"] for name, row in archived.items()},
        {name: row["restored"] for name, row in archived.items()},
    )
    known = {run["run_id"]: run for run in runs if not undo.is_purge(run)}
    kept = []
    for name in [*known, *sorted(set(archived) - {run["run_id"] for run in runs})]:
        run, row = known.get(name, {}), archived.get(name, {})
        age_days = row["age_days"] if row else ages[name]
        why = needed.get(name) or ("never" if not keep_days else "young" if age_days < keep_days else "")
        kept.append(
            KeptRun(
                *(name, plan_id, run.get("environment") or "", run.get("outcome"), run.get("started_at") or ""),
                *(row.get("rows", 0), row.get("repointed", 0), row.get("bytes", 0), age_days, why),
                run_status.purged(run) if run else None,
            )
        )
    return kept
