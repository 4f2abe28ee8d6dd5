"""The journal's module: what it answers, what check mode leaves alone, and a controller that is killed for real."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from at_most_one import catalogue
from at_most_one.findings import Finding, handed_over, observed, say
from at_most_one.plan import Plan
from at_most_one.postgres import own_schema
from at_most_one.postgres.connection import Login, connect

HERE = socket.gethostname()


@pytest.fixture
def deploy_run(
    run_module: Callable[..., dict[str, Any]], login_args: dict[str, Any], plan_data: dict[str, Any]
) -> Callable[..., dict[str, Any]]:
    """Runs the module; opened as minsu from this process unless said otherwise."""

    def run(state: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        args: dict[str, Any] = {"login": login_args, "state": state}
        if state == "opened":
            args |= {"plan": plan_data, "environment": "local", "who": "minsu"}
            args |= {"controller": HERE, "controller_pid": os.getpid()}
        return run_module("deploy_run", {**args, **options}, check=check)

    return run


@pytest.fixture
def deploy_run_info(
    run_module: Callable[..., dict[str, Any]], login_args: dict[str, Any]
) -> Callable[..., list[dict[str, Any]]]:
    """The runs that the module reads."""

    def run(*, check: bool = False, **options: Any) -> list[dict[str, Any]]:
        answer = run_module("deploy_run_info", {"login": login_args, **options}, check=check)
        assert not answer["changed"]
        found: list[dict[str, Any]] = answer["runs"]
        return found

    return run


def test_a_deployment_may_be_opened_to_wait_before_the_cutover(deploy_run: Callable[..., dict[str, Any]]) -> None:
    options = {"reads_requests": True, "hold_before": "pm2_reload"}
    assert deploy_run("opened", check=True, **options)["requests"] == []
    (request,) = deploy_run("opened", **options)["requests"]
    assert (request["action"], request["who"], request["controller"]) == ("hold_cutover", "minsu", HERE)
    over = deploy_run("opened", reads_requests=True, who="jiwoo", takeover=True)
    assert over["requests"] == over["took_over"]["requests"] == [request], "asked by whom, and when, as before"
    assert deploy_run("opened", takeover=True)["requests"] == [], "a rollback reads none"


def test_check_mode_writes_nothing_and_still_refuses(
    login: Login,
    plan: Plan,
    deploy_run: Callable[..., dict[str, Any]],
    deploy_run_info: Callable[..., list[dict[str, Any]]],
) -> None:
    predicted = deploy_run("opened", check=True)
    assert not predicted["changed"]
    assert re.fullmatch(r"\d{8}T\d{6}Z-check", predicted["run_id"])
    assert (predicted["phases"], predicted["plan_sha256"]) == ([], plan.sha256)
    recorded = deploy_run("recorded", check=True, run_id=predicted["run_id"], phase="cleanup", status="ok")
    closed = deploy_run("closed", check=True, run_id=predicted["run_id"], outcome="unchanged")
    assert (recorded["phases"], closed["phases"]) == ([], [])
    assert deploy_run_info() == deploy_run_info(check=True) == []
    with connect(login) as connection:
        assert not own_schema.exists(connection), "reading makes no journal"

    opened = deploy_run("opened")
    for check in (True, False):
        refused = deploy_run("opened", check=check, who="jiwoo")
        assert refused["details"]["holder"]["who"] == "minsu"
    over = deploy_run("opened", check=True, takeover=True)
    assert over["took_over"]["run_id"] == opened["run_id"]
    assert [run["outcome"] for run in deploy_run_info(check=True)] == [None]


def test_from_opened_to_closed(
    plan_data: dict[str, Any],
    deploy_run: Callable[..., dict[str, Any]],
    deploy_run_info: Callable[..., list[dict[str, Any]]],
) -> None:
    first = deploy_run("opened", commit_before="", commit_after="b" * 40)
    assert first["changed"]  # the journal itself is new
    assert (first["run"]["commit_before"], first["run"]["commit_after"]) == (None, "b" * 40)
    run_id = first["run_id"]
    recorded = deploy_run("recorded", run_id=run_id, phase="cleanup", status="ok", details={"removed": 25})
    assert not recorded["changed"]
    assert [set(phase) for phase in recorded["phases"]] == [{"name", "status", "seconds"}]
    closed = deploy_run("closed", run_id=run_id, outcome="stopped", failed_phase="migrate", error="a lock", report={})
    assert not closed["changed"]
    assert (closed["run"]["outcome"], closed["run"]["failed_phase"]) == ("stopped", "migrate")

    second = deploy_run("opened", commit_after="c" * 40)
    assert (second["changed"], second["took_over"]) == (False, {})
    assert [run["run_id"] for run in deploy_run_info(plan=plan_data)] == [second["run_id"], run_id]
    assert len(deploy_run_info(limit=1)) == 1
    assert deploy_run_info(run_id=run_id)[0]["phases"][0]["details"] == {"removed": 25}
    refused = deploy_run("closed", run_id=second["run_id"], outcome="deployed")
    assert refused["seen"] == "A run is to be closed as deployed without its plan."
    back = deploy_run("closed", run_id=second["run_id"], outcome="rolled_back", commit_after="a" * 40)
    assert back["outcome"] == "rolled_back"
    assert (back["run"]["commit_after"], closed["run"]["commit_after"]) == ("a" * 40, "b" * 40)


def test_how_a_run_ended_is_handed_over_for_each_language(
    deploy_run: Callable[..., dict[str, Any]], deploy_run_info: Callable[..., list[dict[str, Any]]]
) -> None:
    found = Finding(
        "",
        observed("AMO-2321", "The server is a standby (in recovery)."),
        say("the primary."),
        say("point database_host at the primary."),
    )
    run_id = deploy_run("opened")["run_id"]
    details = {"error": str(found), "findings": [found.as_data()]}
    deploy_run("recorded", run_id=run_id, phase="cleanup", status="failed", details=details)
    deploy_run("closed", run_id=run_id, outcome="stopped", failed_phase="cleanup", error=str(found))
    deploy_run("opened")
    deploy_run("opened", who="jiwoo", takeover=True)

    said = [
        {language: catalogue.render(handed_over(run["error_phrase"]), language) for language in ("en", "ko")}
        for run in deploy_run_info()
    ]
    assert said[0] == {"en": "", "ko": ""}, "it is at work"
    assert said[1] == {
        "en": "taken over by jiwoo: takeover was asked for",
        "ko": "jiwoo이(가) 이어받음: 이어받기를 요청받음",
    }
    assert said[2]["en"] == str(found).replace(". Expected", ". [AMO-2321] Expected")
    assert said[2]["ko"].startswith("서버가 대기 서버(standby, 복구 모드)입니다. [AMO-2321] 기대: ")


def test_a_second_controller_finds_the_plan_held_until_the_first_is_killed(
    login: Login, plan_data: dict[str, Any], deploy_run: Callable[..., dict[str, Any]]
) -> None:
    """Two real processes: the first opens the run and is killed before it can close it."""
    program = (
        "import json, os, socket, sys, time\n"
        "from at_most_one import plan\n"
        "from at_most_one.postgres import connection as database\n"
        "from at_most_one.runs import journal\n"
        "from at_most_one.runs.controllers import Controller\n"
        "login, data = json.load(sys.stdin)\n"
        "with database.connect(database.Login(**login)) as connection:\n"
        "    who = Controller(socket.gethostname(), os.getpid())\n"
        "    journal.open_run(connection, journal.Opening(plan.parse(data), 'production', 'first', who))\n"
        "print('open', flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    first = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert first.stdin is not None
        assert first.stdout is not None
        json.dump([{**vars(login)}, plan_data], first.stdin)
        first.stdin.close()
        assert first.stdout.readline() == "open\n"
        refused = deploy_run("opened")
        assert f"first, since {refused['details']['holder']['since']}" in refused["seen"]
        assert refused["details"]["holder"]["controller_pid"] == first.pid
    finally:
        first.kill()
        first.wait()
    took_over = deploy_run("opened")["took_over"]
    assert (took_over["who"], took_over["reached"]["point"]) == ("first", "nothing")


def test_a_run_that_goes_on_knows_what_the_release_before_it_all_answered(
    deploy_run: Callable[..., dict[str, Any]],
) -> None:
    killed = deploy_run("opened", commit_before="a" * 40, commit_after="b" * 40)
    assert killed["faults_before"] == {}
    phase = {"run_id": killed["run_id"], "status": "ok"}
    deploy_run("recorded", phase="prepare", details={"faults_before": {"monitoring": []}}, **phase)
    deploy_run("recorded", phase="pm2_reload", **phase)
    taken_over = deploy_run("opened", commit_before="b" * 40, commit_after="b" * 40, takeover=True)
    assert taken_over["faults_before"] == {"monitoring": []}
