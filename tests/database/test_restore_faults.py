"""Faults on the way back that are no row's: they stop the restore, or it tries again with less."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from at_most_one.duplicates.restore import Restoration, Size, restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres.catalog import LockNotObtained
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.cleaning import TABLE, Waiting, run
from tests.database.test_restore import TOUCH, pending, run_read
from tests.database.test_restore import archived as archived  # the fixture
from tests.support.ports import wait_until


@pytest.mark.parametrize("first", ["a row's fault before it", "nothing before it"])
@pytest.mark.parametrize(
    "code", ["08006", "25006", "40001", "42501", "53100", "55P03", "57P01", "58030", "F0001", "XX001"]
)
def test_a_fault_that_is_not_the_rows_stops_all_of_it(
    connection: Connection, plan: Plan, archived: Any, code: str, first: str
) -> None:
    """Disk full, no right, a damaged page: said with its SQLSTATE, and not as a property of the row that met it."""
    one, other = run(connection, "SELECT primary_key ->> 'id' FROM at_most_one.archived_row ORDER BY id LIMIT 2")
    fault = f"IF NEW.id = '{other[0]}' THEN RAISE EXCEPTION USING ERRCODE = '{code}'; END IF; RETURN NEW;"
    if first.startswith("a row"):
        fault = f"IF NEW.id = '{one[0]}' THEN RAISE 'not this one'; END IF; {fault}"
    run(connection, TOUCH.format(fault))
    with pytest.raises(OperatorError) as stop:
        restore(connection, plan, run_id="run-1", possible=True)
    assert stop.value.details["sqlstate"] == code
    assert len(pending(connection)) == 25


@pytest.mark.parametrize("check", [True, False])
def test_a_deadlock_is_tried_again_in_a_smaller_batch(
    connection: Connection, login: Login, plan: Plan, archived: Any, check: bool
) -> None:
    """The trigger takes two locks for the application, whose session takes them the other way round."""
    run(
        connection,
        TOUCH.format("PERFORM pg_advisory_xact_lock(1); PERFORM pg_advisory_xact_lock(2); RETURN NEW;"),
    )
    done: list[Restoration] = []

    def put_back() -> None:
        with connect(login, lock_timeout_ms=30_000) as mine:
            done.append(restore(mine, plan, run_id="run-1", check=check, possible=True, size=Size(25)))

    restoring = threading.Thread(target=put_back)
    with connect(login) as other, connect(login, autocommit=True) as watcher:
        with other.cursor() as cursor:
            cursor.execute("SET deadlock_timeout = '1min'")  # whoever looks for a deadlock is the one that gives up
            cursor.execute("SELECT pg_advisory_xact_lock(2)")
            restoring.start()
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            wait_until(lambda: run_read(watcher, waits) == [(1,)])
            cursor.execute("SELECT pg_advisory_xact_lock(1)")
        other.rollback()
        restoring.join(20)
    assert [(one.restored, one.left) for one in done] == [(25, [])]
    assert done[0].batches > 1


# Whether ours has waited until the server looked for a deadlock. PostgreSQL 13 has no waitstart.
LOOKED = """
SELECT pg_catalog.clock_timestamp() - coalesce(
    (pg_catalog.to_jsonb(l) ->> 'waitstart')::timestamptz, a.query_start
) > pg_catalog.current_setting('deadlock_timeout')::interval
FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE NOT l.granted AND l.locktype = 'transactionid'"""


def test_no_transaction_of_the_application_is_ended_in_a_deadlock_with_it(
    connection: Connection, plan: Plan, archived: Any, waiting: Waiting
) -> None:
    """The server ends who looks for the deadlock, deadlock_timeout (200 ms here) after he began to wait. Ours looks
    once; the application's comes into the wait after that, and would look again, and be ended."""
    ((key, inspector),) = run(
        connection,
        "SELECT primary_key ->> 'id', row ->> 'inspector_id' FROM at_most_one.archived_row ORDER BY id DESC LIMIT 1",
    )
    ((first,),) = run(connection, "SELECT primary_key ->> 'id' FROM at_most_one.archived_row ORDER BY id LIMIT 1")
    insert = f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status) VALUES (%s, 'AED-new', %s, 'completed')"
    waiting.change(insert, key, inspector)
    restoring = waiting.start(
        lambda own: restore(own, plan, run_id="run-1", possible=True), lock_timeout_ms=20_000, statement_timeout_ms=0
    )
    wait_until(lambda: run(connection, LOOKED) == [(True,)])
    waiting.change(insert, first, inspector)
    waiting.other.rollback()
    assert restoring.result(20).restored == 25


def test_a_lock_that_is_not_to_be_had_is_asked_for_as_long_as_lock_timeout_says(
    connection: Connection, plan: Plan, archived: Any, waiting: Waiting
) -> None:
    ((key, inspector),) = run(
        connection, "SELECT primary_key ->> 'id', row ->> 'inspector_id' FROM at_most_one.archived_row LIMIT 1"
    )
    waiting.change(
        f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status) VALUES (%s, 'AED-new', %s, 'completed')",
        *(key, inspector),
    )
    began = time.monotonic()
    restoring = waiting.start(lambda own: restore(own, plan, run_id="run-1", possible=True), lock_timeout_ms=1_000)
    with pytest.raises(LockNotObtained):
        restoring.result(20)
    assert 1 <= time.monotonic() - began < 5
    assert len(pending(connection)) == 25
