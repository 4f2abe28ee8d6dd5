"""What a run leaves behind for its report: deployed, stopped at some gate, rolled back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
# In every value that comes from outside: from rows, answers, logs, catalogs.
HOSTILE = '<script>alert("&")</script>|`*'
PLAN = yaml.safe_load((ROOT / "plans/one-active-inspection-session.yml").read_text())
BEFORE, AFTER = "f30ada37db1b3e57a0b960a57965af7bad5f0b8e", "4f743598c1458746f8762db5977339d2e10611e8"
PHASES = ("prepare", "cleanup", "migrate", "verify", "pm2_reload", "healthcheck")

Facts = dict[str, Any]
SHA256 = "397eefdb7225d74d840c0f6da0a627b682696a144ee47d6525b528b2e80687a8"
RUN, EARLIER = "20251110T053000Z-1a2b3c", "20251110T043000Z-000000"


def _run(outcome: str, *answers: Facts, known: Facts | None = None, **end: Any) -> Facts:
    """What a run is, and how it has ended: the journal's ``answers``, and what else is known of its ``end``."""
    ended = {"outcome": outcome, **{key: value for answer in answers for key, value in answer.items()}, **end}
    return {
        "run_facts": {
            **{"run_id": RUN, "plan": PLAN, "plan_sha256": SHA256, "is_whole": True, "asked_phases": list(PHASES)},
            **{"artifacts_path": "artifacts/staging/latest", "run": {}, "phases": [], "took_over": {}},
            "parts": {"application": True, "prisma": True},
            **{"who": "-", **(known or {})},
            **{"who": "-", **(known or {})},
            **{"who": "-", **(known or {})},
        },
        "run_host": {"commit": BEFORE, "wanted": AFTER},
        "run_end": ended,
    }


JOURNAL = {
    "who": f"deploy{HOSTILE}",
    "controller": "gateway-1",
    "controller_pid": 4242,
    "started_at": "2025-11-10T05:30:00.000Z",
    "seconds": 95,
}


def _journal(phases: list[Facts], *taken_back_next: str) -> Facts:
    """What the journal answers at the end; ``taken_back_next``: the runs that rollback.yml takes back from now on."""
    reported = [{key: phase[key] for key in ("name", "status", "seconds")} for phase in phases]
    rollback = (
        {"runs": list(taken_back_next), "commit_before": BEFORE, "commit_after": AFTER} if taken_back_next else {}
    )
    return {"run": {**JOURNAL, "phases": phases}, "phases": reported, "rollback": rollback}


def _phase(name: str, status: str = "ok", **details: Any) -> Facts:
    return {"name": name, "status": status, "seconds": 10.0 + len(name), "details": details}


def _row(number: int, serial: str) -> Facts:
    return {"id": f"{serial}-{number}", "status": "active", "started_at": None if number else "2025-11-08 14:30:00+00"}


def _reported(groups: int) -> Facts:
    serials = [HOSTILE if number == 0 else f"11-00{number:05}" for number in range(groups)]
    shown = [
        {"key": {"equipment_serial": serial}, "keep": _row(0, serial), "surplus": [_row(1, serial), _row(2, serial)]}
        for serial in serials
    ]
    return {
        "group_count": groups,
        "row_count": 2 * groups,
        "open_total": 3 * groups + 1,
        "truncated": True,
        "groups": shown,
    }


def _indexes(verdict: str) -> list[Facts]:
    return [
        {
            "name": index["name"],
            "verdict": verdict,
            "parts": [{"part": "predicate", "expected": "a", "seen": HOSTILE}] if verdict == "different" else [],
            "definition": None if verdict == "missing" else f"CREATE INDEX {index['name']} ON {HOSTILE}",
        }
        for index in PLAN["indexes"]
    ]


GATES = {
    "backup": {"passed": True, "seen": "backup of age 3 hours", "expected": "at most 24 hours", "next_step": "none"},
    "notice": {
        "passed": False,
        "seen": f"not confirmed {HOSTILE}",
        "expected": "the team knows",
        "next_step": "send it",
    },
}
FIGURES = {"requests": 120, "failures": 1, "longest_gap_ms": 210, "p50_ms": 3.4, "p95_ms": 20.5, "p99_ms": 41.0}
TRAFFIC = {
    "requests": 240,
    "failures": 1,
    "longest_gap_ms": 210,
    "last_old_answer": "2025-11-10T05:31:10.123+00:00",
    "course": [
        {"from_s": 2 * n, "requests": 4, "failures": int(n == 31), "slowest_ms": None if n == 32 else 4.0 + n * n % 97}
        for n in range(60)
    ],
    "targets": {
        "page": FIGURES,
        f"api {HOSTILE}": FIGURES,
        "gone": {**FIGURES, "p50_ms": None, "p95_ms": None, "p99_ms": None},
    },
}
CHECKS = [
    {
        "name": "health",
        "request": "GET /api/health",
        "expected": "200 ok",
        "got": "200 healthy",
        "ok": True,
        "known": False,
    },
    {
        "name": "session",
        "request": "POST /x",
        "expected": "200 or 409",
        "got": f"500 {HOSTILE}",
        "ok": False,
        "known": False,
    },
    {"name": "race", "request": "POST /x", "expected": "409", "got": f"500 {HOSTILE}", "ok": False, "known": True},
]
KNOWN_FAULTS = [
    {"check": "race", "request": "POST /x", "got": f"500 {HOSTILE}", "repair": f"map P2002 {HOSTILE}", "after": after}
    for after in ("known", "repaired", None)
]
INSTANCES = [{"host": "web1", "pm_id": n, "old_pid": 100 + n, "new_pid": 200 + n} for n in range(2)]
NOT_RACED = {"verdict": "not tried", "index": "i", "why": f"a trigger {HOSTILE} would act"}
BUILD = {"strategy": "prisma", "write_pause_predicted_ms": 180, "write_pause_ms": 42, "seconds": 1.4, "attempts": 1}
REMOVED = {"groups": 10, "planned": 20, "removed": 20, "archived": 20}

_TAKEN_BACK = {"runs": [EARLIER], "built": [index["name"] for index in PLAN["indexes"]]}

_deployed = [_phase(name) for name in PHASES]
_deployed[0]["details"] = {"checklist": GATES}
_deployed[2]["details"] = BUILD

CASES: dict[str, Facts] = {
    "deployed": {
        **_run("deployed", _journal(_deployed, RUN)),
        "cleanup_removed": {"removed": REMOVED["removed"], "sum": REMOVED},
        "cleanup_reported": _reported(10),
        "verify_indexes": {"indexes": _indexes("present"), "duplicates_left": 0},
        "healthcheck_traffic": TRAFFIC,
        "healthcheck_service": {"before": False, "checks": CHECKS, "found": KNOWN_FAULTS},
        "pm2_reload_instances": {"instances": INSTANCES},
    },
    "stopped": {
        **_run(
            "stopped",
            _journal(
                [_phase("prepare", "unchanged"), _phase("cleanup"), _phase("migrate"), _phase("verify", "failed")],
                RUN,
                EARLIER,
            ),
            failed_phase="verify",
            error=f"1 of 3 indexes is different: {HOSTILE}. Expected: exactly the plan's."
            " Next: drop it, then run again.",
        ),
        "cleanup_removed": {"removed": REMOVED["removed"], "sum": REMOVED},
        "cleanup_reported": _reported(3),
        "verify_indexes": {"details": {"indexes": _indexes("different"), "duplicates_left": 0}},
    },
    # The last gate refuses: every part is there, and nothing was taken back.
    "stopped_late": {
        **_run(
            "stopped",
            _journal([*_deployed[:-1], _phase("healthcheck", "failed")], RUN),
            failed_phase="healthcheck",
            error=f"1 of 2 checks is not as expected: {HOSTILE}. Expected: 200 or 409. Next: read the log.",
        ),
        "cleanup_removed": {"removed": REMOVED["removed"], "sum": REMOVED},
        "cleanup_reported": _reported(10),
        "verify_indexes": {"indexes": _indexes("present"), "duplicates_left": 0},
        "run_traffic": {**TRAFFIC, "targets": {name: FIGURES for name in ("page", "api", "old asset", "new asset")}},
        "healthcheck_service": {"details": {"before": False, "checks": CHECKS, "found": []}},
        "pm2_reload_instances": {"instances": INSTANCES},
    },
    "rolled_back": {
        **_run("rolled_back", _journal([_phase("rollback", runs=[EARLIER], commit=BEFORE, restored=20)])),
        "rollback_plan": {"commit": BEFORE, "found": _TAKEN_BACK},
        "rollback_instances": INSTANCES,
        "rollback_done": {"indexes": _indexes("missing"), "duplicates_left": 10, "restored": 20},
    },
    # Two of its rows could not return.
    "left": {
        **_run("rolled_back", _journal([_phase("rollback", runs=[EARLIER], commit=BEFORE, restored=18, left_count=2)])),
        "rollback_plan": {"commit": BEFORE, "found": _TAKEN_BACK},
        "rollback_instances": INSTANCES,
        "rollback_done": {
            **{"indexes": _indexes("missing"), "duplicates_left": 9, "restored": 18, "left_count": 2},
            "left": [
                {
                    "table": "aedpics.inspection_sessions",
                    "reason": "constraint",
                    "name": "sessions_fkey",
                    "count": 2,
                    "rows": [],
                }
            ],
        },
    },
    # The run took itself back, and an earlier one that it went on from.
    "taken_back": {
        **_run(
            "rolled_back",
            _journal([*_deployed[:-1], _phase("healthcheck", "failed"), _phase("rollback", restored=20)]),
            failed_phase="healthcheck",
            reached={**_TAKEN_BACK, "runs": [RUN, EARLIER]},
            error=f"7 of 210 requests failed {HOSTILE}. Expected: at most 1 %."
            " Next: read in traffic.json what failed and when. A whole run takes itself"
            " back where it may; otherwise ansible-playbook rollback.yml -l staging\n"
            "Rolled back automatically: the application to f30ada37db1b on web1, 3 indexes dropped, 20 rows restored.",
        ),
        "cleanup_removed": {"removed": REMOVED["removed"], "sum": REMOVED},
        "rollback_plan": {"commit": BEFORE},
        "rollback_instances": INSTANCES,
        "rollback_done": {"indexes": _indexes("missing"), "duplicates_left": 10, "restored": 20},
    },
    # Refused before it touched anything; rollback.yml would take back the deployment before it.
    "refused": {
        **_run(
            "stopped",
            _journal([_phase("prepare", "failed")], EARLIER),
            failed_phase="prepare",
            error=f"1 of 1 gates of the checklist are open.\n  Seen: [backup] no age {HOSTILE}.\n"
            "    Expected: at most 24 hours.\n    Next: set prepare_backup_taken_at.",
        ),
    },
    "running": {
        **_run("running", known={"run": {**JOURNAL, "phases": []}, "took_over": {"run_id": EARLIER}}),
    },
    # --tags verify, and nothing was wrong.
    "verified": {
        **_run(
            *("unchanged", _journal([_phase("verify", race=NOT_RACED)], EARLIER)),
            known={"is_whole": False, "asked_phases": ["verify"]},
        ),
        "verify_indexes": {"indexes": _indexes("present"), "duplicates_left": 0},
    },
    # The journal could not be reached: what is known is little, and the page must still come.
    # The clean-up stopped before it removed a row: what it found is known all the same.
    "above_the_ceiling": {
        **_run(
            "stopped",
            _journal([_phase("prepare", "unchanged"), _phase("cleanup", "failed")], RUN),
            failed_phase="cleanup",
            error="8 rows are to leave. Expected: at most 4 rows in one run. Next: look at the report.",
        ),
        "cleanup_reported": _reported(4),
    },
    "stopped_early": {
        **_run("stopped", failed_phase="prepare", error=f"A text of another shape, with {HOSTILE}"),
    },
}
