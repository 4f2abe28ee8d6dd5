"""What each verdict on an index allows: to build, to go on, to drop, to call it absent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.indexes import verification
from at_most_one.indexes.verification import Building, Difference, Inspection, Verdict
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


@pytest.mark.parametrize(
    ("verdicts", "step"),
    [
        ((), "run the cleanup phase again."),
        (("present", "missing"), "run the migrate phase;"),
        (("missing", "invalid"), "the migrate phase repairs it"),
        (("invalid", "different"), "find out who made the other index;"),
        (("invalid", "unexpected"), "find out who made the other index;"),
    ],
)
def test_the_next_step_fits_the_worst_fault(plan: Plan, verdicts: tuple[str, ...], step: str) -> None:
    found = replace(seen(*verdicts), duplicates_left=1)
    with pytest.raises(OperatorError) as stop:
        verification.require_exact(found, plan)
    assert stop.value.next_step.startswith(step)
    assert ("by hand: DROP INDEX CONCURRENTLY" in stop.value.next_step) == step.startswith("the migrate phase repairs")
    building = tuple(replace(one, building=Building(1, "waiting", None)) for one in found.verdicts)
    if building:
        with pytest.raises(OperatorError) as stop:
            verification.require_exact(replace(found, verdicts=building), plan)
        assert stop.value.next_step.startswith("wait until the build has ended")


@pytest.mark.parametrize("part", ["table", "kind"])
def test_what_is_not_the_plans_is_not_dropped(plan: Plan, part: str) -> None:
    verification.refuse_foreign(seen("different", parts=("columns", "predicate")), plan)
    with pytest.raises(OperatorError, match="Not the plan's to drop"):
        verification.refuse_foreign(seen("different", parts=("columns", part)), plan)


def test_what_an_inspection_says_of_all_of_them() -> None:
    found = replace(seen("present", "present", "missing", "unexpected"), duplicates_left=2)
    assert found.summary() == "2 of 3 planned indexes present and valid, 1 unexpected, 2 duplicate groups"
    faults = ["index_2 is missing", "index_3 is unexpected"]
    assert found.faults() == [*faults, "2 duplicate group(s) are left inside the rule"]
    assert replace(found, duplicates_left=0).faults() == faults
    assert (found.exact, seen("present").exact) == (False, True)
    at_work = Verdict("index", "invalid", building=Building(7, "scanning", None))
    assert at_work.fault() == "index is still being built (pid 7, scanning)"
    assert replace(at_work, verdict="different").fault() == "index is different"


DEFINITION = ("table", "method", "columns", "opclass", "collation", "order", "include", "predicate", "unique",
              "nulls_not_distinct", "deferrable")  # fmt: skip
HEALTH = ("valid", "ready", "live")
FACTS: dict[str, Any] = {
    **dict.fromkeys(DEFINITION, "this"),
    **dict.fromkeys(HEALTH, True),
    "kind": "index",
    "definition": "CREATE INDEX ...",
    "building_pid": None,
}


@pytest.mark.parametrize("part", [*DEFINITION, *HEALTH])
def test_one_part_that_differs_decides_the_verdict(part: str) -> None:
    health = part in HEALTH
    found = verification.judge("name", FACTS, {**FACTS, part: False if health else "that"})
    assert found.verdict == ("invalid" if health else "different")
    assert found.parts == (Difference(part, "yes" if health else "this", "no" if health else "that"),)
    both = verification.judge("name", FACTS, {**FACTS, part: False, "valid": False})
    assert both.verdict == ("invalid" if health else "different")
    assert verification.judge("name", FACTS, dict(FACTS)).verdict == "present"
    assert verification.judge("name", FACTS, {**FACTS, **dict.fromkeys(HEALTH, False)}).verdict == "invalid"


def test_other_columns_are_named_without_what_comes_with_them() -> None:
    other = {"columns": ["a", "b"], "opclass": "x", "collation": "x", "order": "x", "predicate": None}
    seen_now = {**FACTS, **other, "remarks": {"predicate": "why"}, "building_pid": 7, "building_phase": "scanning"}
    found = verification.judge("name", {**FACTS, "columns": []}, {**seen_now, "building_percent": 50})
    assert found.parts == (
        Difference("columns", "none", "a, b"),
        Difference("predicate", "this", "none (why)"),
    )
    assert found.building == Building(7, "scanning", 50)
    assert (found.valid, found.ready, found.live, found.definition) == (True, True, True, "CREATE INDEX ...")
