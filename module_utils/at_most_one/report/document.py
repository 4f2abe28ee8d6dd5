"""Build report.json: the contract that scripts read, and README names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .facts import RunFacts, pick


def document(run: RunFacts) -> dict[str, Any]:
    """Return report.json of a run, at work or ended."""
    verified = verification(run)
    return {
        "run_id": run.run_id,
        "environment": run.environment,
        "plan": {"id": run.plan["id"], "sha256": run.plan_sha256},
        "commit": {"before": run.commit_before, "after": run.rollback.commit or run.commit_after},
        "outcome": run.outcome,
        "check_mode": run.check_mode,
        "who": run.who,
        "asked": list(run.asked) if run.partial else None,  # the phases that a run with --tags was asked for
        "failed_phase": run.failed_phase,
        "error": run.error,
        "findings": pick(run.causes, "identifier", "seen", "expected", "next_step", "english"),
        "afterwards": pick(run.afterwards, "text", "english"),
        "phases": run.answer.get("phases", []),
        "cleanup": _cleanup(run),
        "restored": _restored(run),
        "indexes": pick(verified.get("indexes", []), "name", "verdict"),
        "duplicates_left": verified.get("duplicates_left"),
        "traffic": {
            **{name: run.traffic.get(name, 0) for name in ("requests", "failures", "longest_gap_ms")},
            **{name: run.traffic.get(name) for name in ("rate_per_s", "p50_before_ms", "p50_ms")},
        },
        "checks": [_without_phrases(one) for one in run.checks],
        "known_faults": [_without_phrases(one) for one in run.known_faults],
        "instances": pick(
            run.rollback.instances if run.rollback.commit else run.instances,
            *("host", "pm_id", "old_pid", "new_pid"),
        ),
        "taken_back_by": None,  # the run that takes this one back later writes its name here
    }


def _without_phrases(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "phrases"}


def verification(run: RunFacts) -> Mapping[str, Any]:
    """What verify, or the rollback, read last; a verify that stopped has it among the details of its error."""
    last = run.rollback.done or run.verified
    details: Mapping[str, Any] = last.get("details", last)
    return details


def _cleanup(run: RunFacts) -> dict[str, Any]:
    written: Mapping[str, Any] = {} if run.check_mode else run.cleanup
    return {
        # The clean-up that stopped before it removed a row has found them all the same.
        "groups": run.cleanup.get("groups", run.found.get("group_count", 0)),
        "planned": run.cleanup.get("planned", run.found.get("row_count", 0)),
        "removed": written.get("removed", 0),
        "archived": written.get("archived", 0),
        "unarchived": written.get("unarchived", []),
    }


def _restored(run: RunFacts) -> dict[str, Any]:
    """What came back of the archived rows, and what could not: its count, and why, by table."""
    return {
        "rows": run.rollback.restored,
        "left": run.rollback.left_count if run.rolled_back else 0,
        "why": pick(run.rollback.left if run.rolled_back else (), "table", "reason", "name", "count"),
    }
