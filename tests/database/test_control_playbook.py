"""control.yml as an operator runs it, against a real journal: it shows, it asks, it lifts, and it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from at_most_one.postgres.checkpoint import Place
from at_most_one.postgres.connection import connect
from at_most_one.runs import journal, requests
from at_most_one.runs.control import Checkpoints
from at_most_one.runs.requests import Request

from tests.database.archived_runs import Service
from tests.database.archived_runs import service as service  # fixtures
from tests.database.test_purge_playbook import Play
from tests.database.test_purge_playbook import play as play

ENGLISH = ("-e", "report_language=en")


def opened(service: Service) -> str:
    """A deployment in the middle of its clean-up."""
    with connect(service.login) as connection:
        opening = journal.Opening(service.plan, "staging", "minsu", service.opening().controller, reads_requests=True)
        run_id = journal.open_run(connection, opening).run_id
    with connect(service.login, autocommit=True) as connection:
        at = Checkpoints(run_id)
        at(connection, Place("cleanup", "rows", 0, 80))
        at._noted = float("-inf")
        at._began -= 10.0  # for which it has worked since
        at(connection, Place("cleanup", "rows", 20, 80))
    return run_id


def asked(service: Service, run_id: str) -> list[Request]:
    with connect(service.login) as connection:
        return requests.read(connection, run_id)


def written(tmp_path: Path) -> dict[str, Any]:
    return dict(json.loads((tmp_path / "checkout/artifacts/staging/control.json").read_text()))


def test_it_shows_asks_and_lifts_and_a_second_time_changes_nothing(
    service: Service, play: Play, tmp_path: Path
) -> None:
    refused = play("control.yml", "-e", "control_action=pause", *ENGLISH, code=2)
    assert f"No run of plan {service.plan.id} is open" in refused
    run_id = opened(service)

    shown = play("control.yml", *ENGLISH)
    assert f"Run {run_id} of minsu" in shown
    assert "Phase: cleanup, 20 of 80 rows at " in shown
    assert "2.0 a second, 0:00:30 left" in shown
    assert "It waits for nobody." in shown
    assert "changed=0" in shown
    assert (written(tmp_path)["done"], written(tmp_path)["requests"]) == (20, [])
    (tmp_path / "checkout/artifacts/staging/control.json").unlink()

    predicted = play("control.yml", "--check", "-e", "control_action=pause", *ENGLISH)
    assert f"Run {run_id} would be asked to pause at its next checkpoint." in predicted
    assert asked(service, run_id) == []
    assert not (tmp_path / "checkout/artifacts/staging/control.json").exists()

    paused = play("control.yml", "-e", "control_action=pause", *ENGLISH)
    assert f"Run {run_id} is asked to pause at its next checkpoint." in paused
    assert "changed=1" in paused
    (request,) = asked(service, run_id)
    assert f"{request.who} ({request.controller}), in force" in paused
    assert [one["action"] for one in written(tmp_path)["requests"]] == ["pause"]

    again = play("control.yml", "-e", "control_action=pause", *ENGLISH)
    assert f"was already asked to pause at its next checkpoint, by {request}" in again
    again = play("control.yml", "-e", "control_action=pause")
    asked_by = f"{request.who}({request.controller}, {request.at})"
    assert f"실행 {run_id}에 이미 요청되어 있습니다: 다음 확인 지점에서 멈춤, 요청한 사람: {asked_by}." in again
    assert "changed=0" in again
    assert "적용 중" in again
    assert "단계: 중복 정리, 20 / 80 행, " in again
    assert "changed=1" in play("control.yml", "-e", "control_action=resume", *ENGLISH)
    assert [one.action for one in asked(service, run_id)] == ["pause", "resume"]


def test_a_run_that_takes_itself_back_is_shown_at_the_phase_that_has_failed(service: Service, play: Play) -> None:
    run_id = opened(service)
    with connect(service.login) as connection:
        journal.record(connection, run_id, "cleanup", "failed", {})
    shown = play("control.yml", *ENGLISH)
    assert "Phase: cleanup It has failed there: it takes back what it has reached, or ends." in shown
    assert "It waits for nobody." not in shown
    assert "이 단계에서 실패했습니다." in play("control.yml")


def test_a_run_that_waits_is_shown_with_what_lets_it_go_on(service: Service, play: Play) -> None:
    run_id = opened(service)
    note = '{"phase": "pm2_reload", "unit": "hosts", "done": 0, "total": 2, "seconds": 0, "at": "2025-11-10T05:31:00Z",'
    note += ' "waiting": {"for": "hold_cutover", "since": "2025-11-10T05:31:00Z"}}'
    with connect(service.login) as connection:
        requests.ask(connection, service.plan.id, "hold_cutover", "hana", "laptop")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE at_most_one.run SET progress = %s WHERE run_id = %s", (note, run_id))
    for language, words in (
        ("en", "It waits (before the cutover), since 2025-11-10 05:31:00 UTC"),
        ("ko", "전환 전 대기"),
    ):
        shown = play("control.yml", "-e", f"report_language={language}")
        assert words in shown
        assert "hana (laptop)" in shown
        assert "-e control_action=continue" in shown
