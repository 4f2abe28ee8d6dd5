"""The health gates against a server that signs people in as NextAuth does, right and wrong in the measured ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.plan import parse
from at_most_one.service.api_client import Settings
from at_most_one.service.health_checks import CHECKS, NOT_IN_CHECK_MODE, Check, run_checks
from at_most_one.service.nextauth import Credentials
from at_most_one.system.log_errors import Mark, Served

from tests.service.fake_service import PASSWORD, TOKEN, FakeService
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
SERIAL = "11-0000001"
INSPECTOR, ADMIN = Credentials("inspector@example.test", PASSWORD), Credentials("admin@example.test", PASSWORD)


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService.running() as made:
        yield made


@pytest.fixture
def settings(service: FakeService) -> Settings:
    return Settings(
        service.url,
        timeout_s=3,
        credentials=INSPECTOR,
        admin_credentials=ADMIN,
        canary={"equipment_serial": SERIAL},
    )


def only(settings: Settings, name: str) -> Check:
    (check,) = run_checks(settings, [name])
    assert check.name == name
    return check


def test_everything_right(service: FakeService, settings: Settings) -> None:
    done = run_checks(settings, list(CHECKS))
    assert [check.name for check in done] == ["root", "health", "login", "monitoring", "session", "log", "race"]
    assert [check for check in done if not check.ok] == []
    assert service.state.open == {}
    assert done[2].got == "signed in: inspector@example.test and admin@example.test"
    assert "1 x 201, 7 x 409" in done[-1].got
    assert service.state.requests.count("POST /api/auth/callback/credentials") == 2  # each person signs in once


def test_read_only_opens_nothing(service: FakeService, settings: Settings) -> None:
    done = {check.name: check for check in run_checks(settings, list(CHECKS), read_only=True)}
    assert done["session"].got == done["race"].got == NOT_IN_CHECK_MODE
    assert done["session"].ok is done["race"].ok is None
    assert done["health"].ok
    assert done["monitoring"].ok
    assert not any(request.startswith("POST /api/inspections") for request in service.state.requests)


@pytest.mark.parametrize(
    ("status", "body", "ok"),
    [
        (200, {"status": "ok"}, True),
        (200, {"status": "healthy"}, True),
        (200, {"status": "degraded"}, False),
        (200, {}, False),
        (503, {"status": "unhealthy"}, False),
        (503, {"status": "ok"}, False),
    ],
)
def test_health(service: FakeService, settings: Settings, status: int, body: dict[str, str], ok: bool) -> None:
    service.behaviour.health = (status, body)
    check = only(settings, "health")
    assert check.ok is ok
    assert check.got.startswith(str(status))
    assert (check.request, check.expected) == ("GET /api/health", "200 with status ok or healthy")


@pytest.mark.parametrize(
    ("status", "body", "ok"),
    [
        (200, {"success": True, "data": {"total": 0, "duplicates": []}}, True),
        (200, {"success": True, "data": {"total": 3}}, False),
        (500, {"error": "Failed to retrieve duplicate session information"}, False),
        (403, {"error": "Forbidden"}, False),
    ],
)
def test_monitoring(service: FakeService, settings: Settings, status: int, body: dict[str, Any], ok: bool) -> None:
    service.behaviour.monitoring = (status, body)
    check = only(settings, "monitoring")
    assert check.ok is ok
    assert check.got.startswith(f"{status} {{")


def test_a_service_that_does_not_answer(settings: Settings) -> None:
    gone = replace(settings, base_url=f"http://127.0.0.1:{free_port()}")
    done = run_checks(gone, ["root", "health", "login", "session", "race"])
    assert [check.ok for check in done] == [False] * 5
    assert all("no answer (refused" in check.got for check in done)


def test_login_that_is_refused_shows_no_password(settings: Settings) -> None:
    wrong = replace(settings, credentials=Credentials("inspector@example.test", "s3cret"))
    check = only(wrong, "login")
    assert not check.ok
    assert check.request == "POST /api/auth/callback/credentials as inspector@example.test"
    assert "CredentialsSignin" in check.got
    assert "s3cret" not in repr((check, wrong))


def test_login_without_csrf(service: FakeService, settings: Settings) -> None:
    service.behaviour.csrf = 500
    check = only(settings, "login")
    assert (check.ok, check.request) == (False, "GET /api/auth/csrf")


def test_bearer(service: FakeService, settings: Settings) -> None:
    bearer = replace(settings, auth="bearer", bearer_token=TOKEN)
    assert all(check.ok for check in run_checks(bearer, ["login", "monitoring", "session", "race"]))
    assert only(replace(bearer, bearer_token="another"), "login").got.startswith("401")
    service.behaviour.creation = 500
    assert TOKEN not in only(bearer, "session").got


@pytest.mark.parametrize(
    ("status", "ok"),
    [(200, True), (400, True), (405, True), (302, False), (401, False), (403, False), (429, False), (500, False)],
)
def test_what_counts_as_a_login_by_a_token(service: FakeService, settings: Settings, status: int, ok: bool) -> None:
    """A redirect leads to the page where one logs in, and a service that fails knows nobody."""
    service.behaviour.listing = status
    check = only(replace(settings, auth="bearer", bearer_token=TOKEN), "login")
    assert (check.ok, check.got[:3]) == (ok, str(status))


@pytest.mark.parametrize("second", ["resume", "refuse"])
def test_session_of_ones_own_is_cancelled(service: FakeService, settings: Settings, second: str) -> None:
    service.behaviour.second = second
    check = only(settings, "session")
    assert check.ok, check
    assert "not for a report" not in check.got
    assert service.state.open == {}


def test_session_of_somebody_else_is_legitimate_and_left_alone(service: FakeService, settings: Settings) -> None:
    service.state.open["theirs"] = ("other@example.test", SERIAL)
    check = only(settings, "session")
    assert check.ok
    assert "already open, by someone else" in check.got
    assert list(service.state.open) == ["theirs"]


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_session_that_cannot_be_opened(service: FakeService, settings: Settings, status: int) -> None:
    service.behaviour.creation = status
    check = only(settings, "session")
    assert not check.ok
    assert check.got.startswith(f"{status} ")
    race = only(settings, "race")
    assert (race.ok, race.got.startswith(f"before the race {status}")) == (False, True)


def test_second_session_shows_that_the_rule_is_not_enforced(service: FakeService, settings: Settings) -> None:
    service.behaviour.enforced, service.behaviour.second = False, "create"
    check = only(settings, "session")
    assert not check.ok
    assert "the rule is not enforced" in check.got
    assert service.state.open == {}


def test_session_that_cannot_be_cancelled_is_named(service: FakeService, settings: Settings) -> None:
    service.behaviour.cancel = 500
    check = only(settings, "session")
    assert not check.ok
    assert "session session-1 is still open: POST /api/inspections/sessions/session-1/cancel got 500" in check.got


def test_session_whose_answer_was_lost_is_cancelled(service: FakeService, settings: Settings) -> None:
    service.behaviour.drop_first_creation = True
    check = only(settings, "session")
    assert not check.ok
    assert "no answer (reset" in check.got
    assert service.state.open == {}


def test_race_with_losers_that_get_500(service: FakeService, settings: Settings) -> None:
    """What the real application does while it does not map the unique violation."""
    service.behaviour.loser = 500
    check = only(settings, "race")
    assert not check.ok
    assert "1 x 201" in check.got
    assert "x 500" in check.got
    assert "Unique constraint failed" in check.got
    assert service.state.open == {}


def test_race_without_the_index(service: FakeService, settings: Settings) -> None:
    service.behaviour.enforced = False
    check = only(settings, "race")
    assert not check.ok
    assert "the rule is not enforced" in check.got
    assert service.state.open == {}


def test_race_on_an_equipment_in_use_says_what_to_do(service: FakeService, settings: Settings) -> None:
    service.state.open["theirs"] = ("other@example.test", SERIAL)
    check = only(settings, "race")
    assert not check.ok
    assert "name another canary" in check.got
    assert list(service.state.open) == ["theirs"]


def test_race_begins_by_closing_what_a_killed_run_left_open(service: FakeService, settings: Settings) -> None:
    service.state.open["left"] = (INSPECTOR.email, SERIAL)
    assert only(settings, "race").ok
    assert service.state.open == {}


def served(path: Path) -> Served:
    return Served(0, 200, 100, path.stat().st_size if path.exists() else 0, time.time())


def test_log_since_the_cutover(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "error.log"
    log.write_text("ERROR from before\n")
    marks = {str(path): Mark(str(path), (served(path),)) for path in (log, tmp_path / "not yet there")}
    watching = replace(settings, log_files=marks)
    assert only(watching, "log").ok
    with log.open("a") as file:
        file.write("WARN slow\nfine\n\x1b[31mERROR\x1b[0m DATABASE_URL=postgresql://u:hunter2@h/db\n")
    check = only(watching, "log")
    assert not check.ok
    assert check.got == "1 with errors, 1 with warnings\n  ERROR DATABASE_URL=postgresql://***@h/db"
    log.write_text("ERROR after rotation\n"[:10] + "\n")  # shorter than the offset: read from its beginning
    assert "1 with errors" in only(watching, "log").got
    mark = Mark(str(tmp_path / "gone"), (Served(0, 200, 100, 5, 0.0),))
    gone = only(replace(settings, log_files={mark.path: mark}), "log")
    assert (gone.ok, "cannot be read" in gone.got) == (False, True)


def test_module(service: FakeService, run_module: Callable[..., dict[str, Any]]) -> None:
    arguments = {
        "base_url": service.url,
        "checks": ["health", "login", "race"],
        "credentials": {"email": INSPECTOR.email, "password": PASSWORD},
        "canary": {"equipment_serial": SERIAL},
    }
    dry = run_module("service_check", arguments, check=True)
    assert (dry["all_ok"], dry["changed"], dry["checks"][2]["got"]) == (True, False, NOT_IN_CHECK_MODE)
    assert run_module("service_check", arguments)["all_ok"]

    service.behaviour.loser = 500
    failed = run_module("service_check", arguments)
    assert failed["failed"]
    assert failed["seen"].startswith(f"1 of 3 checks of {service.url} are not as expected. race: 8 x POST")
    assert [check["ok"] for check in failed["details"]["checks"]] == [True, True, False]
    assert PASSWORD not in str({key: value for key, value in failed.items() if key != "invocation"})
    assert run_module("service_check", {**arguments, "fail": False})["all_ok"] is False
    assert "canary" in run_module("service_check", {**arguments, "canary": {}})["msg"]

    plan = yaml.safe_load((ROOT / "plans/one-active-inspection-session.yml").read_text())
    service.behaviour.loser = 422
    told = run_module(
        "service_check", {**arguments, "canary": {}, "plan": {**plan, "proof": {**PROOF, "accepts": [200, 201]}}}
    )
    assert told["checks"][2]["got"].startswith("1 x 201, 7 x 422")


PROOF = {
    "create": {"path": "/api/orders", "body": {"equipment_serial": SERIAL, "note": "a test"}},
    "undo": {"path": "/api/orders/{id}/cancel", "body": {"reason": "{id} was a test"}},
    "accepts": [201],
    "refuses": [422],
    "id": "session.id",
}


def test_a_plan_with_a_proof_races_its_own_endpoint(service: FakeService, settings: Settings) -> None:
    plan: dict[str, Any] = yaml.safe_load((ROOT / "plans/one-active-inspection-session.yml").read_text())
    own = replace(settings, canary={}, proof=parse({**plan, "proof": PROOF}).proof)
    service.behaviour.loser, service.behaviour.second = 422, "race"
    race = only(own, "race")
    assert race.ok, race.got
    assert (race.request, race.got) == ("8 x POST /api/orders at once", "1 x 201, 7 x 422")
    assert race.expected == "one session: one 201, others 422, no 5xx; and it cancelled"
    session = only(own, "session")
    assert session.ok, session.got
    assert service.state.open == {}
    asked = {request for request in service.state.requests if "/api/inspections" in request}
    assert asked == set(), "the endpoint of the shipped service is left alone"
    service.behaviour.loser = 409
    assert only(own, "race").ok is False, "a status that the plan does not name is no refusal"


def test_a_row_whose_id_nobody_tells_is_named(service: FakeService, settings: Settings) -> None:
    service.behaviour.drop_first_creation, service.behaviour.second = True, "refuse"
    check = only(settings, "session")
    assert check.ok is False
    assert "may have left a session open: POST /api/inspections/sessions now got 409" in check.got
    assert len(service.state.open) == 1
