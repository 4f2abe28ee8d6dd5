#!/usr/bin/env python3
"""The last lines of `make demo`: what the deployment did, from its own report, and where that report is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def lines(report: dict[str, Any]) -> list[str]:
    """The summary, one fact a line. A phase that did not run has left nothing to say."""
    cleanup, traffic, commit = report.get("cleanup") or {}, report.get("traffic") or {}, report.get("commit") or {}
    seconds = sum(phase.get("seconds") or 0 for phase in report.get("phases") or [])
    verdicts = [index.get("verdict") for index in report.get("indexes") or []]
    facts = [
        ("outcome", f"{report.get('outcome')} in {seconds:.0f} s"),
        ("commit", f"{str(commit.get('before'))[:12]} -> {str(commit.get('after'))[:12]}"),
        (
            "duplicates",
            f"{report.get('duplicates_left')} left; {cleanup.get('removed') or 0} sessions archived and removed",
        ),
        ("indexes", f"{verdicts.count('present')} of {len(verdicts)} present"),
    ]
    if traffic:
        facts.append(("traffic", f"{traffic.get('requests')} requests, {traffic.get('failures')} failed"))
    if report.get("error"):
        facts.append(("error", str(report["error"])))
    return [f"  {name:<11} {fact}" for name, fact in facts]


def main(arguments: list[str]) -> int:
    """The command line: the directory of a run's artifacts."""
    directory = Path(arguments[0])
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    print("\n".join(["", *lines(report), f"  {'report':<11} {directory / 'report.html'}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
