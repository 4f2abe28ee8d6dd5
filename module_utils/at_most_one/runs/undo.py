"""Which deployment a rollback takes back: read from the journal's runs, pure and without a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Run = Mapping[str, Any]  # as journal.read returns it
PURGE = "purge"  # the phase of a run that removes archived rows; "purged" is that of a run whose rows it removes


@dataclass(frozen=True)
class Deployment:
    """A deployment that has not been taken back."""

    runs: tuple[str, ...]  # newest first: a run that stopped and those that went on with the same commit
    commit_before: str
    commit_after: str
    database: bool  # whether any of the runs touched rows or indexes


def last_deployment(runs: Sequence[Run]) -> Deployment | None:
    """The newest runs that changed something for one and the same commit, or None when there are none.

    ``runs`` is the plan's journal, newest first. Runs that were taken back before, that were refused, that only
    prepared or that found nothing to do have nothing to take back.
    """
    unit: list[Run] = []
    taken_back: set[str] = set()
    for run in runs:
        if run["outcome"] == "rolled_back":
            named = _taken_back_by(run)
            if unit or named is None:
                break
            taken_back |= named
        elif run["run_id"] in taken_back or not _changed_something(run):
            continue
        elif unit and run["commit_after"] != unit[-1]["commit_after"]:
            break
        else:
            unit.append(run)
    return _deployment(unit) if unit else None


def reached_by(runs: Sequence[Run], run_id: str) -> Deployment | None:
    """What this run, still open, has begun, with the unfinished runs that it goes on from; None when it is not there.

    A run goes on from one that stopped or was abandoned on the way to the same commit. It does not from a deployment
    that was completed: what that one built is not this run's to take back.
    """
    position = next((number for number, run in enumerate(runs) if run["run_id"] == run_id), None)
    if position is None:
        return None
    unit = [runs[position]]
    for run in runs[position + 1 :]:
        if run["outcome"] in ("deployed", "rolled_back") or _was_found_complete(run):
            break
        if not _changed_something(run):
            continue
        if run["commit_after"] != unit[0]["commit_after"]:
            break
        unit.append(run)
    return _deployment(unit)


def faults_before(runs: Sequence[Run], run_id: str) -> dict[str, list[int]]:
    """The faults of the release that ran before this run and the unfinished ones that it goes on from.

    The oldest answer counts: the release that runs now may be one that such a run has brought.
    """
    found = reached_by(runs, run_id)
    ours = [run for run in runs if found and run["run_id"] in found.runs]
    details = [phase["details"] or {} for run in ours for phase in run["phases"]]
    return {check: statuses for one in details for check, statuses in (one.get("faults_before") or {}).items()}


def taken_back(runs: Sequence[Run]) -> set[str]:
    """Every run that a rollback has taken back: what it archived belongs in the table, not in the archive."""
    return {name for run in runs if run["outcome"] == "rolled_back" for name in _taken_back_by(run) or ()}


def left_behind(runs: Sequence[Run], pending: Mapping[str, int]) -> list[str]:
    """The runs that were taken back and have rows that are not back yet; ``pending`` counts those by run.

    ``-e rollback_only_rows=true`` puts them back.
    """
    return sorted(name for name in taken_back(runs) if pending.get(name))


def whose_rows(runs: Sequence[Run]) -> tuple[str, ...] | None:
    """The runs whose archived rows rollback.yml would put back now; None is every run of the plan."""
    last = last_deployment(runs)
    return last.runs if last else None


def begun_before(runs: Sequence[Run]) -> tuple[str, ...]:
    """The runs before the last deployment that were on the way to another commit and did not get there, newest first.

    What they have archived is not the last deployment's: rollback.yml puts it back when it is called again.
    """
    found: list[str] = []
    last = last_deployment(runs)
    while last:
        runs = [{"run_id": "", "outcome": "rolled_back", "phases": [{"details": {"runs": last.runs}}]}, *runs]
        last = last_deployment(runs)
        if last is None or any(run["outcome"] == "deployed" for run in runs if run["run_id"] in last.runs):
            break
        found += last.runs
    return tuple(found)


def needed_by_rollback(runs: Sequence[Run], pending: Mapping[str, int], restored: Mapping[str, int]) -> dict[str, str]:
    """Why the archived rows of a run are still needed, by run: what a rollback may yet put back is not purged.

    ``runs`` is the plan's journal, newest first; ``pending`` counts each run's archived rows that are not back,
    ``restored`` those that are.
    """
    found: dict[str, str] = {}
    found.update((name, "half_restored") for name, rows in pending.items() if rows and restored.get(name))
    wanted = whose_rows(runs)
    found.update((name, "every_run") for name, rows in pending.items() if rows and wanted is None)
    found.update((name, "left_behind") for name in left_behind(runs, pending))
    found.update((name, "rollback") for name in (*(wanted or ()), *begun_before(runs)))
    found.update((run["run_id"], "open") for run in runs if run["outcome"] is None)
    return found


def is_purge(run: Run) -> bool:
    """Whether this run is one of purge.yml, which changes nothing that a rollback takes back."""
    return any(phase["name"] == PURGE for phase in run.get("phases") or ())


def in_the_way(runs: Sequence[Run], plan_id: str, deployment: Deployment | None) -> list[str]:
    """The runs of other plans that need what a rollback of this deployment would take back.

    ``runs`` is the whole journal, newest first. In the way are those at work, and deployments that came later and
    brought another commit: they serve on top of this one.
    """
    others = [run for run in runs if run["plan_id"] != plan_id]
    found = [run["run_id"] for run in others if run["outcome"] is None]
    age = {run["run_id"]: number for number, run in enumerate(runs)}
    for other_plan in sorted({run["plan_id"] for run in others}):
        last = last_deployment([run for run in others if run["plan_id"] == other_plan])
        if deployment and last and last.commit_after != deployment.commit_after:
            found += [last.runs[0]] if age[last.runs[0]] < age[deployment.runs[0]] else []
    return found


def _deployment(unit: Sequence[Run]) -> Deployment:
    return Deployment(
        runs=tuple(run["run_id"] for run in unit),
        commit_before=unit[-1]["commit_before"],
        commit_after=unit[-1]["commit_after"],
        database=any(run["outcome"] == "abandoned" or _touched(run, "cleanup", "migrate") for run in unit),
    )


def _taken_back_by(run: Run) -> set[str] | None:
    """The runs that a rollback has taken back; None when it did not say, which then means everything before it."""
    said = [phase["details"]["runs"] for phase in run["phases"] if "runs" in (phase.get("details") or {})]
    return {name for names in said for name in names} if said else None


def _was_found_complete(run: Run) -> bool:
    """Whether a run that had nothing to do has proven a deployment: it went as far as the last phase."""
    return run["outcome"] == "unchanged" and any(
        phase["name"] == "healthcheck" and phase["status"] in ("ok", "unchanged") for phase in run["phases"]
    )


def _changed_something(run: Run) -> bool:
    if is_purge(run):
        return False
    if run["outcome"] == "abandoned":  # nobody recorded where it died: what it changed is for the catalog to say
        return True
    return run["outcome"] in ("deployed", "stopped") and _touched(run, "cleanup", "migrate", "pm2_reload")


def _touched(run: Run, *names: str) -> bool:
    """Whether one of these phases did something; a failed clean-up only if it had removed rows by then."""
    return any(
        phase["status"] == "ok"
        or (
            phase["status"] == "failed"
            and (phase["name"] != "cleanup" or (phase.get("details") or {}).get("removed", 0))
        )
        for phase in run["phases"]
        if phase["name"] in names
    )
