"""Each run has a higher number than all before it, of whatever plan, and than any that a host knows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from at_most_one.plan import Plan
from at_most_one.postgres import own_schema
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.runs import control_status, journal
from at_most_one.runs.controllers import Controller

from tests.database.cleaning import run


def opening(plan: Plan, above: int = 0) -> journal.Opening:
    return journal.Opening(plan, "production", "minsu", Controller("gateway-2", 1), above=above)


def start(login: Login, plan: Plan, above: int = 0) -> int:
    with connect(login) as connection:
        return journal.open_run(connection, opening(plan, above), takeover=True).number


def preview(login: Login, plan: Plan, above: int = 0) -> int:
    with connect(login) as connection:
        return journal.look(connection, opening(plan, above), takeover=True).number


def test_the_numbers_grow_over_all_plans_and_check_mode_shows_the_next(login: Login, plan: Plan) -> None:
    other = replace(plan, id="another-plan")
    assert preview(login, plan) == 1
    assert preview(login, plan, 7) == 8
    assert [start(login, plan), start(login, other), start(login, plan)] == [1, 2, 3]
    assert (preview(login, plan), preview(login, plan)) == (4, 4)


def test_a_journal_that_was_restored_goes_on_above_what_a_host_knows(login: Login, plan: Plan) -> None:
    assert [start(login, plan), start(login, plan, 41), start(login, plan, 12)] == [1, 42, 43]


def test_a_journal_of_an_older_release_begins_to_count(login: Login, connection: Connection, plan: Plan) -> None:
    assert start(login, plan) == 1
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE at_most_one.run DROP COLUMN number")
        cursor.execute("COMMENT ON TABLE at_most_one.run IS 'at-most-one: runs; schema version 4'")
    connection.commit()
    assert preview(login, plan, 5) == 6
    assert own_schema.missing(connection)
    connection.rollback()
    assert start(login, plan) == 1
    assert start(login, plan) == 2


def test_runs_that_are_opened_at_once_get_different_numbers(login: Login, plan: Plan) -> None:
    start(login, plan)
    plans = [replace(plan, id=f"plan-{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda one: start(login, one), plans))
    assert sorted(numbers) == list(range(2, 10))


def test_the_newest_run_is_the_one_with_the_highest_number(login: Login, connection: Connection, plan: Plan) -> None:
    """A clock was set back, or that of a promoted standby is behind: the later run says that it began earlier."""
    assert [start(login, plan), start(login, plan), start(login, plan)] == [1, 2, 3]
    run(connection, "UPDATE at_most_one.run SET started_at = started_at - number * interval '1 hour'")
    run(
        connection,
        "UPDATE at_most_one.run SET finished_at = clock_timestamp(), outcome = 'stopped', error = number::text"
        " WHERE finished_at IS NULL",
    )
    runs = journal.read(connection, plan_id=plan.id)
    assert runs[0]["error"] == "3"
    assert [one["taken_over_by"] for one in runs] == [None, runs[0]["run_id"], runs[1]["run_id"]]
    assert control_status.read(connection, plan.id)["run_id"] == runs[0]["run_id"]
    run(connection, "ALTER TABLE at_most_one.run DROP COLUMN number")
    assert [one["run_id"] for one in journal.read(connection)] == [one["run_id"] for one in reversed(runs)]
