"""Which faults may stay: those that were there before with the same status, where the policy accepts them."""

from __future__ import annotations

from typing import Any

import pytest
from at_most_one.catalogue import in_words
from at_most_one.findings import say
from at_most_one.service.fault_reports import after_change, before_change
from at_most_one.service.health_checks import Check
from at_most_one.service.known_faults import KnownFaults

ACCEPT = {"monitoring": "accept", "race": "accept"}


@pytest.mark.parametrize(
    ("policy", "before", "statuses", "accepted"),
    [
        (ACCEPT, {"monitoring": [500]}, (500,), True),
        (ACCEPT, {"monitoring": [500, 503]}, (503,), True),
        (ACCEPT, {"monitoring": [500]}, (500, 503), False),
        (ACCEPT, {"monitoring": [500]}, (503,), False),
        (ACCEPT, {"monitoring": []}, (500,), False),
        (ACCEPT, {"race": [500]}, (500,), False),
        (ACCEPT, {}, (500,), False),
        (ACCEPT, None, (500,), False),
        (ACCEPT, {"monitoring": [500]}, (), False),
        ({"monitoring": "refuse"}, {"monitoring": [500]}, (500,), False),
        ({}, {"monitoring": [500]}, (500,), False),
    ],
)
def test_accepted(
    policy: dict[str, str], before: dict[str, list[int]] | None, statuses: tuple[int, ...], accepted: bool
) -> None:
    assert KnownFaults(policy, before).accepts("monitoring", statuses) is accepted


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (None, "the release before was not asked"),
        ({}, "the release before was not asked"),
        ({"race": []}, "new in this release: the one before did not"),
        ({"race": [503]}, "new in this release: the one before answered 503"),
        ({"race": [500]}, "there before as well, but healthcheck_known_faults.race is refuse"),
    ],
)
def test_reason(before: dict[str, list[int]] | None, reason: str) -> None:
    assert KnownFaults({"race": "refuse"}, before).reason("race", (500,)) == reason


def test_no_reason_where_the_policy_has_no_part() -> None:
    assert KnownFaults(ACCEPT, {}).reason("session", (500,)) == ""
    assert KnownFaults(ACCEPT, {}).reason("race", ()) == ""


HEALTHY = Check("health", True, "GET /h", "200", "200")
FAULT: dict[str, Any] = {
    **{"check": "monitoring", "request": "GET /m", "got": "500 no", "statuses": [500], "policy": "accept"},
    **{"after": None, "phrases": {}},
}


def answered(name: str, *statuses: int, known: bool = False) -> Check:
    """Not well with these statuses 5xx; well with none."""
    got = f"{statuses[0]} no" if statuses else "200"
    return Check(name, not statuses, f"GET /{name[0]}", "200", got, statuses=statuses, known=known)


@pytest.mark.parametrize(
    ("language", "repair"), [("en", "qualify each column of the endpoint's query"), ("ko", "이 API의 쿼리에서")]
)
def test_a_fault_of_the_running_release_is_reported_once(language: str, repair: str) -> None:
    asked = [HEALTHY, answered("monitoring", 500)]
    told = before_change(asked, {}, [], policy=ACCEPT, language=language)
    (fault,) = told.found
    assert {name: value for name, value in fault.items() if name != "repair"} == FAULT
    assert fault["repair"].startswith(repair)
    assert told.told == told.found
    assert told.faults_before == {"monitoring": [500]}

    raced = before_change([answered("race", 500)], told.faults_before, told.found, policy={}, language=language)
    assert [(one["check"], one["policy"]) for one in raced.found] == [("monitoring", "accept"), ("race", "refuse")]
    assert raced.told == [], "code that does not know the rule yet is not blamed for it"
    assert raced.faults_before == {"monitoring": [500], "race": [500]}


def test_the_release_that_an_unfinished_run_has_switched_to_is_no_witness() -> None:
    seen = before_change([answered("monitoring", 500)], {"monitoring": []}, [], policy=ACCEPT, language="en")
    assert (seen.faults_before, seen.found) == ({"monitoring": []}, [])


@pytest.mark.parametrize(
    ("asked", "after", "told"),
    [
        ([answered("race", 500, known=True)], "known", True),
        ([answered("race")], "repaired", False),
        ([answered("race", 500)], None, False),
        ([], None, False),
    ],
)
def test_what_became_of_it(asked: list[Check], after: str | None, told: bool) -> None:
    fault = {**FAULT, "check": "race"}
    became = after_change(asked, {"race": [500]}, [fault])
    assert became.found == [{**fault, "after": after}]
    assert became.told == (became.found if told else [])
    assert became.faults_before == {"race": [500]}


def test_only_the_race_is_reported_again() -> None:
    became = after_change([answered("monitoring", 500, known=True)], {"monitoring": [500]}, [FAULT])
    assert [one["after"] for one in became.found] == ["known"]
    assert became.told == []


def test_a_reported_fault_is_written_in_the_readers_language() -> None:
    """It has not all the texts of the check that it comes from."""
    asked = Check("monitoring", False, "GET /m", say("200 with data.total 0"), say("no file"), statuses=(500,))
    (fault,) = before_change([asked], {}, [], policy=ACCEPT, language="ko").found
    assert "data.total" not in str(fault)
    assert in_words(fault, "ko")["got"] == "파일 없음"
