"""The clean-up as the module does it in two phases under a held run: a report into a file, the removal out of it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from at_most_one.duplicates import plan_file, surplus_rows
from at_most_one.fence import write_fence
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller

from .seed import PLAN


@dataclass(frozen=True)
class Cleaned:
    """How many rows went, and the seconds of the second phase alone."""

    removed: int
    removal_s: float
    left: int = 0  # rows that are surplus by now


def opened(login: Login) -> str:
    """A run in the database's journal, as `deploy_run` opens one before; every batch makes sure that it still holds."""
    opening = journal.Opening(PLAN, "bench", "bench", Controller("bench", os.getpid()))
    with connect(login) as connection:
        return journal.open_run(connection, opening, takeover=True).run_id


def fenced_clean_up(connection: Connection, run_id: str) -> None:
    """As the role does it: what the fence cannot exempt leaves first, then the fence goes up, then the rest leaves."""
    while write_fence.raise_fence(connection, PLAN).surplus_first:
        clean_up(connection, run_id)
    while clean_up(connection, run_id).left + write_fence.tighten(connection, PLAN).exempt:
        pass


def clean_up(connection: Connection, run_id: str) -> Cleaned:
    """Remove and archive every surplus row that the report finds."""
    with tempfile.TemporaryDirectory(prefix="at-most-one-bench-") as directory:
        path = f"{directory}/cleanup_plan.json"
        limits: dict[str, Any] = {}

        def fill(hand_over: Callable[[str], None]) -> Mapping[str, Any]:
            found = surplus_rows.report(connection, PLAN, into=hand_over)
            limits.update(dict.fromkeys(("max_rows", "expected_groups", "expected_rows"), found.row_count))
            return {"digest": found.digest}

        plan_file.write(path, fill)
        began = time.perf_counter()
        reviewed = plan_file.RowsFile(path)
        hold, digest = journal.holding(run_id), reviewed.digest()
        removal = surplus_rows.remove(
            connection, PLAN, rows=reviewed.rows(), digest=digest, run_id=run_id, hold=hold, **limits
        )
        return Cleaned(removal.removed, time.perf_counter() - began, removal.rows_left)
