"""What looks of the monitor have read: all well, the newest run stopped or rolled back, a finding, nothing readable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from at_most_one.findings import Finding
from at_most_one.monitoring.page import document, page

from tests.support.report_cases import AFTER, BEFORE, HOSTILE, ROOT

PLAN_FILE = ROOT / "plans/one-active-inspection-session.yml"


def _index(name: str, planned: bool, advice: str, scans: int) -> dict[str, Any]:
    return {
        **{"name": name, "table": "t", "planned": planned, "scans": scans, "bytes": 81_920, "days": 31.0},
        **{"hit_percent": None if not scans else 99.8, "bloat_percent": 12 if scans else None, "advice": advice},
    }


INDEXES = [
    _index("idx_inspection_sessions_active_session_per_equipment", True, "rule", 120_411),
    _index("idx_inspection_schedules_equipment_date", True, "fine", 8_233),
    _index("idx_inspection_schedules_active", True, "wait", 0),
    _index(f"idx_{HOSTILE}", False, "unused", 0),
    _index("inspection_sessions_pkey", False, "rule", 44_112),
]


def _history(*duplicates: int | None) -> list[dict[str, Any]]:
    first = datetime(2025, 11, 10, 7, 30, tzinfo=UTC)
    days = [(first + timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%SZ") for number in range(len(duplicates))]
    return [{"at": at, "duplicates": many} for at, many in zip(days, duplicates, strict=True)]


def _run(outcome: str | None, day: int) -> dict[str, Any]:
    who = f"deploy{HOSTILE}"
    started = f"2025-11-{day:02}T05:30:00.000Z"
    return {"outcome": outcome, "commit_before": BEFORE, "commit_after": AFTER, "who": who, "started_at": started}


def _case(
    found: dict[str, dict[str, str]], course: list[dict[str, Any]], serves: dict[str, Any], **read: Any
) -> dict[str, Any]:
    """What the role has when it draws: ``found``, each with since when; ``read`` of the database and the service."""
    facts = {
        **{"environment": "production", "plan": "one-active-inspection-session", "min_instances": 2},
        "service": {"checks": [{"name": "monitoring", "ok": True}]},
        "hosts": {"web1": serves},
        **{name: value for name, value in read.items() if name == "service"},
        "database": {**DATABASE, **{name: value for name, value in read.items() if name != "service"}},
    }
    findings = [Finding(**one) for one in found.values()]
    since = dict(zip([one.name for one in findings], found, strict=True))
    return {
        "environment_name": "production",
        "app_name": "aedpics",
        "run_inputs": {"plan": yaml.safe_load(PLAN_FILE.read_text()), "tenant": ""},
        "project_artifacts": str(ROOT / "artifacts"),
        "__monitor_report": {
            **{"since": since, "before": {}},
            **{"document": document(facts, findings, since, "en"), "page": page(facts, course)},
        },
    }


RUNS = [_run("deployed", 12), _run("stopped", 11), _run("rolled_back", 10), _run(None, 9)]
OVERDUE = {"plan_id": HOSTILE, "rows": 25, "runs": 1}
DATABASE: dict[str, Any] = {
    "verified": {"duplicates_left": 0, "indexes": []},
    "fence": {"state": "lowered"},
    "history": {"verdict": "applied"},
    "use": {"indexes": INDEXES},
    "journal": {
        "runs": RUNS,
        "archive": {"keep_days": 90, "bytes": 65_536, "rows": 50, "oldest_days": 300.5, "overdue": [OVERDUE]},
    },
}
NOT_OVERDUE = {"runs": RUNS, "archive": {**DATABASE["journal"]["archive"], "overdue": []}}
SERVES = {"commit": AFTER, "pm2": {"instances": [{"status": "online"}, {"status": "errored"}]}}
BAD_FINDING = {"name": "index:x", "seen": f"Index {HOSTILE} is missing.", "expected": "it.", "next_step": "build it."}
FENCE_FINDING = {
    "name": "fence",
    "seen": "The write fence stands although no run is at work.",
    "expected": "it lowered, or a run that goes on.",
    "next_step": "run the same deployment again, or take it back.",
}
GONE = {"msg": "gone"}
CASES: dict[str, dict[str, Any]] = {
    "good": _case({}, _history(*[10] * 5, 3, *[0] * 20), SERVES),
    "bad": _case(
        {"2025-11-20T07:30:00Z": BAD_FINDING},
        _history(0, 0, 2),
        SERVES,
        verified={"duplicates_left": 2, "indexes": []},
        service={"checks": [{"name": "monitoring", "ok": False}]},
        journal=NOT_OVERDUE,
    ),
    # The newest run came to nothing: the rule holds half, and a person has to go on.
    "stopped": _case(
        {"2025-11-13T07:30:00Z": FENCE_FINDING, "2025-11-13T07:31:00Z": BAD_FINDING},
        _history(*[10] * 5, *[0] * 3),
        SERVES,
        fence={"state": "raised"},
        journal={**NOT_OVERDUE, "runs": [_run("stopped", 13), *RUNS]},
    ),
    # The newest run was taken back, and the duplicates are there again.
    "rolled_back": _case(
        {"2025-11-13T07:30:00Z": BAD_FINDING},
        _history(*[0] * 8, 10, 10),
        {"commit": BEFORE, "pm2": {"instances": [{"status": "online"}] * 2}},
        verified={"duplicates_left": 10, "indexes": []},
        history={"verdict": "rolled_back"},
        use={"indexes": INDEXES[3:]},
        journal={**NOT_OVERDUE, "runs": [_run("rolled_back", 13), *RUNS]},
    ),
    # Nothing could be read, and this is the first look.
    "blind": _case(
        {"2025-11-20T07:30:00Z": {**BAD_FINDING, "name": "database"}},
        _history(None),
        {"commit": "", "pm2": GONE},
        **dict.fromkeys(("verified", "fence", "history", "use", "journal", "service"), GONE),
    ),
}
