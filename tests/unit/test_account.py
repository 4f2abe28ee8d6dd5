"""What a clean-up has come to: its rounds added up, and what stops it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from at_most_one.cleanup.account import SHOWN_ROWS, Account, refuse_left, refuse_uncovered
from at_most_one.errors import OperatorError

FIRST = {
    **{"group_count": 10, "row_count": 25, "open_total": 69, "removed": 23, "archived": 23, "repointed": 2},
    **{"kept_meanwhile": 1, "gone_meanwhile": 1, "batches": 1, "seconds": 0.1, "longest_batch_ms": 40},
    "unarchived": [{"row": ["a"], "why": "outside"}, {"row": ["b"], "why": "gone"}],
}


def test_rounds_add_up() -> None:
    first = Account().plus(FIRST)
    assert (first.groups, first.planned, first.removed, first.archived) == (10, 25, 23, 23)
    second = first.plus({**FIRST, "seconds": 0.2, "longest_batch_ms": 12, "unarchived": []})
    assert (second.planned, second.batches, second.seconds, second.longest_batch_ms) == (50, 2, 0.3, 40)
    assert second.unarchived == FIRST["unarchived"]
    assert first.plus({"group_count": 1, "row_count": 3, "removed": 1}).planned == 28, "it stopped half way"


def test_the_journal_gives_back_what_it_was_given() -> None:
    kept = asdict(Account().plus(FIRST))
    phases: list[dict[str, Any]] = [
        {"name": "cleanup", "status": "ok", "details": {**kept, "groups": 1}},
        {"name": "cleanup", "status": "ok", "details": {**kept, "of_a_later_release": 1}},
        {"name": "cleanup", "status": "failed", "details": {"error": "it stopped", "removed": 1}},
        {"name": "migrate", "status": "ok", "details": {}},
    ]
    assert Account.kept(phases) == Account().plus(FIRST)
    assert Account.kept(phases[2:]) is None


def test_a_planned_row_without_a_trace_stops() -> None:
    Account().plus(FIRST).require_complete()
    for lost in ("removed", "kept_meanwhile", "gone_meanwhile"):
        with pytest.raises(OperatorError, match="25 rows were planned") as stop:
            Account().plus({**FIRST, lost: FIRST[lost] - 1}).require_complete()  # type: ignore[operator]
        assert "at_most_one.archived_row" in stop.value.next_step


def test_what_is_left_stops() -> None:
    refuse_left(0, 0)
    with pytest.raises(OperatorError, match="3 surplus rows in 2 groups are left after the clean-up") as stop:
        refuse_left(3, 2)
    assert stop.value.details == {"rows_left": 3, "groups_left": 2}


def test_rows_that_the_reviewed_file_does_not_cover_stop() -> None:
    refuse_uncovered({"rows_left": 0, "unarchived": []}, "reviewed.json")
    with pytest.raises(OperatorError) as stop:
        refuse_uncovered({"rows_left": 1, "unarchived": [{"row": ["a"], "why": "outside"}]}, "reviewed.json")
    assert stop.value.seen == "1 surplus rows are not in reviewed.json as they are now."
    changed = [{"row": [str(number), "x"], "why": "changed"} for number in range(SHOWN_ROWS + 1)]
    with pytest.raises(OperatorError, match=r"\(changed since: 0, x; 1, x; ") as stop:
        refuse_uncovered({"rows_left": 30, "unarchived": changed}, "reviewed.json")
    assert f"; {SHOWN_ROWS - 1}, x)." in stop.value.seen
    assert "--check" in stop.value.next_step
