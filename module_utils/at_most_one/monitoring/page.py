"""What the dashboard shows, and monitor.json has for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..catalogue import render, shown
from ..findings import Finding, of_answer
from ..system.commit_names import short
from .findings import Facts, is_purge, online_instances, warnings

RUNS = 30  # of the journal, newest first


def document(facts: Facts, found: Sequence[Finding], since: Mapping[str, str], language: str) -> dict[str, Any]:
    """Return monitor.json; its findings are in ``language`` and, beside it, in English."""
    database = facts["database"]
    return {
        "environment": facts["environment"],
        "plan": facts["plan"],
        "findings": [shown(one, language) for one in found],
        "since": dict(since),
        "warnings": [shown(one, language) for one in warnings(facts)],
        "archive": (database.get("journal") or {}).get("archive"),
        "duplicates": (database.get("verified") or {}).get("duplicates_left"),
        "indexes": (database.get("use") or {}).get("indexes") or [],
    }


def page(facts: Facts, history: Sequence[Mapping[str, Any]], language: str = "en") -> dict[str, Any]:
    """Return what the dashboard shows beyond that. What could not be read is None."""
    database = facts["database"]
    checks = facts["service"].get("checks") or []
    verified = database.get("verified") or {}
    return {
        "at": history[-1]["at"],
        "course": list(history),
        "api_ok": next((check["ok"] for check in checks if check["name"] == "monitoring"), None),
        "fence": (database.get("fence") or {}).get("state"),
        "history": (database.get("history") or {}).get("verdict"),
        "summary": render(of_answer(verified, "summary"), language) if "summary" in verified else None,
        "hosts": [
            {
                "name": host,
                "online": online_instances(state),
                "commit": short(state.get("commit") or "") or None,
            }
            for host, state in sorted(facts["hosts"].items())
        ],
        "runs": [_run(run) for run in ((database.get("journal") or {}).get("runs") or [])[:RUNS]],
    }


def _run(run: Facts) -> dict[str, Any]:
    """A run in one line: ``word`` is its outcome, open, dead or purge; ``colour`` good, bad or soft."""
    outcome, dead_since = run.get("outcome"), run.get("dead_since")
    went_well = outcome in ("deployed", "unchanged")
    went_badly = outcome in ("stopped", "rolled_back") or dead_since
    return {
        "started_at": _minute(run["started_at"]),
        "dead_since": _minute(dead_since or ""),
        "word": "dead" if dead_since else "purge" if is_purge(run) else outcome or "open",
        "colour": "good" if went_well else "bad" if went_badly else "soft",
        **{name: short(run.get(name) or "-") for name in ("commit_before", "commit_after")},
        "who": run["who"],
    }


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")
