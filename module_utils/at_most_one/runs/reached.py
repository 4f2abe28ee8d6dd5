"""What a run, or the last deployment, has changed so far: read from the journal, the catalog and the archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..plan import Plan
from ..postgres import catalog_snapshot
from ..postgres.connection import Connection
from . import journal, run_status, undo


def read(connection: Connection, plan: Plan, run_id: str | None = None) -> dict[str, Any]:
    """What ``run_id`` has changed, with the unfinished runs that it goes on from; without it, the last deployment."""
    runs = journal.read(connection, limit=10_000)
    ours = [run for run in runs if run["plan_id"] == plan.id]
    found = _deployment(ours, run_id)
    deployed = [run for run in ours if found and run["run_id"] in found.runs]
    before = journal.before(connection, found.runs[-1]) if found else None
    change = asdict(catalog_snapshot.changed_since(before, catalog_snapshot.take(connection, plan), plan))
    if not before and not (found and found.database):
        change["built"] = ()  # nothing says that what is there now was not there before
    content = catalog_snapshot.content(connection, plan, found.runs if found else None)
    rows = run_status.rows_of(connection, sorted(undo.taken_back(ours)))
    left = undo.left_behind(ours, {name: of["archived"] for name, of in rows.items()})
    begun = run_status.rows_of(connection, undo.begun_before(ours))
    nothing = {"runs": (), "commit_before": None, "commit_after": None, "database": False}
    return {
        **(asdict(found) if found else nothing),
        **change,
        "hosts": (before or {}).get("hosts", {}),
        "content": asdict(content),
        "point": "migration" if change["built"] or change["applied"] else "rows" if content.pending else "nothing",
        "left_behind": {"runs": left, "content": asdict(catalog_snapshot.content(connection, plan, left))},
        "begun_before": {name: of["archived"] for name, of in sorted(begun.items()) if of["archived"]},
        "unplanned": _unplanned(connection, plan, deployed, change["kept"]),
        "purged": [purged for run in deployed if (purged := run_status.purged(run))],
        "in_the_way": undo.in_the_way(runs, plan.id, found),
        "at_work": [run["run_id"] for run in ours if run["outcome"] is None],
    }


def objects_changed(connection: Connection, plan: Plan, run_id: str | None = None) -> catalog_snapshot.Change:
    """Of that what has happened to the plan's objects: no row of the table or the archive is read for it."""
    found = _deployment(journal.read(connection, plan_id=plan.id, limit=10_000), run_id)
    before = journal.before(connection, found.runs[-1]) if found else None
    return catalog_snapshot.changed_since(before, catalog_snapshot.take(connection, plan), plan)


def _unplanned(
    connection: Connection, plan: Plan, deployed: Sequence[Mapping[str, Any]], kept: Sequence[str]
) -> list[str]:
    """The indexes that these runs have verified as theirs, that are still there, and that the plan names no more."""
    verified = {
        index["name"]
        for run in deployed
        for phase in run["phases"]
        if phase["name"] == "verify"
        for index in phase["details"].get("indexes") or ()
        if index["verdict"] == "present"
    }
    names = verified - {*kept, *(index.name for index in plan.indexes)}
    return catalog_snapshot.indexes_there(connection, plan.schema, sorted(names)) if names else []


def _deployment(ours: Sequence[Mapping[str, Any]], run_id: str | None) -> undo.Deployment | None:
    return undo.reached_by(ours, run_id) if run_id else undo.last_deployment(ours)
