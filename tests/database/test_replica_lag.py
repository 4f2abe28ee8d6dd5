"""A replica that falls behind holds the removal up between two batches. How far it is behind is what a table says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.batches import Pace
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres import own_schema, replication
from at_most_one.postgres.connection import Connection, Login, connect
from psycopg2 import sql

from tests.database.cleaning import Waiting, remove, run
from tests.support.ports import wait_until

MEGABYTE = 2**20


@pytest.fixture
def others(login: Login) -> Iterator[Waiting]:
    waiting = Waiting(login)
    yield waiting
    waiting.close()


@pytest.fixture(autouse=True)
def lag(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has no replica: the same three figures come from a table instead of pg_stat_replication."""
    run(connection, "CREATE TABLE aedpics.lag (name text, seconds numeric, bytes numeric)")
    run(
        connection,
        "CREATE FUNCTION aedpics.lags() RETURNS json LANGUAGE plpgsql AS $$BEGIN RETURN ("
        "SELECT coalesce(json_agg(json_build_array(name, seconds, bytes)), '[]') FROM aedpics.lag); END$$",
    )
    monkeypatch.setattr(replication, "LAGS", sql.SQL("aedpics.lags()"))
    with connection:
        own_schema.ensure(connection)


def behind(connection: Connection, name: str, seconds: float | None, size: int | None) -> None:
    run(connection, "DELETE FROM aedpics.lag WHERE name = %s", name)
    run(connection, "INSERT INTO aedpics.lag VALUES (%s, %s, %s)", name, seconds, size)


def left_so_far(connection: Connection) -> int:
    ((count,),) = run(connection, "SELECT count(*) FROM at_most_one.archived_row")
    return int(count)


def pace(**limits: Any) -> Pace:
    return Pace(first=4, smallest=4, largest=4, **limits)


def removing(login: Login, plan: Plan, found: surplus_rows.Report, **limits: float) -> surplus_rows.Removal:
    with connect(login) as own:
        return remove(own, plan, found, pace=pace(**limits))


def test_no_batch_begins_until_the_replica_has_caught_up(
    connection: Connection, plan: Plan, found: surplus_rows.Report, others: Waiting
) -> None:
    behind(connection, "standby", 45, 10 * MEGABYTE)
    behind(connection, "fresh", 0.1, 0)
    removal = others.pool.submit(removing, others.login, plan, found, max_replica_lag_s=30, max_replica_wait_s=60)
    wait_until(lambda: left_so_far(connection) > 0 or removal.done())
    time.sleep(0.7)  # longer than the time between two looks at the replicas
    assert left_so_far(connection) == 3, "one batch, and then it waits"
    name = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'at-most-one cleanup 0 of 25'"
    assert run(connection, name) == [(1,)], "also between two batches"
    assert not removal.done()
    behind(connection, "standby", 30, 0)  # no further than allowed
    done = removal.result(30)
    assert (done.removed, done.batches, done.warnings) == (25, 9, [])


def test_a_replica_that_stays_behind_stops_it_with_its_name_and_the_next_call_goes_on(
    connection: Connection, plan: Plan, found: surplus_rows.Report
) -> None:
    behind(connection, "standby", 45, 10 * MEGABYTE)
    behind(connection, "slower", 90, 10 * MEGABYTE)
    with pytest.raises(OperatorError, match=r"Replica slower is 90 s behind .* within 0\.1 s") as stop:
        remove(connection, plan, found, pace=pace(max_replica_lag_s=30, max_replica_wait_s=0.1))
    assert (stop.value.details["replica"], stop.value.details["removed"]) == ("slower", 3)
    assert "3 rows had left by then, in 1 whole batches" in stop.value.seen
    assert left_so_far(connection) == 3
    run(connection, "DELETE FROM aedpics.lag")
    done = remove(connection, plan, found, pace=pace())
    assert (done.removed, done.gone_meanwhile, done.rows_left) == (22, 3, 0)


@pytest.mark.parametrize(
    ("size", "told"),
    [(None, True), (65 * MEGABYTE, True), (10, False)],
    ids=["not even its bytes", "far behind and silent", "idle and healthy"],
)
def test_a_lag_that_nobody_tells_us_is_said_once_and_stops_nothing(
    connection: Connection, plan: Plan, found: surplus_rows.Report, size: int | None, told: bool
) -> None:
    behind(connection, "standby", None, size)
    done = remove(connection, plan, found, pace=pace())
    assert (done.removed, done.batches) == (25, 9)
    assert len(done.warnings) == int(told)
    assert all("How far replica standby is behind is unknown" in warning for warning in done.warnings)
