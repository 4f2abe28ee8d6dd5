"""What looks of the monitor have read: all well, the newest run stopped or rolled back, a finding, nothing readable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.report_cases import AFTER, BEFORE, HOSTILE, ROOT


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


WARNING = {
    "name": "archive:p",
    "seen": f"The archive holds 25 rows of {HOSTILE}.",
    "expected": "none.",
    "next_step": "purge.",
}
GOOD: dict[str, Any] = {
    "environment_name": "production",
    "app_name": "aedpics",
    "app_min_instances": 2,
    "plan": "one-active-inspection-session",
    "project_path": str(ROOT),
    "__monitor_verified": {"duplicates_left": 0, "indexes": []},
    "__monitor_fence": {"state": "lowered"},
    "__monitor_history": {"verdict": "applied"},
    "__monitor_use": {"indexes": INDEXES},
    "__monitor_journal": {
        "runs": [_run("deployed", 12), _run("stopped", 11), _run("rolled_back", 10), _run(None, 9)],
        "archive": {"keep_days": 90, "bytes": 65_536, "rows": 50, "oldest_days": 300.5, "overdue": []},
    },
    "__monitor_service": {"checks": [{"name": "monitoring", "ok": True}]},
    "__monitor_report": {
        **{"findings": [], "since": {}, "advice": [WARNING]},
        "history": _history(*[10] * 5, 3, *[0] * 20),
    },
    "host_serves": {"commit": AFTER, "pm2": {"instances": [{"status": "online"}, {"status": "errored"}]}},
}
BAD_FINDING = {"name": "index:x", "seen": f"Index {HOSTILE} is missing.", "expected": "it.", "next_step": "build it."}
FENCE_FINDING = {
    "name": "fence",
    "seen": "The write fence stands although no run is at work.",
    "expected": "it lowered, or a run that goes on.",
    "next_step": "run the same deployment again, or take it back.",
}
CASES: dict[str, dict[str, Any]] = {
    "good": GOOD,
    "bad": {
        **GOOD,
        "__monitor_verified": {"duplicates_left": 2, "indexes": []},
        "__monitor_service": {"checks": [{"name": "monitoring", "ok": False}]},
        "__monitor_report": {
            "findings": [BAD_FINDING],
            "since": {"index:x": "2025-11-20T07:30:00Z"},
            "advice": [],
            "history": _history(0, 0, 2),
        },
    },
    # The newest run came to nothing: the rule holds half, and a person has to go on.
    "stopped": {
        **GOOD,
        "__monitor_fence": {"state": "raised"},
        "__monitor_journal": {"runs": [_run("stopped", 13), *GOOD["__monitor_journal"]["runs"]]},
        "__monitor_report": {
            "findings": [FENCE_FINDING, BAD_FINDING],
            "since": {"fence": "2025-11-13T07:30:00Z", "index:x": "2025-11-13T07:30:00Z"},
            "advice": [],
            "history": _history(*[10] * 5, *[0] * 3),
        },
    },
    # The newest run was taken back, and the duplicates are there again.
    "rolled_back": {
        **GOOD,
        "__monitor_verified": {"duplicates_left": 10, "indexes": []},
        "__monitor_history": {"verdict": "rolled_back"},
        "__monitor_use": {"indexes": INDEXES[3:]},
        "__monitor_journal": {"runs": [_run("rolled_back", 13), *GOOD["__monitor_journal"]["runs"]]},
        "__monitor_report": {
            "findings": [BAD_FINDING],
            "since": {"index:x": "2025-11-13T07:30:00Z"},
            "advice": [],
            "history": _history(*[0] * 8, 10, 10),
        },
        "host_serves": {"commit": BEFORE, "pm2": {"instances": [{"status": "online"}] * 2}},
    },
    # Nothing could be read, and this is the first look.
    "blind": {
        **GOOD,
        **{name: {"msg": "gone"} for name in GOOD if name.startswith("__monitor_") and name != "__monitor_report"},
        "__monitor_report": {
            "findings": [{**BAD_FINDING, "name": "database"}],
            "since": {"database": "2025-11-20T07:30:00Z"},
            "advice": [],
            "history": _history(None),
        },
        "host_serves": {"commit": "", "pm2": {"msg": "gone"}},
    },
}
