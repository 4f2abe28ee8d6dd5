"""What a rollback takes back: a table of journals, newest run first."""

from __future__ import annotations

from typing import Any

import pytest
from at_most_one.undo import last_deployment


def run(name: str, outcome: str, commits: str, **phases: str) -> dict[str, Any]:
    """A run as the journal gives it: "AB" is from A to B; a phase's value is its status, and "failed25" removed 25."""
    steps = [
        {"name": phase, "status": status.rstrip("0123456789"), "details": {"removed": int(status[6:] or 0)}}
        if status.startswith("failed")
        else {"name": phase, "status": status, "details": {}}
        for phase, status in phases.items()
    ]
    before, after = commits
    return {"run_id": name, "outcome": outcome, "commit_before": before, "commit_after": after, "phases": steps}


WHOLE = {"prepare": "ok", "cleanup": "ok", "migrate": "ok", "verify": "ok", "pm2_reload": "ok", "healthcheck": "ok"}
IDLE = {name: "unchanged" for name in WHOLE}
NOTHING: list[Any] = [None, None, None]
CASES: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "an empty journal": ([], NOTHING),
    "one deployment": ([run("1", "deployed", "AB", **WHOLE)], [("1",), "A", True]),
    "a rollback behind which all is taken back": (
        [run("2", "rolled_back", "BB", rollback="ok"), run("1", "deployed", "AB", **WHOLE)],
        NOTHING,
    ),
    "a refused rollback changes nothing of that": (
        [
            run("3", "stopped", "AA", rollback="failed"),
            run("2", "rolled_back", "BB", rollback="ok"),
            run("1", "deployed", "AB", **WHOLE),
        ],
        NOTHING,
    ),
    "the last of two deployments, which left the database alone": (
        [
            run("2", "deployed", "BC", cleanup="unchanged", migrate="unchanged", pm2_reload="ok"),
            run("1", "deployed", "AB", **WHOLE),
        ],
        [("2",), "B", False],
    ),
    "a stopped run and the one that went on": (
        [
            run("2", "deployed", "AB", cleanup="unchanged", migrate="unchanged", pm2_reload="ok"),
            run("1", "stopped", "AB", cleanup="ok", migrate="ok", pm2_reload="failed"),
        ],
        [("2", "1"), "A", True],
    ),
    "unchanged, prepared and refused runs between": (
        [
            run("4", "unchanged", "BB", **IDLE),
            run("3", "stopped", "BC", prepare="failed"),
            run("2", "stopped", "BC", prepare="ok", cleanup="failed"),
            run("1", "deployed", "AB", **WHOLE),
        ],
        [("1",), "A", True],
    ),
    "a clean-up that failed after it had removed rows": (
        [run("1", "stopped", "AB", prepare="ok", cleanup="failed25")],
        [("1",), "A", True],
    ),
    "an abandoned run, of which only the catalog knows": ([run("1", "abandoned", "AB")], [("1",), "A", True]),
}


@pytest.mark.parametrize("case", CASES)
def test_takes_back(case: str) -> None:
    runs, expected = CASES[case]
    last = last_deployment(runs)
    assert [last and last.runs, last and last.commit_before, last and last.database] == expected
