"""A run is held through the transaction that writes, and its lease outlasts a step that is longer than it."""

from __future__ import annotations

import threading

import psycopg2.errors
import pytest
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login, connect
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller
from at_most_one.runs.journal import Opening

from tests.support.ports import wait_until

EXPIRE = "UPDATE at_most_one.run SET lease_until = clock_timestamp() - interval '1 second'"
LEFT = "SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM at_most_one.run WHERE finished_at IS NULL"


@pytest.fixture
def opening(plan: Plan) -> Opening:
    """A run of another host, so that only its lease speaks for it."""
    return Opening(plan, "production", "minsu", Controller("gateway-2", 1), lease_minutes=5)


@pytest.fixture
def held(login: Login, opening: Opening) -> str:
    with connect(login) as connection:
        return journal.open_run(connection, opening).run_id


def hearts() -> list[str]:
    """The threads of this process that renew a lease."""
    return [thread.name for thread in threading.enumerate() if thread.name == "at-most-one lease"]


def value(login: Login, statement: str) -> float:
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return float((cursor.fetchone() or (0,))[0]) if cursor.description else 0.0


def test_nobody_takes_a_run_over_while_it_writes(login: Login, opening: Opening, held: str) -> None:
    value(login, EXPIRE)
    with connect(login) as writing:
        journal.require_held(writing, held)
        with (
            connect(login, lock_timeout_ms=200) as other,
            pytest.raises(OperatorError, match=f"is held by run {held}") as refused,
        ):
            journal.open_run(other, opening, takeover=True)
        assert isinstance(refused.value.__cause__, psycopg2.errors.LockNotAvailable), "it waited for the writer"
    with connect(login) as other:
        assert journal.open_run(other, opening).took_over is not None, "with the commit the writer lets go"


def test_nobody_closes_a_run_while_it_writes(login: Login, held: str) -> None:
    with connect(login) as writing:
        journal.require_held(writing, held)
        with connect(login, lock_timeout_ms=200) as other, pytest.raises(psycopg2.errors.LockNotAvailable):
            journal.close_run(other, held, "stopped")


def test_whoever_was_taken_over_may_not_write(login: Login, opening: Opening, held: str) -> None:
    with connect(login) as connection:
        second = journal.open_run(connection, opening, takeover=True).run_id
    with connect(login) as writing, pytest.raises(OperatorError, match=f"closed as abandoned by run {second}"):
        journal.require_held(writing, held)
    with connect(login) as writing:
        journal.require_held(writing, second)
        assert not journal.renew(writing, held), "what was taken over has no lease to renew"


def test_without_a_journal_no_run_is_held(login: Login) -> None:
    with connect(login) as writing, pytest.raises(OperatorError, match="is not in the journal"):
        journal.require_held(writing, "20251110T053000Z-000000")


def test_the_lease_is_renewed_while_a_long_step_writes(login: Login, held: str) -> None:
    """The writer holds the run's row all along; the renewals come from a connection of their own, and do not wait."""
    with journal.kept_alive(login, held, every_s=0.05), connect(login) as writing:
        journal.require_held(writing, held)
        value(login, EXPIRE)
        wait_until(lambda: value(login, LEFT) > 290)
        assert len(hearts()) == 1


def test_a_lease_that_nobody_renews_ends(login: Login, opening: Opening, held: str) -> None:
    """The control of the test above; and after the block no heart beats on."""
    with journal.kept_alive(login, held, every_s=0.05):
        pass
    value(login, EXPIRE)
    assert hearts() == []
    assert value(login, LEFT) < 0


def test_the_heart_stops_at_a_run_that_was_taken_over(login: Login, opening: Opening, held: str) -> None:
    with journal.kept_alive(login, held, every_s=0.05):
        with connect(login) as connection:
            journal.open_run(connection, opening, takeover=True)
        wait_until(lambda: not hearts(), why="it beats for a run that is not ours any more")
    taken = f"SELECT count(*) FROM at_most_one.run WHERE run_id = '{held}' AND outcome = 'abandoned'"
    assert value(login, taken) == 1


def test_without_a_run_there_is_no_heart(login: Login) -> None:
    with journal.kept_alive(login, None, every_s=0.01):
        assert hearts() == []
