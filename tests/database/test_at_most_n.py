"""docs/at-most-n.md, walked: at most three open sessions per user, by the files of examples/at_most_n.

The key of the plan has a slot, and nothing else differs from a plan with one row per key.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
import yaml
from at_most_one.discovery import survey
from at_most_one.discovery.survey import Request
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, filled, parse
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight import out_and_back

from tests.database.index_tools import query
from tests.support.playbooks import ROOT, Run, run_playbook
from tests.support.postgres import Server

EXAMPLE = ROOT / "examples/at_most_n"
PLAN = "three-open-sessions"
RULE = "three_open_sessions"
(INDEX,) = [path.read_text() for path in EXAMPLE.glob(f"{PLAN}/prisma/migrations/*/migration.sql")]
FILL = "SELECT public.fill_session_slots()"
WRITERS = 8
# User n of 0 to 7 has n open sessions; the second and the third were opened at the same moment, and so on by pairs.
TABLES = """
CREATE TABLE public.users (id integer PRIMARY KEY);
CREATE TABLE public.sessions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id integer NOT NULL REFERENCES public.users,
    device integer NOT NULL, opened_at timestamptz NOT NULL DEFAULT now(),
    status text NOT NULL CHECK (status IN ('open', 'closed', 'revoked')));
CREATE INDEX sessions_of_user ON public.sessions (user_id);
INSERT INTO public.users SELECT generate_series(0, 20);
INSERT INTO public.sessions (user_id, device, opened_at, status)
    SELECT u, d, '2025-11-01'::timestamptz + d / 2 * interval '1 hour', 'open'
    FROM generate_series(1, 7) AS u, generate_series(1, u) AS d ORDER BY d, u;
INSERT INTO public.sessions (user_id, device, opened_at, status)
    SELECT u, d, '2025-12-01', 'closed' FROM generate_series(0, 7) AS u, generate_series(101, 105) AS d"""
OPEN = {user: list(range(1, user + 1)) for user in range(1, 8)}
# The latest three; of two that were opened at once, the one with the lower primary key comes first.
STAY = {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [2, 3, 4], 5: [2, 4, 5], 6: [4, 5, 6], 7: [4, 6, 7]}
SURPLUS = 10
DIGEST = "SELECT count(*), md5(string_agg(s::text, '|' ORDER BY id)) FROM public.sessions AS s WHERE user_id <= 7"
INDEXES = "SELECT indexdef FROM pg_indexes WHERE tablename = 'sessions' ORDER BY 1"


@pytest.fixture
def sessions(server: Server) -> Iterator[Login]:
    """A database as it is before anybody has thought of slots."""
    login = server.create("sessions")
    try:
        query(login, TABLES)
        yield login
    finally:
        server.drop(login.dbname)


@pytest.fixture
def slotted(sessions: Login) -> Login:
    """The same, once the user's own migration is applied."""
    query(sessions, (EXAMPLE / "migration.sql").read_text())
    return sessions


@pytest.fixture
def guarded(slotted: Login) -> Login:
    """The same without its open sessions, and with the planned index."""
    query(slotted, "UPDATE public.sessions SET status = 'closed' WHERE status = 'open'")
    query(slotted, INDEX)
    return slotted


@pytest.fixture(scope="module")
def rule() -> Plan:
    return parse(filled(yaml.safe_load((EXAMPLE / f"{PLAN}.yml").read_text())))


@pytest.fixture
def play(slotted: Login, tmp_path: Path) -> Callable[..., Run]:
    """Runs a playbook in a project with the example's plan, on a database alone."""
    shutil.copytree(EXAMPLE, tmp_path / "plans")
    inventory = tmp_path / "inventories/sessions"
    values: dict[str, Any] = {
        **{"environment_name": "sessions", "plan": PLAN, "app_name": "sessions", "report_language": "en"},
        **{"app_adapter": "none", "migrate_adapter": "sql"},
        **{"database_host": slotted.host, "database_port": slotted.port, "database_name": slotted.dbname},
        **{"database_user": slotted.user, "database_password": slotted.password},
        **{"prepare_gates": [], "prepare_backup_keep": 0, "prepare_backup_path": "/nowhere"},
        **{"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"},
    }
    (inventory / "host_vars").mkdir(parents=True)
    (inventory / "group_vars").mkdir()
    (inventory / "hosts.yml").write_text("sessions: {hosts: {runner: }}\n")
    (inventory / "host_vars/runner.yml").write_text(json.dumps(values))
    shutil.copy(ROOT / "inventories/all.yml", inventory / "group_vars")

    def run(playbook: str, *arguments: str) -> Run:
        given = ("-e", f"project_path={tmp_path}", *arguments)
        return run_playbook(playbook, *given, limit="sessions", inventory=str(inventory))

    return run


def report(project: Path) -> dict[str, Any]:
    """report.json of the newest run."""
    written: dict[str, Any] = json.loads((project / "artifacts/sessions/latest/report.json").read_text())
    return written


def application(login: Login) -> Connection:
    """A connection with PostgreSQL's own settings, as an application has it."""
    opened: Connection = psycopg2.connect(
        host=login.host, port=login.port, dbname=login.dbname, user=login.user, password=login.password
    )
    return opened


def devices(login: Login) -> dict[int, list[int]]:
    """The devices whose sessions are open, by user."""
    found = "SELECT user_id, array_agg(device ORDER BY device) FROM public.sessions WHERE status = 'open' GROUP BY 1"
    return {user: opened for user, opened in query(login, found)}


def slots(login: Login, user: int) -> list[tuple[int, int | None]]:
    """Each device of the user that is not history, and its slot."""
    found = "SELECT device, slot FROM public.sessions WHERE user_id = %s AND device < 100 ORDER BY device"
    return [(device, slot) for device, slot in query(login, found, user)]


OPEN_ONE = "INSERT INTO public.sessions (user_id, device, status) VALUES (%s, %s, 'open')"
CLOSE_ONE = "UPDATE public.sessions SET status = 'closed' WHERE user_id = %s AND device = %s"


def at_once(login: Login, writers: int, work: Callable[[Connection, int], None]) -> None:
    """Let writers of their own connections begin together, each with its number; what one of them raises is raised."""
    together, failed = threading.Barrier(writers), list[BaseException]()

    def run(number: int) -> None:
        try:
            with closing(application(login)) as connection:
                connection.autocommit = True
                together.wait(30)
                work(connection, number)
        except BaseException as failure:  # handed to the test's own thread
            failed.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []


def eight_writers_open_three(login: Login, users: range) -> None:
    """Eight sessions for each user at once: three are opened, and the planned index refuses the others."""
    refused: list[str | None] = []

    def work(connection: Connection, number: int) -> None:
        for user in users:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(OPEN_ONE, (user, number))
            except psycopg2.errors.UniqueViolation as failure:
                refused.append(failure.diag.constraint_name)

    at_once(login, WRITERS, work)
    opened = devices(login)
    assert {user: len(opened[user]) for user in users} == dict.fromkeys(users, 3)
    assert Counter(refused) == {RULE: (WRITERS - 3) * len(users)}


def test_three_stay_the_right_ones_and_the_way_back_returns_every_row(
    play: Callable[..., Run], slotted: Login, tmp_path: Path
) -> None:
    before, indexes = query(slotted, DIGEST), query(slotted, INDEXES)
    assert query(slotted, FILL) == [(0,)], "the migration has filled them"
    assert devices(slotted) == OPEN

    predicted = play("deploy.yml", "--check", "--diff")
    assert (predicted.code, query(slotted, DIGEST)) == (0, before), predicted.output
    assert query(slotted, INDEXES) == indexes

    deployed = play("deploy.yml")
    assert deployed.code == 0, deployed.output
    done = report(tmp_path)
    assert (done["outcome"], done["duplicates_left"]) == ("deployed", 0)
    assert (done["cleanup"]["groups"], done["cleanup"]["archived"]) == (4, SURPLUS)
    assert devices(slotted) == STAY
    (index,) = {row[0] for row in query(slotted, INDEXES)} - {row[0] for row in indexes}
    assert "UNIQUE INDEX" in index
    assert "(user_id, slot) WHERE (status = 'open'::text)" in index
    statuses = "SELECT status, count(*), count(slot) FROM public.sessions WHERE status <> 'open' GROUP BY 1"
    assert sorted(query(slotted, statuses)) == [("closed", 40, 0), ("revoked", SURPLUS, 0)], "history stays"
    page = (tmp_path / "artifacts/sessions/latest/report.md").read_text()
    assert "two inserts of one key at once, both refused by" in page

    eight_writers_open_three(slotted, range(11, 14))
    assert query(slotted, FILL) == [(0,)], "under the index there is nothing to fill"
    green = play("monitor.yml")
    assert green.code == 0, green.output
    monitored = json.loads((tmp_path / "artifacts/sessions/monitor/monitor.json").read_text())
    assert (monitored["findings"], monitored["duplicates"]) == ([], 0)

    back = play("rollback.yml")
    assert (back.code, report(tmp_path)["outcome"]) == (0, "rolled_back"), back.output
    assert (query(slotted, DIGEST), query(slotted, INDEXES)) == (before, indexes)

    query(slotted, CLOSE_ONE, 7, 6)  # it had slot 1: filled again, the best three of the others stay
    query(slotted, FILL)
    again = play("deploy.yml")
    assert (again.code, report(tmp_path)["outcome"]) == (0, "deployed"), again.output
    left = {user: opened for user, opened in devices(slotted).items() if user <= 7}
    assert left == {**STAY, 7: [4, 5, 7]}


def test_the_example_is_a_plan_like_any_other_and_agrees_with_its_migration() -> None:
    script = [sys.executable, str(ROOT / "scripts/plan_check.py"), "--language", "en"]
    command = [*script, str(EXAMPLE / f"{PLAN}.yml"), "--release", str(EXAMPLE / PLAN)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is wrong" in done.stdout
    assert "is written as the plan is" in done.stdout


def test_the_trigger_gives_the_lowest_free_slot_and_leaves_one_that_is_given(slotted: Login) -> None:
    def opens(device: int, slot: int | None = None) -> None:
        given = "INSERT INTO public.sessions (user_id, device, status, slot) VALUES (11, %s, 'open', %s)"
        query(slotted, given, device, slot)

    for device in (1, 2, 3, 4):
        opens(device)
    assert slots(slotted, 11) == [(1, 1), (2, 2), (3, 3), (4, 3)], "nobody is refused before the index"
    query(slotted, CLOSE_ONE, 11, 2)
    assert slots(slotted, 11) == [(1, 1), (2, None), (3, 3), (4, 3)]
    opens(5, 3)
    assert slots(slotted, 11)[-1] == (5, 3), "one that is given stays, although another is free"
    query(slotted, "UPDATE public.sessions SET status = 'open' WHERE user_id = 11 AND device = 2")
    assert dict(slots(slotted, 11))[2] == 2, "opened again"
    query(slotted, "UPDATE public.sessions SET slot = NULL WHERE user_id = 11 AND device = 1")
    assert dict(slots(slotted, 11))[1] == 1, "its own is free for itself"

    query(slotted, OPEN_ONE, 12, 1)
    query(slotted, "UPDATE public.sessions SET user_id = 12 WHERE user_id = 11 AND device IN (2, 5)")
    assert sorted(slot or 0 for _, slot in slots(slotted, 12)) == [1, 2, 3], "free for the user it moves to"

    query(slotted, "ALTER TABLE public.sessions DISABLE TRIGGER choose_session_slot")
    for slot in (None, 0, 4):
        with pytest.raises(psycopg2.errors.CheckViolation):
            opens(6, slot)


def test_one_statement_gives_each_of_its_rows_a_slot(guarded: Login) -> None:
    rows = "INSERT INTO public.sessions (user_id, device, status) SELECT 11, d, 'open' FROM generate_series(1, %s) AS d"
    with pytest.raises(psycopg2.errors.UniqueViolation):
        query(guarded, rows, 4)
    query(guarded, rows, 3)
    assert slots(guarded, 11) == [(1, 1), (2, 2), (3, 3)]


def test_a_closed_session_leaves_its_slot_to_another_once_they_are_filled_again(slotted: Login) -> None:
    """Without it the fourth session would count as surplus of slot 3, although only three are open."""
    assert slots(slotted, 4) == [(1, 3), (2, 2), (3, 3), (4, 1)]
    query(slotted, CLOSE_ONE, 4, 4)
    assert slots(slotted, 4) == [(1, 3), (2, 2), (3, 3), (4, None)]
    others = {user: slots(slotted, user) for user in OPEN if user != 4}
    assert query(slotted, FILL) == [(2,)]
    assert slots(slotted, 4) == [(1, 3), (2, 1), (3, 2), (4, None)]
    query(slotted, OPEN_ONE, 4, 5)  # all are taken: it shares slot 3, and is the latest
    query(slotted, FILL)
    assert slots(slotted, 4) == [(1, 3), (2, 2), (3, 3), (4, None), (5, 1)]
    assert {user: slots(slotted, user) for user in others} == others, "users whose slots are right are left alone"
    assert query(slotted, FILL) == [(0,)]


def test_sessions_that_are_opened_while_the_slots_are_filled_wait_for_it(slotted: Login) -> None:
    with closing(application(slotted)) as filling, closing(application(slotted)) as opening:
        with filling.cursor() as cursor:
            cursor.execute(FILL)
        with opening.cursor() as cursor:
            cursor.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                cursor.execute(OPEN_ONE, (11, 1))
        opening.rollback()
        with opening.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM public.sessions")  # who reads does not


def test_writers_that_leave_a_slot_free_are_never_refused(guarded: Login) -> None:
    """Three devices of a user open and close as fast as they can: there is a slot each time, and the lock finds it."""

    def work(connection: Connection, number: int) -> None:
        with connection.cursor() as cursor:
            for _ in range(60):
                cursor.execute(OPEN_ONE, (11, number))
                cursor.execute(CLOSE_ONE, (11, number))

    at_once(guarded, 3, work)
    assert 11 not in devices(guarded)
    eight_writers_open_three(guarded, range(11, 17))


def test_a_snapshot_of_before_is_refused_and_finds_a_slot_when_it_tries_again(guarded: Login) -> None:
    with closing(application(guarded)) as connection, connection.cursor() as cursor:
        connection.set_session(isolation_level="REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM public.users")
        query(guarded, OPEN_ONE, 11, 1)
        with pytest.raises(psycopg2.errors.UniqueViolation):
            cursor.execute(OPEN_ONE, (11, 2))
        connection.rollback()
        cursor.execute(OPEN_ONE, (11, 2))
        connection.commit()
    assert slots(guarded, 11) == [(1, 1), (2, 2)]


def test_slots_that_are_given_need_no_lock(guarded: Login) -> None:
    """One statement for 20,000 users: as many locks are more than the server has."""
    query(guarded, "INSERT INTO public.users SELECT generate_series(1000, 20999)")
    many = "INSERT INTO public.sessions (user_id, device, status, slot) SELECT id, 1, 'open', {} FROM public.users"
    with pytest.raises(psycopg2.errors.OutOfMemory):
        query(guarded, many.format("NULL") + " WHERE id >= 1000")
    query(guarded, many.format("1") + " WHERE id >= 1000")
    assert query(guarded, "SELECT count(*) FROM public.sessions WHERE slot = 1 AND user_id >= 1000") == [(20_000,)]


def test_an_application_may_choose_the_slot_itself(guarded: Login) -> None:
    query(guarded, "DROP TRIGGER choose_session_slot ON public.sessions")
    chosen = (
        "INSERT INTO public.sessions (user_id, device, status, slot)"
        " SELECT 11, %s, 'open', min(free.slot) FROM generate_series(1, 3) AS free (slot) WHERE NOT EXISTS ("
        " SELECT FROM public.sessions AS taken WHERE taken.user_id = 11 AND taken.status = 'open'"
        " AND taken.slot = free.slot) HAVING count(*) > 0 ON CONFLICT{} DO NOTHING RETURNING slot"
    )
    for device, answer in ((1, [(1,)]), (2, [(2,)]), (3, [(3,)]), (4, [])):
        assert query(guarded, chosen.format(""), device) == answer
    query(guarded, f"DROP INDEX public.{RULE}")
    with pytest.raises(psycopg2.errors.InvalidColumnReference):  # 42P10
        query(guarded, chosen.format(" (user_id, slot) WHERE status = 'open'"), 5)


@pytest.mark.parametrize("action", ["update", "delete"])
def test_a_sample_leaves_and_returns_past_the_trigger_that_the_plan_allows(
    slotted: Login, rule: Plan, action: str
) -> None:
    surplus = rule.surplus if action == "update" else replace(rule.surplus, action="delete", values={})
    before = query(slotted, DIGEST)
    with connect(slotted) as connection:
        with pytest.raises(OperatorError, match="choose_session_slot"):
            out_and_back.try_out(connection, replace(rule, surplus=replace(surplus, triggers=())))
        trial = out_and_back.try_out(connection, replace(rule, surplus=surplus))
    assert trial.rows > 0
    assert (trial.wrote, query(slotted, DIGEST)) == ([], before)


def test_discover_writes_such_a_plan_for_a_key_with_the_slot(slotted: Login, rule: Plan) -> None:
    request = Request(table="public.sessions", key=("user_id", "slot"))
    found = survey.survey(slotted, request)
    best = found.candidates[0]
    assert (best.condition.sql, best.count.groups, best.count.surplus) == ("status IN ('open')", 4, SURPLUS)
    text = survey.choose(slotted, request, found, 1, PLAN, "20260102000000").plan
    written = parse(yaml.safe_load(text))
    assert (written.key, written.keep, written.expected) == (rule.key, rule.keep, rule.expected)
    assert written.surplus.values == {"status": "revoked"}
    assert "choose_session_slot" in text
