"""What the release before could not answer does not fail the one after; a new fault and a broken rule do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.service.fake_service import PASSWORD, TOKEN, FakeService

ACCEPT = {"monitoring": "accept", "race": "accept"}
BROKEN = (500, {"error": "Failed to retrieve duplicate session information"})
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService.running() as made:
        yield made


@pytest.fixture
def ask(service: FakeService, run_module: Callable[..., dict[str, Any]]) -> Ask:
    """The module as the roles call it; ``before`` and ``after`` differ in these arguments only."""

    def module(check: str, **arguments: Any) -> dict[str, Any]:
        fixed = {"base_url": service.url, "checks": [check], "auth": "bearer", "bearer_token": TOKEN, "timeout_s": 3}
        return run_module("service_check", {**fixed, "canary": {"equipment_serial": "11-0000001"}, **arguments})

    return module


def test_monitoring_that_was_broken_before_is_known(service: FakeService, ask: Ask) -> None:
    service.behaviour.monitoring = BROKEN
    before = ask("monitoring", before=True, known_faults=ACCEPT)
    assert before["faults"] == {"monitoring": [500]}
    assert (before["checks"][0]["ok"], before["checks"][0]["known"]) == (False, False)

    after = ask("monitoring", faults_before=before["faults"], known_faults=ACCEPT)
    assert after["all_ok"]
    assert (after["checks"][0]["ok"], after["checks"][0]["known"]) == (False, True)

    refused = ask("monitoring", faults_before=before["faults"])
    assert "there before as well, but healthcheck_known_faults.monitoring is refuse" in refused["msg"]


def test_a_repair_is_no_fault(service: FakeService, ask: Ask) -> None:
    service.behaviour.monitoring = BROKEN
    before = ask("monitoring", before=True, known_faults=ACCEPT)
    service.behaviour.monitoring = (200, {"data": {"total": 0}})
    after = ask("monitoring", faults_before=before["faults"], known_faults=ACCEPT)
    assert (after["checks"][0]["ok"], after["checks"][0]["known"]) == (True, False)


def test_duplicates_may_be_counted_before_and_never_after(service: FakeService, ask: Ask) -> None:
    service.behaviour.monitoring = (200, {"data": {"total": 10}})
    before = ask("monitoring", before=True, known_faults=ACCEPT)
    assert (before["all_ok"], before["faults"]) == (True, {"monitoring": []})
    after = ask("monitoring", faults_before={"monitoring": [500]}, known_faults=ACCEPT)
    assert after["failed"]
    assert '"total": 10' in after["msg"]


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ((200, {"data": {"total": 0}}), BROKEN, "new in this release: the one before did not"),
        ((503, {"error": "busy"}), BROKEN, "new in this release: the one before answered 503"),
        ((404, {"error": "not yet"}), BROKEN, "the release before was not asked"),
        (BROKEN, (404, {"error": "gone"}), "got 404"),
        (BROKEN, (403, {"error": "Forbidden"}), "got 403"),
    ],
)
def test_monitoring_that_got_worse(
    service: FakeService, ask: Ask, before: tuple[int, Any], after: tuple[int, Any], reason: str
) -> None:
    service.behaviour.monitoring = before
    found = ask("monitoring", before=True, known_faults=ACCEPT)
    service.behaviour.monitoring = after
    worse = ask("monitoring", faults_before=found["faults"], known_faults=ACCEPT)
    assert worse["failed"]
    assert reason in worse["msg"]


def test_a_service_that_is_gone_is_never_a_known_fault(service: FakeService, ask: Ask) -> None:
    """The known fault was a status; no answer at all is another fault."""
    gone = {"base_url": "http://127.0.0.1:9", "known_faults": ACCEPT}
    assert "no answer (refused" in ask("monitoring", faults_before={"monitoring": [500]}, **gone)["msg"]
    assert "no answer (refused" in ask("monitoring", before=True, **gone)["msg"]


@pytest.mark.parametrize("answer", [(401, {}), (403, {}), (200, {"data": {}})])
def test_before_the_change_anything_else_stops_as_ever(service: FakeService, ask: Ask, answer: tuple[int, Any]) -> None:
    service.behaviour.monitoring = answer
    assert ask("monitoring", before=True, known_faults=ACCEPT)["failed"]


def test_a_login_that_is_refused_stops_before_the_change(service: FakeService, ask: Ask) -> None:
    assert ask("login", before=True, known_faults=ACCEPT, bearer_token="another")["failed"]


def test_race_whose_losers_got_500_before_is_known(service: FakeService, ask: Ask) -> None:
    service.behaviour.loser = 500
    before = ask("race", before=True, known_faults=ACCEPT)
    assert before["faults"] == {"race": [500]}
    after = ask("race", faults_before=before["faults"], known_faults=ACCEPT, race_rounds=2)
    assert after["all_ok"]
    assert after["checks"][0]["known"]
    assert after["checks"][0]["got"].count("1 x 201") == 2, "the rule is looked for in every round"
    assert "healthcheck_known_faults.race is refuse" in ask("race", faults_before=before["faults"])["msg"]
    assert service.state.open == {}


def test_race_whose_losers_got_409_before_is_new(service: FakeService, ask: Ask) -> None:
    before = ask("race", before=True, known_faults=ACCEPT)
    assert before["faults"] == {"race": []}
    service.behaviour.loser = 500
    after = ask("race", faults_before=before["faults"], known_faults=ACCEPT)
    assert "(new in this release: the one before did not)" in after["msg"]


def test_a_race_that_refuses_nobody_says_nothing_of_the_release_before(service: FakeService, ask: Ask) -> None:
    """All got the session that was open already: whether the violation is mapped was not seen."""
    service.behaviour.joins = True
    before = ask("race", before=True, known_faults=ACCEPT, race_rounds=2)
    assert before["checks"][0]["ok"] is None
    assert before["checks"][0]["got"].count("7 x 200, 1 x 201") == 10
    assert before["faults"] == {}
    assert ask("race", known_faults=ACCEPT, race_rounds=2)["checks"][0]["got"].count("7 x 200, 1 x 201") == 2


def test_two_sessions_of_one_race_are_never_accepted(service: FakeService, ask: Ask) -> None:
    service.behaviour.enforced = False
    for moment in ({"before": True}, {"faults_before": {"race": [500]}}):
        broken = ask("race", known_faults=ACCEPT, **moment)
        assert broken["failed"]
        assert "the rule is not enforced" in broken["msg"]
    assert service.state.open == {}


def test_losers_without_an_answer_are_never_accepted(service: FakeService, ask: Ask) -> None:
    service.behaviour.no_loser = True
    lost = ask("race", faults_before={"race": [500]}, known_faults=ACCEPT)
    assert lost["failed"]
    assert "x no answer" in lost["msg"]


def test_a_misspelt_policy_is_refused_before_anything_is_asked(service: FakeService, ask: Ask) -> None:
    for policy in ({"monitoring": "acept"}, {"session": "accept"}):
        assert ask("monitoring", known_faults=policy)["failed"]
    assert service.state.requests == []


def test_no_secret_in_what_is_reported(service: FakeService, ask: Ask) -> None:
    service.behaviour.monitoring = (500, {"error": f"no, Bearer {TOKEN}"})
    found = ask("monitoring", before=True, known_faults=ACCEPT)
    assert TOKEN not in str(found["checks"])
    assert PASSWORD not in str(found["checks"])
