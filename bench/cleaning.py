"""The clean-up as the module does it in its two phases: the report into a file, the removal out of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from at_most_one import duplicates, rows_file
from at_most_one.database import Connection

from .seed import PLAN


@dataclass(frozen=True)
class Cleaned:
    """How many rows went, and the seconds of the second phase alone."""

    removed: int
    removal_s: float


def clean_up(connection: Connection) -> Cleaned:
    """Remove and archive every surplus row that the report finds."""
    with tempfile.TemporaryDirectory(prefix="at-most-one-bench-") as directory:
        path = f"{directory}/cleanup_plan.json"
        limits: dict[str, Any] = {}

        def fill(hand_over: Callable[[str], None]) -> Mapping[str, Any]:
            found = duplicates.report(connection, PLAN, into=hand_over)
            limits.update(dict.fromkeys(("max_rows", "expected_groups", "expected_rows"), found.row_count))
            return {"digest": found.digest}

        rows_file.write(path, fill)
        began = time.perf_counter()
        reviewed = rows_file.RowsFile(path)
        removal = duplicates.remove(
            connection, PLAN, rows=reviewed.rows(), digest=reviewed.digest(), run_id="bench", **limits
        )
        return Cleaned(removal.removed, time.perf_counter() - began)
