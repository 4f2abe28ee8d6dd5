"""One unfinished run per plan: real processes, real clocks of the database, a hundred openings at once."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login, connect
from at_most_one.runs import controllers, journal, undo
from at_most_one.runs.controllers import Controller
from at_most_one.runs.journal import Opening
from at_most_one.system.processes import start_ticks

from tests.support.ports import wait_until

HERE = socket.gethostname()


@pytest.fixture
def opening(plan: Plan) -> Opening:
    """A run of this test's own process, which is alive."""
    return Opening(plan, "production", "minsu", Controller(HERE, os.getpid()), "a" * 40, "b" * 40)


@pytest.fixture
def dead() -> Controller:
    """A controller on this host that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    controller = Controller(HERE, process.pid)
    process.wait()
    return controller


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the test ends it."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def open_run(login: Login, opening: Opening, *, takeover: bool = False) -> journal.Opened:
    with connect(login) as connection:
        return journal.open_run(connection, opening, takeover=takeover)


def runs(login: Login) -> list[dict[str, Any]]:
    with connect(login) as connection:
        return journal.read(connection)


def keep_journal(login: Login, opening: Opening) -> None:
    """Let the journal be there, and no run of the plan."""
    with connect(login) as connection:
        journal.close_run(connection, journal.open_run(connection, opening).run_id, "stopped")


def test_a_phase_can_be_recorded_after_it_has_ended(login: Login, opening: Opening) -> None:
    run_id = open_run(login, opening).run_id
    with connect(login) as connection:
        journal.record(connection, run_id, "verify", "ok", {})
        began = time.monotonic()
        journal.record(connection, run_id, "pm2_reload", "ok", {}, ago_s=3_600)  # never before the one it follows
        time.sleep(0.3)
        journal.record(connection, run_id, "healthcheck", "ok", {}, ago_s=0.2)
        took_s = time.monotonic() - began
        (run,) = journal.read(connection, run_id=run_id)
    phases = {phase["name"]: phase["seconds"] for phase in run["phases"]}
    assert list(phases) == ["verify", "pm2_reload", "healthcheck"]
    assert phases["pm2_reload"] == 0
    assert 0.1 <= phases["healthcheck"] <= took_s - 0.2 + 0.05  # it is rounded


def test_no_phase_has_ended_in_the_future_where_the_control_nodes_clock_was_set_back(
    login: Login, opening: Opening
) -> None:
    run_id = open_run(login, opening).run_id
    with connect(login) as connection:
        journal.record(connection, run_id, "pm2_reload", "ok", {}, ago_s=-3_600)
        journal.record(connection, run_id, "healthcheck", "ok", {})
        (run,) = journal.read(connection, run_id=run_id)
    assert all(phase["seconds"] < 600 for phase in run["phases"])


def test_a_run_from_beginning_to_end(login: Login, opening: Opening) -> None:
    assert runs(login) == []
    opened = open_run(login, opening)
    assert opened.created
    assert opened.took_over is None
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", opened.run_id)

    for phase, status in (("prepare", "unchanged"), ("cleanup", "ok")):
        with connect(login) as connection:
            journal.record(connection, opened.run_id, phase, status, {"removed": 25, "말": "정상"})
    with connect(login) as connection:
        journal.close_run(connection, opened.run_id, "deployed", report={"duplicates_left": 0})
        journal.close_run(connection, opened.run_id, "deployed")  # the same again: nothing to say

    (run,) = runs(login)
    assert (run["who"], run["environment"], run["outcome"]) == ("minsu", "production", "deployed")
    assert (run["plan_id"], run["plan_sha256"]) == (opening.plan.id, opening.plan.sha256)
    assert (run["commit_before"], run["commit_after"]) == ("a" * 40, "b" * 40)
    assert run["report"] == {"duplicates_left": 0}
    assert [(phase["name"], phase["status"]) for phase in run["phases"]] == [
        ("prepare", "unchanged"),
        ("cleanup", "ok"),
    ]
    assert run["phases"][1]["details"] == {"removed": 25, "말": "정상"}
    assert 0 <= sum(phase["seconds"] for phase in run["phases"]) <= run["seconds"]
    assert not open_run(login, opening).created


@pytest.mark.parametrize("archived", [True, False, None])
def test_a_run_is_deployed_only_when_every_planned_row_is_accounted_for(
    login: Login, opening: Opening, plan: Plan, example: Any, archived: bool | None
) -> None:
    """What the clean-up says of itself is not enough: the archive is asked. ``None``: somebody has dropped it."""
    run = open_run(login, opening)
    if archived:
        with connect(login) as connection:
            found = surplus_rows.report(connection, plan)
            surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id=run.run_id)
    with connect(login) as connection, connection.cursor() as cursor:
        if archived is None:
            cursor.execute("DROP TABLE at_most_one.archived_row CASCADE")
        claimed = {"planned": 27, "archived": 27, "kept_meanwhile": 1, "gone_meanwhile": 1}
        journal.record(connection, run.run_id, "cleanup", "ok", claimed)
    if not archived:
        says = "planned 27 rows, the archive has 0 of it, and 2 are known"
        with pytest.raises(OperatorError, match=says), connect(login) as connection:
            journal.close_run(connection, run.run_id, "deployed")
        assert runs(login)[0]["outcome"] is None
    with connect(login) as connection:
        journal.close_run(connection, run.run_id, "deployed" if archived else "stopped")


def test_a_clean_up_whose_answer_was_lost_has_removed_what_the_archive_has(
    login: Login, opening: Opening, plan: Plan, example: Any
) -> None:
    """A module that is killed says nothing, and a lost answer counts as none: the rows are the run's all the same."""
    run_id = open_run(login, opening).run_id
    with connect(login) as connection:
        found = surplus_rows.report(connection, plan)
        surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id=run_id)
    with connect(login) as connection:
        journal.record(connection, run_id, "cleanup", "failed", {"error": "killed", "removed": 0})
        journal.close_run(connection, run_id, "stopped", failed_phase="cleanup")
    (run,) = runs(login)
    assert run["phases"][0]["details"] == {"error": "killed", "removed": 25}
    last = undo.last_deployment([run])
    assert last is not None
    assert (last.runs, last.database) == ((run_id,), True)

    refused = open_run(login, opening).run_id
    with connect(login) as connection:
        journal.record(connection, refused, "cleanup", "failed", {"removed": 0})
        (run,) = journal.read(connection, run_id=refused)
    assert run["phases"][0]["details"] == {"removed": 0}, "of another run's rows it has none"


def test_the_holder_is_named(login: Login, opening: Opening) -> None:
    first = open_run(login, opening)
    with connect(login) as connection:
        journal.record(connection, first.run_id, "cleanup", "ok", {})
    with pytest.raises(OperatorError) as stop:
        open_run(login, replace(opening, who="jiwoo"))
    assert re.search(
        rf"held by run {first.run_id}: minsu, since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ \(0 min \d+ s ago\), "
        rf"from {re.escape(HERE)} \(pid {os.getpid()}\), last finished phase cleanup\.",
        stop.value.seen,
    )
    assert stop.value.details["holder"]["run_id"] == first.run_id


def test_a_run_that_is_only_just_being_opened_is_named_as_that(login: Login, opening: Opening) -> None:
    """Nobody can say yet who it is: it is not committed."""
    keep_journal(login, opening)
    with connect(login) as other, connect(login, lock_timeout_ms=200) as connection:
        journal.open_run(other, opening)
        with pytest.raises(OperatorError, match="was being opened or closed at this moment") as stop:
            journal.open_run(connection, opening)
        assert "start again" in stop.value.next_step
        other.rollback()
        assert journal.open_run(connection, opening).run_id, "the connection is as good as before"


def test_another_plan_is_not_held(login: Login, opening: Opening) -> None:
    open_run(login, opening)
    assert open_run(login, replace(opening, plan=replace(opening.plan, id="another-plan"))).took_over is None


def test_a_hundred_openings_at_once_have_one_winner(login: Login, opening: Opening) -> None:
    """On a database without a journal, so that its creation is part of the race."""
    simultaneous = 100
    start = threading.Barrier(simultaneous)

    def attempt(number: int) -> str:
        start.wait()
        while True:
            try:
                return open_run(login, replace(opening, who=f"person {number}")).run_id
            except OperatorError as refused:
                if not refused.seen.startswith("No connection"):  # more people than connections: they keep knocking
                    return refused.seen
            time.sleep(0.01)

    with ThreadPoolExecutor(simultaneous) as people:
        answers = list(people.map(attempt, range(simultaneous)))

    (run,) = runs(login)
    refusals = [answer for answer in answers if answer != run["run_id"]]
    assert len(refusals) == simultaneous - 1
    assert all(f"held by run {run['run_id']}: {run['who']}" in refusal for refusal in refusals), refusals


def test_a_dead_process_on_this_host_frees_the_plan(
    login: Login, opening: Opening, sleeper: subprocess.Popen[bytes]
) -> None:
    held = open_run(login, replace(opening, controller=Controller(HERE, sleeper.pid)))
    with pytest.raises(OperatorError, match=f"pid {sleeper.pid}"):
        open_run(login, opening)

    sleeper.kill()
    wait_until(lambda: start_ticks(sleeper.pid) is None)  # a zombie until it is waited for: gone all the same
    second = open_run(login, replace(opening, who="jiwoo"))

    assert second.took_over is not None
    assert second.took_over["run_id"] == held.run_id
    assert second.took_over["who"] == "minsu"
    new, old = runs(login)
    assert (old["outcome"], old["taken_over_by"]) == ("abandoned", second.run_id)
    assert old["error"] == f"taken over by jiwoo: its process {sleeper.pid} on {HERE} is gone"
    assert (new["run_id"], new["outcome"]) == (second.run_id, None)


def dead_since(login: Login) -> str | None:
    since: str | None = runs(login)[0]["dead_since"]
    return since


def second_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_run_is_dead_once_its_process_is_gone_or_its_lease_has_ended(
    login: Login, opening: Opening, sleeper: subprocess.Popen[bytes]
) -> None:
    def expire() -> None:
        with connect(login) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE at_most_one.run SET lease_until = '2020-01-01 00:00:00+00' WHERE outcome IS NULL")

    run = open_run(login, replace(opening, controller=Controller(HERE, sleeper.pid)))
    assert dead_since(login) is None
    expire()
    assert dead_since(login) is None  # a long phase: its process is there
    earliest = second_now()
    with connect(login) as connection:
        journal.renew(connection, run.run_id)
    latest = second_now()

    sleeper.kill()
    sleeper.wait()
    assert earliest <= str(dead_since(login)) <= latest  # the last sign of life
    expire()
    assert dead_since(login) == "2020-01-01T00:00:00Z"

    elsewhere = open_run(login, replace(opening, controller=Controller("gateway-2", 1)))
    assert dead_since(login) is None
    expire()
    assert dead_since(login) == "2020-01-01T00:00:00Z"
    with connect(login) as connection:
        journal.close_run(connection, elsewhere.run_id, "stopped")
    assert [one["dead_since"] for one in runs(login)] == [None, None]
    assert not {"controller_process", "lease_expired", "last_sign_at"} & {*runs(login)[0]}


def test_a_pid_that_was_given_to_another_process_is_a_dead_one(
    login: Login, opening: Opening, sleeper: subprocess.Popen[bytes]
) -> None:
    open_run(login, replace(opening, controller=Controller(HERE, sleeper.pid)))
    with connect(login) as connection, connection.cursor() as cursor:  # as if it had started one tick earlier
        cursor.execute(
            "UPDATE at_most_one.run SET controller_process = regexp_replace(controller_process, '/(\\d+)$', '/1')"
        )
    assert open_run(login, opening).took_over is not None


@pytest.mark.parametrize(
    "elsewhere",
    [
        "UPDATE at_most_one.run SET controller_process = 'another-boot/pid:[1]/1'",
        "UPDATE at_most_one.run SET controller_process = NULL",
    ],
)
def test_a_process_that_cannot_be_seen_from_here_counts_as_alive(
    login: Login, opening: Opening, dead: Controller, elsewhere: str
) -> None:
    open_run(login, replace(opening, controller=dead))
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(elsewhere)
    with pytest.raises(OperatorError, match="is held by run"):
        open_run(login, opening)


def test_another_hosts_process_is_never_looked_up_here(login: Login, opening: Opening) -> None:
    other = Controller("gateway-2", os.getpid())
    assert other.process() is None
    open_run(login, replace(opening, controller=other))
    with pytest.raises(OperatorError, match="from gateway-2"):
        open_run(login, opening)


def test_a_lease_that_ended_under_a_living_process_is_said_as_that(login: Login, opening: Opening) -> None:
    held = open_run(login, replace(opening, controller=Controller(HERE, os.getpid())))
    with pytest.raises(OperatorError, match=r"may be taken over once its lease has ended \("):
        open_run(login, opening)
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE at_most_one.run SET lease_until = '2020-01-01 00:00:00+00'")
    with pytest.raises(OperatorError, match="its lease ended at 2020-01-01T00:00:00Z, and its process is still there"):
        open_run(login, opening)
    assert [run["run_id"] for run in runs(login)] == [held.run_id]


@pytest.mark.parametrize("check", [False, True])
def test_a_lease_shorter_than_a_run_can_renew_is_refused_by_name(login: Login, opening: Opening, check: bool) -> None:
    short = replace(opening, lease_minutes=journal.SHORTEST_LEASE_MINUTES - 1)
    with pytest.raises(OperatorError, match="run_lease_minutes is 4"), connect(login) as connection:
        (journal.look if check else journal.open_run)(connection, short)
    assert runs(login) == []


def test_the_lease_ends_and_each_phase_renews_it(login: Login, opening: Opening) -> None:
    held = open_run(login, replace(opening, controller=Controller("gateway-2", 1), lease_minutes=5))
    expire = "UPDATE at_most_one.run SET lease_until = clock_timestamp() - interval '1 second'"
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(expire)
        journal.record(connection, held.run_id, "cleanup", "ok", {})
        cursor.execute(
            "SELECT lease_until - clock_timestamp() BETWEEN interval '4 minutes' AND interval '5 minutes'"
            " FROM at_most_one.run"
        )
        assert cursor.fetchone() == (True,)
    with pytest.raises(OperatorError, match="is held by run"):
        open_run(login, opening)

    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(expire)
    took_over = open_run(login, opening).took_over
    assert took_over is not None
    assert took_over["phase"] == "cleanup"


def test_whoever_was_taken_over_stops_at_the_next_phase(login: Login, opening: Opening) -> None:
    first = open_run(login, opening)
    second = open_run(login, replace(opening, who="jiwoo"), takeover=True)
    with connect(login) as connection:
        for go_on in (
            lambda: journal.record(connection, first.run_id, "migrate", "ok", {}),
            lambda: journal.close_run(connection, first.run_id, "deployed"),
        ):
            with pytest.raises(OperatorError, match=f"was closed as abandoned by run {second.run_id}"):
                go_on()
    assert [run["outcome"] for run in runs(login)] == [None, "abandoned"]
    with connect(login) as connection, pytest.raises(OperatorError, match="is not in the journal"):
        journal.record(connection, "20251110T053000Z-000000", "migrate", "ok", {})


def test_the_database_itself_allows_one_unfinished_run(login: Login, opening: Opening) -> None:
    open_run(login, opening)
    with connect(login) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.UniqueViolation, match="run_one_unfinished_per_plan"):
            cursor.execute(
                'INSERT INTO at_most_one.run SELECT (jsonb_populate_record(r, \'{"run_id": "other"}\')).*'
                " FROM at_most_one.run r"
            )
        connection.rollback()


def test_the_second_run_needs_no_privilege_to_create(login: Login, opening: Opening) -> None:
    first = open_run(login, opening)
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("DROP ROLE IF EXISTS at_most_one_test_deployer")
        cursor.execute("CREATE ROLE at_most_one_test_deployer")
        cursor.execute("GRANT USAGE ON SCHEMA at_most_one TO at_most_one_test_deployer")
        cursor.execute("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA at_most_one TO at_most_one_test_deployer")
        journal.close_run(connection, first.run_id, "unchanged")
        connection.commit()
        cursor.execute("SET ROLE at_most_one_test_deployer")
        assert not journal.open_run(connection, opening).created
        connection.rollback()
        cursor.execute("RESET ROLE")
        cursor.execute("DROP SCHEMA at_most_one CASCADE")
        cursor.execute("SET ROLE at_most_one_test_deployer")
        with pytest.raises(
            OperatorError, match=r"cannot be created.*permission denied.*Next: GRANT CREATE ON DATABASE"
        ):
            journal.open_run(connection, opening)
        connection.rollback()
        cursor.execute("RESET ROLE")
        cursor.execute("DROP OWNED BY at_most_one_test_deployer")
        cursor.execute("DROP ROLE at_most_one_test_deployer")


def test_a_living_process_is_not_proven_dead(sleeper: subprocess.Popen[bytes]) -> None:
    mine = Controller(HERE, sleeper.pid).process()
    assert not controllers.proven_dead(mine, sleeper.pid)
    init = Controller(HERE, 1).process()
    assert not controllers.proven_dead(init, 1)
    assert not controllers.proven_dead(None, 2**22 + 1)
