"""Which faults may stay: those that were there before with the same status, where the policy accepts them."""

from __future__ import annotations

import pytest
from at_most_one.service.known_faults import KnownFaults

from filter_plugins.at_most_one import faults_after, known_faults

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


def checks(status: int) -> list[dict[str, object]]:
    fault = {
        "request": "GET /m",
        "got": f"{status} no",
        "statuses": [status],
        "ok": False,
        "known": True,
        "name": "race",
    }
    return [fault, {**fault, "name": "health", "statuses": [], "ok": True, "known": False}]


def test_what_is_reported_is_what_was_there_before_the_change() -> None:
    (fault,) = known_faults(checks(500), {"race": [500]}, {"race": "accept"}, {"race": "map it"})
    assert (fault["check"], fault["policy"], fault["repair"], fault["after"]) == ("race", "accept", "map it", None)
    assert known_faults(checks(500), {"race": [500]}, {}, {"race": "map it"})[0]["policy"] == "refuse"
    assert known_faults(checks(500), {"race": []}, {"race": "accept"}, {"race": "map it"}) == []


def test_what_became_of_it() -> None:
    (fault,) = known_faults(checks(500), {"race": [500]}, {"race": "accept"}, {"race": "map it"})
    assert faults_after([fault], checks(500))[0]["after"] == "known"
    well = {**checks(500)[0], "statuses": [], "ok": True, "known": False}
    assert faults_after([fault], [well])[0]["after"] == "repaired"
    assert faults_after([fault], [{**checks(500)[0], "known": False}])[0]["after"] is None
    assert faults_after([fault], [])[0]["after"] is None
