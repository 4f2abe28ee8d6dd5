"""What each verdict on an index allows: to build, to go on, to drop, to call it absent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.indexes import verification
from at_most_one.indexes.verification import Difference, Inspection, Verdict
from at_most_one.plan import Plan

NOTHING = Inspection((), 0)


def seen(*verdicts: str, parts: tuple[str, ...] = ()) -> Inspection:
    differences = tuple(Difference(part, "this", "that") for part in parts)
    return Inspection(tuple(Verdict(f"index_{n}", verdict, differences) for n, verdict in enumerate(verdicts)), 0)


@pytest.mark.parametrize(
    ("verdict", "resume", "buildable"),
    [
        *(("missing", resume, True) for resume in (False, True)),
        *(("present", resume, resume) for resume in (False, True)),
        *(("invalid", resume, resume) for resume in (False, True)),
        *(("different", resume, False) for resume in (False, True)),
        *(("unexpected", resume, False) for resume in (False, True)),
    ],
)
def test_what_a_build_begins_from(plan: Plan, verdict: str, resume: bool, buildable: bool) -> None:
    found = seen("missing", verdict)
    if buildable:
        verification.require_buildable(found, plan, resume=resume)
        return
    with pytest.raises(OperatorError, match="index_1 is") as stop:
        verification.require_buildable(found, plan, resume=resume)
    assert stop.value.details["cause"] == "obstacle"


def test_duplicates_bar_a_build_except_where_they_may_go(plan: Plan) -> None:
    found = replace(NOTHING, duplicates_left=1)
    verification.require_buildable(found, plan, duplicates_may_go=True)
    with pytest.raises(OperatorError, match="1 duplicate group") as stop:
        verification.require_buildable(found, plan)
    assert stop.value.details["cause"] == "duplicates"
    verification.require_buildable(NOTHING, plan)


@pytest.mark.parametrize(("verdict", "there"), [("missing", False), ("unexpected", False), ("present", True),
                                                ("invalid", True), ("different", True)])  # fmt: skip
def test_what_counts_as_still_there(plan: Plan, verdict: str, there: bool) -> None:
    found: Any = seen(verdict)
    assert found.existing == (("index_0",) if there else ())
    if not there:
        verification.require_absent(found, plan)
        return
    with pytest.raises(OperatorError, match="index_0"):
        verification.require_absent(found, plan)


@pytest.mark.parametrize("part", ["table", "kind"])
def test_what_is_not_the_plans_is_not_dropped(plan: Plan, part: str) -> None:
    verification.refuse_foreign(seen("different", parts=("columns", "predicate")), plan)
    with pytest.raises(OperatorError, match="Not the plan's to drop"):
        verification.refuse_foreign(seen("different", parts=("columns", part)), plan)
