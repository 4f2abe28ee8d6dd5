#!/usr/bin/env python3
"""Print which lines and branches of each package of the core are reached: coverage_table.py REPORT.json PACKAGE ...

The named packages have to reach LEAST per cent of their branches; exit 1 where one does not.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path, PurePath

LEAST = 90
COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def main(report: str, *required: str) -> int:
    packages: dict[str, Counter[str]] = {}
    for name, file in json.loads(Path(report).read_text(encoding="utf-8"))["files"].items():
        package = PurePath(name).parent.name
        packages.setdefault(package, Counter()).update({count: file["summary"][count] for count in COUNTS})
    short = []
    print(f"{'package':16} {'lines':>8} {'branches':>10}   of")
    for package, counts in sorted(packages.items()):
        branches = _percent(counts["covered_branches"], counts["num_branches"])
        lines = _percent(counts["covered_lines"], counts["num_statements"])
        print(f"{package:16} {lines:7.1f}% {branches:9.1f}%   {counts['num_branches']}")
        if package in required and branches < LEAST:
            short.append(package)
    if short:
        print(f"Fewer than {LEAST} % of the branches are reached in {', '.join(short)}.")
    return 1 if short else 0


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
