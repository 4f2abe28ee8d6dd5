"""A run does what people ask of it, between two steps: it pauses, goes on, waits before the cutover, ends.

Meanwhile the rule holds against real writers, nothing is lost, and the lease is renewed.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one import catalogue
from at_most_one.cleanup import phase
from at_most_one.cleanup.account import Account
from at_most_one.duplicates.batches import Pace
from at_most_one.errors import OperatorError
from at_most_one.indexes import build_concurrently
from at_most_one.migration import build
from at_most_one.plan import Plan
from at_most_one.postgres import own_schema
from at_most_one.postgres.checkpoint import Place
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.runs import control, control_status, journal, requests
from at_most_one.runs.control import Checkpoints
from at_most_one.runs.controllers import Controller
from at_most_one.runs.journal import Opening

from tests.database.cleaning import INSPECTOR, TABLE, ids, run
from tests.database.conftest import ROOT
from tests.database.index_tools import inspect, verdicts
from tests.support.ports import wait_until
from tests.support.postgres import Server, superuser

POLL_S = 0.02
SMALL = Pace(first=5, smallest=5, largest=5)  # five batches of the guide's 25 rows
OPEN_TWICE = (
    f"SELECT count(*) FROM (SELECT FROM {TABLE} WHERE status IN ('active', 'paused') GROUP BY equipment_serial"
    " HAVING count(*) > 1) AS twice"
)
CUTOVER = Place("pm2_reload", "hosts", 0, 1)
BETWEEN = Place("pm2_reload", "hosts", 1, 3)


@pytest.fixture
def opening(plan: Plan) -> Opening:
    """A deployment of another host."""
    return Opening(plan, "production", "minsu", Controller("gateway-2", 1), reads_requests=True)


@pytest.fixture
def held(login: Login, opening: Opening) -> str:
    with connect(login) as connection:
        return journal.open_run(connection, opening).run_id


def ask(login: Login, plan: Plan, action: str, *, check: bool = False, who: str = "jiwoo") -> requests.Answer:
    with connect(login) as connection:
        return requests.ask(connection, plan.id, action, who, "laptop", check=check)


def status(login: Login, plan: Plan) -> dict[str, Any]:
    with connect(login) as connection:
        return control_status.read(connection, plan.id)


def clean(login: Login, plan: Plan, run_id: str, pace: Pace = SMALL) -> phase.Progress:
    """The clean-up as the module does it, with the lease renewed every moment."""
    done = phase.Progress(Account())
    with journal.kept_alive(login, run_id, every_s=POLL_S), connect(login) as connection:
        phase.clean(
            *(connection, plan, run_id, phase.Limits(pace=pace), done),
            hold=journal.holding(run_id),
            checkpoint=Checkpoints(run_id, POLL_S),
        )
    return done


def waits(login: Login, plan: Plan) -> bool:
    return bool(status(login, plan)["waiting"])


def archived(connection: Connection) -> set[str]:
    return {key for (key,) in run(connection, "SELECT primary_key ->> 'id' FROM at_most_one.archived_row")}


@contextmanager
def beside(login: Login, act: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Runs ``act`` beside the test. Where the test fails first, its run is closed, so that nothing waits for ever."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(act)
        try:
            yield future
        except BaseException:
            with connect(login, autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute("UPDATE at_most_one.run SET finished_at = now(), outcome = 'stopped'")
            raise


class Writers:
    """Eight sessions of the service that open and close sessions on a few equipments, as fast as they can."""

    def __init__(self, login: Login, serials: list[str]) -> None:
        self.login, self.serials, self.over = login, serials, threading.Event()
        self.written: set[str] = set()  # what the server has confirmed
        self.refused = 0
        self.faults: list[BaseException] = []
        self.threads = [threading.Thread(target=self._write, args=(number,)) for number in range(8)]

    def __enter__(self) -> Writers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)

    def _write(self, number: int) -> None:
        try:
            connection = superuser(self.login)
            for turn in itertools.count(number):
                if self.over.is_set():
                    break
                serial, identifier = self.serials[turn % len(self.serials)], str(uuid.uuid4())
                with connection.cursor() as cursor:
                    try:
                        cursor.execute(
                            f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status)"
                            " VALUES (%s, %s, %s, 'active')",
                            (identifier, serial, INSPECTOR),
                        )
                        self.written.add(identifier)
                        cursor.execute(f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s", (identifier,))
                    except psycopg2.errors.UniqueViolation:
                        self.refused += 1
                time.sleep(0.001)  # so that the clean-up gets a turn on a machine with one core
            connection.close()
        except BaseException as fault:  # handed to the test's own thread
            self.faults.append(fault)


def test_eight_writers_under_a_pause_break_no_rule_and_lose_nothing(
    login: Login, plan: Plan, connection: Connection, example: Any, held: str
) -> None:
    """Paused after two batches, killed there, taken over, resumed: every surplus row leaves, every other one stays."""
    before, serials = ids(connection), [*example.keep, "AED-NEW-1", "AED-NEW-2"]
    asks = iter(range(100))

    class Pausing(Checkpoints):
        def __call__(self, connection: Connection, place: Place) -> float:
            if next(asks) == 2:
                ask(login, plan, "pause")
            return super().__call__(connection, place)

    done = phase.Progress(Account())
    checkpoint = Pausing(held, POLL_S)

    def work() -> None:
        with journal.kept_alive(login, held, every_s=POLL_S), connect(login) as own:
            limits = phase.Limits(pace=SMALL)
            phase.clean(own, plan, held, limits, done, hold=journal.holding(held), checkpoint=checkpoint)

    with beside(login, work) as cleaning:
        wait_until(lambda: waits(login, plan), 60)
        gone = before - ids(connection)
        assert gone == archived(connection)
        assert 0 < len(gone) < 25, "two whole batches"
        (lease,) = run(connection, "SELECT lease_until FROM at_most_one.run")[0]
        with Writers(login, serials) as writers:
            wait_until(lambda: writers.refused > 100 and len(writers.written) > 100, 60)
            assert before - ids(connection) == gone, "nothing leaves during a pause"
        assert writers.faults == []
        assert writers.written <= ids(connection), "nothing of the service is lost"
        surplus_left = len(example.surplus) - len(gone)
        assert run(connection, f"SELECT count(*) FROM {TABLE} WHERE status IN ('active', 'paused')") == [
            (len(example.keep) + surplus_left,)
        ], "no equipment has got one more"
        assert run(connection, "SELECT lease_until FROM at_most_one.run")[0][0] > lease, "the lease is renewed"
        with Writers(login, serials) as writers:
            assert ask(login, plan, "resume").changed
            cleaning.result(60)
        assert writers.faults == []
    assert writers.written <= ids(connection)
    assert before - ids(connection) == example.surplus == archived(connection)
    assert run(connection, OPEN_TWICE) == [(0,)]
    assert (done.account.planned, done.account.removed) == (25, 25)


PAUSED_PROCESS = """
import os, sys
from at_most_one import plan
from at_most_one import catalogue
from at_most_one.cleanup import phase
from at_most_one.cleanup.account import Account
from at_most_one.duplicates.batches import Pace
from at_most_one.postgres.connection import Login, connect
from at_most_one.runs import journal
from at_most_one.runs.control import Checkpoints
from at_most_one.runs.controllers import Controller
import socket, yaml
plan = plan.parse(yaml.safe_load(open(sys.argv[1])))
login = Login(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5], sys.argv[6])
here = Controller(socket.gethostname(), os.getpid())
with connect(login) as connection:
    opening = journal.Opening(plan, "production", "minsu", here, reads_requests=True)
    run_id = journal.open_run(connection, opening).run_id
print(run_id, flush=True)
sys.stdin.readline()
with journal.kept_alive(login, run_id), connect(login) as connection:
    limits = phase.Limits(pace=Pace(first=5, smallest=5, largest=5))
    phase.clean(connection, plan, run_id, limits, phase.Progress(Account()),
        hold=journal.holding(run_id), checkpoint=Checkpoints(run_id, 0.02))
"""


def test_a_pause_outlives_a_killed_controller_and_the_run_that_takes_over_goes_on_once_it_is_lifted(
    login: Login, plan: Plan, connection: Connection, example: Any
) -> None:
    before = ids(connection)
    place = (login.host, str(login.port), login.dbname, login.user, login.password)
    command = [sys.executable, "-c", PAUSED_PROCESS, str(ROOT / f"plans/{plan.id}.yml"), *place]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "module_utils")}
    killed = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert killed.stdin
    assert killed.stdout
    first = killed.stdout.readline().strip()
    ask(login, plan, "pause")
    ask(login, plan, "hold_cutover", who="hana")
    killed.stdin.write("\n")
    killed.stdin.flush()
    wait_until(lambda: waits(login, plan), 60)
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    dead = status(login, plan)
    assert (dead["run_id"], bool(dead["dead_since"]), dead["waiting"]["for"]) == (first, True, "pause")

    opening = Opening(plan, "production", "minsu", Controller("gateway-2", 1), reads_requests=True)
    opened = journal.open_run(connection, opening)
    connection.commit()
    assert opened.took_over is not None
    assert [one["action"] for one in opened.took_over["requests"]] == ["pause", "hold_cutover"]
    assert [one.who for one in requests.read(connection, opened.run_id)] == ["jiwoo", "hana"]
    connection.commit()
    with beside(login, lambda: clean(login, plan, opened.run_id)) as cleaning:
        wait_until(lambda: waits(login, plan), 60)
        assert ids(connection) == before, "it pauses as the one before was asked to"
        ask(login, plan, "resume")
        cleaning.result(60)
    assert before - ids(connection) == example.surplus == archived(connection)
    found = status(login, plan)
    assert [one["action"] for one in found["requests"] if one["in_force"]] == ["hold_cutover"]


def test_a_call_whose_controller_is_gone_waits_no_longer(
    login: Login, plan: Plan, connection: Connection, example: Any
) -> None:
    """As over ssh: the module lives on, and nobody reads its output any more."""
    before = ids(connection)
    place = (login.host, str(login.port), login.dbname, login.user, login.password)
    command = [sys.executable, "-c", PAUSED_PROCESS, str(ROOT / f"plans/{plan.id}.yml"), *place]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "module_utils")}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as left:
        assert left.stdin
        assert left.stdout
        assert left.stderr
        left.stdout.readline()
        ask(login, plan, "pause")
        left.stdin.write("\n")
        left.stdin.flush()
        wait_until(lambda: waits(login, plan), 60)
        assert left.poll() is None
        left.stdout.close()
        assert left.wait(60) != 0
        assert "has waited until its controller was gone" in left.stderr.read()
    assert ids(connection) == before


def test_an_abort_is_not_inherited_and_is_told(login: Login, plan: Plan, connection: Connection, held: str) -> None:
    ask(login, plan, "abort")
    run(connection, "UPDATE at_most_one.run SET lease_until = clock_timestamp() - interval '1 second'")
    opening = Opening(plan, "production", "minsu", Controller("gateway-3", 1), reads_requests=True)
    seen = journal.look(connection, opening).took_over
    opened = journal.open_run(connection, opening)
    connection.commit()
    for took_over in (seen, opened.took_over):
        assert took_over is not None
        assert [(one["action"], one["who"]) for one in took_over["requests"]] == [("abort", "jiwoo")]
    assert requests.read(connection, opened.run_id) == []


def test_a_rollback_that_takes_over_inherits_nothing(
    login: Login, plan: Plan, connection: Connection, opening: Opening, held: str
) -> None:
    ask(login, plan, "pause")
    opened = journal.open_run(connection, replace(opening, reads_requests=False), takeover=True)
    connection.commit()
    assert requests.read(connection, opened.run_id) == []


@pytest.mark.usefixtures("example")
def test_an_abort_ends_the_clean_up_between_two_batches_and_says_who_asked(
    login: Login, plan: Plan, connection: Connection, held: str
) -> None:
    before = ids(connection)
    ask(login, plan, "pause")
    with beside(login, lambda: clean(login, plan, held)) as cleaning:
        wait_until(lambda: waits(login, plan), 60)
        ask(login, plan, "abort", who="hana")
        with pytest.raises(OperatorError) as ended:
            cleaning.result(60)
    assert f"Run {held} was asked to end by hana from laptop at 20" in ended.value.seen
    assert "between two batches of the clean-up" in ended.value.seen
    assert (ended.value.details["cause"], ended.value.details["removed"]) == ("aborted", 0)
    assert "rollback_automatic" in ended.value.next_step
    assert ids(connection) == before
    assert not waits(login, plan), "it no longer waits"


def build_options(run_id: str) -> build.Options:
    return build.Options("concurrent", 500, 1, 30, 30, 3000, 60000, None, run_id)


def test_an_index_waits_for_the_pause(login: Login, plan: Plan, held: str) -> None:
    inspection, asks = inspect(login, plan), []

    class PausedAfterOne(Checkpoints):
        def __call__(self, connection: Connection, place: Place) -> float:
            asks.append((place.done, place.total, verdicts(login, plan).count("present")))
            if place.done == 1:
                ask(login, plan, "pause")
            return super().__call__(connection, place)

    def work() -> None:
        limits = build_concurrently.Limits(deadline_s=300)
        build_concurrently.build(
            login, plan, inspection, limits, hold=journal.holding(held), checkpoint=PausedAfterOne(held, POLL_S)
        )

    with beside(login, work) as building:
        wait_until(lambda: waits(login, plan), 60)
        assert status(login, plan)["unit"] == "indexes"
        ask(login, plan, "resume")
        building.result(60)
    assert asks == [(0, 3, 0), (1, 3, 1), (2, 3, 2)]
    assert verdicts(login, plan) == ["present"] * 3


@pytest.mark.parametrize("waited_s", [0.0, 300.0])
def test_what_a_build_waited_for_a_person_is_no_part_of_its_deadline(login: Login, plan: Plan, waited_s: float) -> None:
    inspection, limits = inspect(login, plan), build_concurrently.Limits(deadline_s=0.001)

    def work() -> None:
        build_concurrently.build(login, plan, inspection, limits, checkpoint=lambda connection, place: waited_s)

    if waited_s:
        work()
    else:
        with pytest.raises(OperatorError, match="did not end within the"):
            work()
    assert verdicts(login, plan) == ["present" if waited_s else "missing"] * 3


def test_a_build_that_is_to_end_begins_no_index(login: Login, plan: Plan, held: str) -> None:
    ask(login, plan, "abort")
    with pytest.raises(OperatorError, match="has ended before the indexes were built"):
        build.wait_if_asked(login, plan, build_options(held))
    inspection = inspect(login, plan)
    with pytest.raises(OperatorError, match="was asked to end by jiwoo"):
        build_concurrently.build(
            login, plan, inspection, build_concurrently.Limits(30), checkpoint=build_options(held).checkpoint
        )
    assert verdicts(login, plan) == ["missing"] * 3


def test_the_cutover_is_held_by_its_own_settings_until_somebody_continues(
    login: Login, plan: Plan, connection: Connection, opening: Opening
) -> None:
    opened = journal.open_run(connection, replace(opening, hold_cutover=True))
    connection.commit()
    assert [(one.action, one.who, one.controller) for one in requests.read(connection, opened.run_id)] == [
        ("hold_cutover", "minsu", "gateway-2")
    ]
    connection.commit()
    with beside(login, lambda: control.before_switching(login, opened.run_id, CUTOVER, poll_s=POLL_S)) as waiting:
        wait_until(lambda: waits(login, plan), 60)
        ask(login, plan, "resume")
        time.sleep(10 * POLL_S)
        assert not waiting.done(), "resume lifts a pause alone"
        found = status(login, plan)
        assert (found["phase"], found["waiting"]["for"], found["waiting"]["lifted_by"]) == (
            *("pm2_reload", "hold_cutover", "continue"),
        )
        assert found["waiting"]["seconds"] >= 0
        ask(login, plan, "continue")
        assert waiting.result(30) > 0
    assert control.before_switching(login, opened.run_id, CUTOVER) == 0
    assert not waits(login, plan)


def test_between_two_hosts_a_pause_holds_and_a_hold_of_the_cutover_does_not(
    login: Login, plan: Plan, connection: Connection, held: str
) -> None:
    ask(login, plan, "hold_cutover")
    run(connection, "UPDATE at_most_one.run SET lease_until = clock_timestamp() + interval '1 second'")
    assert control.before_switching(login, held, BETWEEN) == 0, "the first host is switched already"
    assert run(connection, "SELECT lease_until > clock_timestamp() + interval '1 minute' FROM at_most_one.run") == [
        (True,)
    ], "the lease is renewed before each batch"
    ask(login, plan, "pause")
    with beside(login, lambda: control.before_switching(login, held, BETWEEN, poll_s=POLL_S)) as waiting:
        wait_until(lambda: waits(login, plan), 60)
        found = status(login, plan)
        assert (found["phase"], found["unit"], found["done"], found["total"]) == ("pm2_reload", "hosts", 1, 3)
        assert not waiting.done()
        ask(login, plan, "resume")
        assert waiting.result(30) > 0
    assert status(login, plan)["done"] == 1


def test_a_run_that_is_to_end_switches_no_further_host(login: Login, plan: Plan, held: str) -> None:
    ask(login, plan, "abort", who="hana")
    with pytest.raises(OperatorError, match="has ended with 1 of 3 hosts done") as end:
        control.before_switching(login, held, BETWEEN)
    korean = catalogue.render(end.value.seen, "ko")
    assert re.findall("[a-z]{2,}", korean.replace(held, "")) == ["hana", "laptop"]


def test_the_module_asks_between_two_hosts_and_nobody_in_check_mode(
    run_module: Callable[..., dict[str, Any]], login_args: dict[str, Any], login: Login, plan: Plan, held: str
) -> None:
    given = {"login": login_args, "run_id": held, "hosts_done": 1, "hosts": 3}
    asked = run_module("run_checkpoint", given)
    assert (asked["changed"], asked["waited_s"]) == (False, 0)
    ask(login, plan, "abort")
    assert not run_module("run_checkpoint", given, check=True).get("failed")
    stopped = run_module("run_checkpoint", given)
    assert "has ended with 1 of 3 hosts done" in stopped["msg"]
    assert stopped["details"]["cause"] == "aborted"


def test_a_hold_outlasts_a_server_that_is_gone_for_a_moment(
    login: Login, plan: Plan, server: Server, held: str
) -> None:
    ask(login, plan, "hold_cutover")
    with beside(login, lambda: control.before_switching(login, held, CUTOVER, poll_s=POLL_S)) as waiting:
        wait_until(lambda: waits(login, plan), 60)
        since = status(login, plan)["waiting"]["since"]
        time.sleep(1.1)
        server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{login.dbname}' AND query LIKE '%at_most_one.request%'"
        )
        time.sleep(10 * POLL_S)
        assert not waiting.done()
        assert status(login, plan)["waiting"]["since"] == since
        ask(login, plan, "continue")
        waiting.result(30)


def test_a_run_that_was_taken_over_stops_waiting(
    login: Login, plan: Plan, connection: Connection, opening: Opening, held: str
) -> None:
    ask(login, plan, "pause")
    with beside(login, lambda: control.before_switching(login, held, CUTOVER, poll_s=POLL_S)) as waiting:
        wait_until(lambda: waits(login, plan), 60)
        second = journal.open_run(connection, opening, takeover=True).run_id
        connection.commit()
        with pytest.raises(OperatorError, match=f"closed as abandoned by run {second}"):
            waiting.result(30)


def test_how_far_it_is_is_noted_at_once_and_then_every_two_seconds(
    login: Login, plan: Plan, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Checkpoints(held, POLL_S)
    with connect(login, autocommit=True) as connection:
        monkeypatch.setattr(control, "_WRITE_S", 3600)
        for done in range(3):
            assert at(connection, Place("cleanup", "rows", done, 8)) == 0
        assert status(login, plan)["done"] == 0
        monkeypatch.setattr(control, "_WRITE_S", 0)
        at(connection, Place("cleanup", "rows", 4, 8))
        assert status(login, plan)["done"] == 4


def test_how_far_it_is(login: Login, plan: Plan, held: str) -> None:
    found = status(login, plan)
    assert (found["phase"], found["done"], found["left_s"]) == ("prepare", None, None)
    at = Checkpoints(held, POLL_S)
    with connect(login, autocommit=True) as connection:
        at(connection, Place("cleanup", "rows", 0, 100))
        time.sleep(0.2)
        at._noted = float("-inf")
        at(connection, Place("cleanup", "rows", 40, 100))
    found = status(login, plan)
    assert (found["unit"], found["done"], found["total"]) == ("rows", 40, 100)
    assert 0 < found["rate_per_s"] <= 200
    assert found["left_s"] == pytest.approx(60 / found["rate_per_s"], abs=1.5)
    assert found["waiting"] is None


def test_requests_are_idempotent_and_say_who_asked_first(
    login: Login, plan: Plan, connection: Connection, held: str
) -> None:
    first = ask(login, plan, "pause")
    assert (first.run_id, first.changed) == (held, True)
    assert first.request is not None
    assert (first.request.who, first.request.controller, len(first.request.at)) == ("jiwoo", "laptop", 20)
    second = ask(login, plan, "pause", who="hana")
    assert (second.changed, second.request) == (False, first.request)
    assert f"was already asked to pause at its next checkpoint, by jiwoo from laptop at {first.request.at}" in (
        second.sentence
    )
    nothing = ask(login, plan, "continue")
    assert not nothing.changed
    assert "control_action=resume lifts that" in nothing.sentence
    assert ask(login, plan, "resume").changed
    assert not ask(login, plan, "resume").changed
    assert len(requests.read(connection, held)) == 2


def test_what_became_of_a_request_is_read_in_korean(
    login: Login, plan: Plan, connection: Connection, held: str
) -> None:
    answers = [ask(login, plan, "pause", check=True), *(ask(login, plan, name) for name in ("pause", "pause"))]
    answers.append(ask(login, plan, "continue"))
    run(connection, "UPDATE at_most_one.run SET lease_until = clock_timestamp() - interval '1 second'")
    answers.append(ask(login, plan, "hold_cutover"))
    told = [catalogue.render(answer.sentence, "ko") for answer in answers]
    assert len({*told}) == 5
    for text in told:
        assert held in text
        words = re.sub(f"{held}|jiwoo|laptop|control_action=resume|continue", "", text)
        assert re.findall("[a-z]{2,}", words) == [], "names and commands alone stay as they are"


@pytest.mark.parametrize("action", [*requests._EFFECT])
def test_check_mode_predicts_and_writes_nothing(
    login: Login, plan: Plan, connection: Connection, held: str, action: str
) -> None:
    lifts = {"resume": "pause", "continue": "hold_cutover"}.get(action)
    if lifts:
        ask(login, plan, lifts)
    before = requests.read(connection, held)
    connection.rollback()
    predicted = ask(login, plan, action, check=True)
    assert predicted.changed
    assert "would be asked to" in predicted.sentence
    assert requests.read(connection, held) == before
    connection.rollback()
    assert ask(login, plan, action).changed


def test_of_eight_at_once_one_request_is_written(login: Login, plan: Plan, connection: Connection, held: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(login, plan, "pause"), range(8)))
    assert sum(answer.changed for answer in answers) == 1
    assert len(requests.read(connection, held)) == 1


def test_nothing_is_asked_where_no_run_is_open(
    login: Login, plan: Plan, connection: Connection, opening: Opening
) -> None:
    with pytest.raises(OperatorError, match=f"No run of plan {plan.id} is open: there has been none"):
        ask(login, plan, "pause")
    assert status(login, plan) == {}
    opened = journal.open_run(connection, opening)
    journal.close_run(connection, opened.run_id, "stopped")
    connection.commit()
    with pytest.raises(OperatorError, match=f"the last one, {opened.run_id}, ended at 20.* \\(stopped\\)") as refused:
        ask(login, plan, "abort")
    assert "history.yml" in refused.value.next_step
    found = status(login, plan)
    assert (found["run_id"], found["is_open"], found["outcome"]) == (opened.run_id, False, "stopped")


def test_a_rollback_is_asked_nothing(login: Login, plan: Plan, connection: Connection, opening: Opening) -> None:
    opened = journal.open_run(connection, replace(opening, reads_requests=False))
    connection.commit()
    with pytest.raises(OperatorError, match=f"Run {opened.run_id} of plan .* reads no requests"):
        ask(login, plan, "pause")
    assert not status(login, plan)["reads_requests"]


def test_a_dead_run_may_be_paused_for_the_next_one_and_not_ended(
    login: Login, plan: Plan, connection: Connection, held: str
) -> None:
    run(connection, "UPDATE at_most_one.run SET lease_until = clock_timestamp() - interval '1 second'")
    assert "the deployment that takes it over reads that" in ask(login, plan, "pause").sentence
    with pytest.raises(OperatorError, match=f"Run {held} is dead since"):
        ask(login, plan, "abort")


def test_nothing_lifts_an_abort(login: Login, plan: Plan, held: str) -> None:
    ask(login, plan, "abort", who="hana")
    for action in ("pause", "resume", "hold_cutover", "continue"):
        with pytest.raises(OperatorError, match=f"Run {held} was asked to end by hana from laptop at .* lifts that"):
            ask(login, plan, action)
    assert not ask(login, plan, "abort").changed


def test_a_journal_of_an_older_release_has_no_run_to_ask(
    login: Login, plan: Plan, connection: Connection, held: str
) -> None:
    run(connection, "DROP TABLE at_most_one.request")
    run(connection, "ALTER TABLE at_most_one.run DROP COLUMN progress")
    run(connection, "COMMENT ON TABLE at_most_one.run IS 'at-most-one: runs; schema version 5'")
    with pytest.raises(OperatorError, match=f"Run {held} of plan .* reads no requests"):
        ask(login, plan, "pause")
    found = status(login, plan)
    assert (found["run_id"], found["reads_requests"], found["requests"]) == (held, False, [])
    with connect(login, autocommit=True) as other:
        assert Checkpoints(held, POLL_S)(other, CUTOVER) == 0, "an older run goes on"
    assert own_schema.missing(connection)


def test_a_checkpoint_of_a_run_that_is_not_open_refuses(login: Login, plan: Plan, connection: Connection) -> None:
    own_schema.ensure(connection)
    connection.commit()
    with connect(login, autocommit=True) as other, pytest.raises(OperatorError, match="is not in the journal"):
        Checkpoints("20251110T053000Z-000000", POLL_S)(other, CUTOVER)
