"""Which deployment a rollback takes back: read from the journal's runs, pure and without a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Run = Mapping[str, Any]  # as journal.read returns it


@dataclass(frozen=True)
class Deployment:
    """The last deployment that has not been taken back."""

    runs: tuple[str, ...]  # newest first: a run that stopped and those that went on with the same commit
    commit_before: str
    commit_after: str
    database: bool  # whether any of the runs touched rows or indexes


def last_deployment(runs: Sequence[Run]) -> Deployment | None:
    """The newest runs that changed something for one and the same commit, or None when there are none.

    ``runs`` is the plan's journal, newest first. What lies behind a rollback has been taken back; runs that were
    refused, that only prepared or that found nothing to do have nothing to take back.
    """
    unit: list[Run] = []
    for run in runs:
        if run["outcome"] == "rolled_back":
            break
        if not _changed_something(run):
            continue
        if unit and run["commit_after"] != unit[-1]["commit_after"]:
            break
        unit.append(run)
    if not unit:
        return None
    return Deployment(
        runs=tuple(run["run_id"] for run in unit),
        commit_before=unit[-1]["commit_before"],
        commit_after=unit[-1]["commit_after"],
        database=any(run["outcome"] == "abandoned" or _touched(run, "cleanup", "migrate") for run in unit),
    )


def _changed_something(run: Run) -> bool:
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
