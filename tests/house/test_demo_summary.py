"""The last lines of `make demo`, of a report as a run leaves it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REPORT: dict[str, Any] = {
    "outcome": "deployed",
    "commit": {
        "before": "f30ada37db1b3e57a0b960a57965af7bad5f0b8e",
        "after": "4f743598c1458746f8762db5977339d2e10611e8",
    },
    "phases": [
        {"name": "prepare", "seconds": 35.4},
        {"name": "cleanup", "seconds": None},
        {"name": "migrate", "seconds": 17},
    ],
    "duplicates_left": 0,
    "cleanup": {"removed": 25},
    "indexes": [{"verdict": "present"}, {"verdict": "present"}, {"verdict": "missing"}],
    "traffic": {"requests": 1500, "failures": 0},
    "error": None,
}


def said(directory: Path, **facts: Any) -> list[list[str]]:
    """Each line, the name and the fact."""
    (directory / "report.json").write_text(json.dumps({**REPORT, **facts}))
    command = [sys.executable, str(ROOT / "scripts/demo_summary.py"), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split(maxsplit=1) for line in done.stdout.splitlines() if line]


def test_it_says_what_the_report_has(tmp_path: Path) -> None:
    assert said(tmp_path) == [
        ["outcome", "deployed in 52 s"],
        ["commit", "f30ada37db1b -> 4f743598c145"],
        ["duplicates", "0 left; 25 sessions archived and removed"],
        ["indexes", "2 of 3 present"],
        ["traffic", "1500 requests, 0 failed"],
        ["report", str(tmp_path / "report.html")],
    ]


def test_a_run_that_changed_nothing_has_no_traffic_and_one_that_stopped_has_its_error(tmp_path: Path) -> None:
    assert "traffic" not in [name for name, _ in said(tmp_path, traffic=None, outcome="unchanged")]
    assert ["error", "no lock"] in said(tmp_path, cleanup=None, outcome="stopped", error="no lock")
