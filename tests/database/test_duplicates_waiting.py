"""A removal among writers: what changes while it waits for a row lock, and who else removes at the same time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.batches import Pace
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres import own_schema
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.cleaning import TABLE, Waiting, ids, remove, run


class TestUnderConcurrentWriters:
    def test_a_row_completed_while_we_wait_stays_and_is_named(
        self, connection: Connection, plan: Plan, example: Any, waiting: Waiting
    ) -> None:
        found = surplus_rows.report(connection, plan)
        ((completed,), *others) = found.rows
        waiting.change(f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s", completed)
        removal = waiting.start(lambda c: remove(c, plan, found))
        waiting.other.commit()
        done = removal.result(10)
        assert (done.kept_meanwhile, done.kept_examples) == (1, [[completed]])
        assert sorted(done.removed_examples) == others
        assert done.groups_left == 0
        assert completed in ids(connection, "status = 'completed'")

    def test_a_keeper_completed_while_we_wait_leaves_the_next_one_open(
        self, connection: Connection, plan: Plan, example: Any, waiting: Waiting
    ) -> None:
        found = surplus_rows.report(connection, plan)
        group = found.groups[0]
        waiting.change(f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s", group.keep["id"])
        removal = waiting.start(lambda c: remove(c, plan, found))
        waiting.other.commit()
        done = removal.result(10)
        assert done.kept_examples == [[group.surplus[0]["id"]]]
        still_open = ids(connection, "status IN ('active', 'paused') AND equipment_serial = 'AED-0001'")
        assert still_open == {group.surplus[0]["id"]}
        keepers = run(connection, "SELECT DISTINCT keeper ->> 'id' FROM at_most_one.archived_row")
        assert (group.surplus[0]["id"],) in keepers
        assert (group.keep["id"],) not in keepers

    def test_the_last_row_of_a_group_that_others_closed_is_named_as_its_keeper(
        self, connection: Connection, plan: Plan, example: Any, waiting: Waiting
    ) -> None:
        """No further round ranks the table again: no surplus row is left."""
        found = surplus_rows.report(connection, plan)
        group = found.groups[0]
        closed = [row["id"] for row in group.surplus[1:]]
        close = f"UPDATE {TABLE} SET status = 'completed' WHERE id = ANY (%s::uuid[])"
        waiting.change(close, [group.keep["id"], *closed])
        removal = waiting.start(lambda c: remove(c, plan, found))
        waiting.other.commit()
        done = removal.result(10)
        assert (done.removed, done.rows_left) == (25 - len(group.surplus), 0)
        why = {row.row[0]: row.why for row in done.unarchived}
        assert why == {group.surplus[0]["id"]: "keeper", **dict.fromkeys(closed, "outside")}

    def test_a_row_changed_but_still_surplus_is_archived_as_it_was_at_last(
        self, connection: Connection, plan: Plan, example: Any, waiting: Waiting
    ) -> None:
        found = surplus_rows.report(connection, plan)
        ((changed,), *_) = found.rows
        waiting.change(f"UPDATE {TABLE} SET notes = 'the last word', status = 'paused' WHERE id = %s", changed)
        removal = waiting.start(lambda c: remove(c, plan, found))
        waiting.other.commit()
        assert removal.result(10).removed == 25
        query = "SELECT row ->> 'notes' FROM at_most_one.archived_row WHERE primary_key ->> 'id' = %s"
        assert run(connection, query, changed) == [("the last word",)]

    def test_a_row_moved_to_another_key_while_we_wait_is_judged_by_its_new_key(
        self, connection: Connection, plan: Plan, example: Any, waiting: Waiting
    ) -> None:
        found = surplus_rows.report(connection, plan)
        moved = found.groups[0].surplus[0]["id"]
        waiting.change(f"UPDATE {TABLE} SET equipment_serial = 'AED-0099' WHERE id = %s", moved)
        removal = waiting.start(lambda c: remove(c, plan, found))
        waiting.other.commit()
        assert removal.result(10).kept_examples == [[moved]]

    def test_a_reference_that_comes_while_we_wait_stops_the_removal(
        self, connection: Connection, plan: Plan, example: Any, waiting: Waiting
    ) -> None:
        run(
            connection,
            f"CREATE TABLE aedpics.photos (session_id uuid REFERENCES {TABLE} (id) ON DELETE SET NULL)",
        )
        found = surplus_rows.report(connection, plan)
        waiting.change("INSERT INTO aedpics.photos VALUES (%s)", found.rows[0][0])
        removal = waiting.start(lambda c: remove(c, plan, found))
        waiting.other.commit()
        with pytest.raises(OperatorError, match=r"1 of aedpics\.photos"):
            removal.result(10)
        assert ids(connection) >= example.surplus

    def test_a_lock_that_does_not_come_names_its_holder_and_nothing_is_written(
        self, login: Login, plan: Plan, example: Any, waiting: Waiting
    ) -> None:
        waiting.change(f"UPDATE {TABLE} SET notes = 'secret' WHERE id = %s", min(example.surplus))
        with connect(login, lock_timeout_ms=50) as hurried:
            found = surplus_rows.report(hurried, plan)
            with pytest.raises(OperatorError, match="a lock was not obtained in time") as stop:
                remove(hurried, plan, found)
            assert ids(hurried) >= example.surplus
        (blocker,) = stop.value.details["blockers"]
        assert blocker["pid"] == waiting.other.info.backend_pid
        assert "secret" not in str(stop.value)

    def test_without_a_limit_it_waits_as_long_as_it_takes_and_keeps_nobody_waiting_meanwhile(
        self, login: Login, connection: Connection, plan: Plan, example: Any, waiting: Waiting
    ) -> None:
        """A lock_timeout of 0: the rows are asked for in slices all the same."""
        found = surplus_rows.report(connection, plan)
        held, another = (group.surplus[0]["id"] for group in found.groups[:2])
        waiting.change(f"UPDATE {TABLE} SET notes = notes WHERE id = %s", held)
        removal = waiting.start(lambda c: remove(c, plan, found, pace=Pace(target_ms=20)), lock_timeout_ms=0)
        with connect(login, lock_timeout_ms=5_000) as service:
            run(service, f"UPDATE {TABLE} SET notes = 'written meanwhile' WHERE id = %s", another)
        time.sleep(0.5)
        assert not removal.done()
        waiting.other.rollback()
        assert removal.result(30).removed == 25
        query = "SELECT row ->> 'notes' FROM at_most_one.archived_row WHERE primary_key ->> 'id' = %s"
        assert run(connection, query, another) == [("written meanwhile",)]

    def test_two_removals_at_once_share_the_rows_without_a_deadlock(
        self, login: Login, connection: Connection, plan: Plan, example: Any
    ) -> None:
        found = surplus_rows.report(connection, plan)
        own_schema.ensure(connection)
        connection.commit()
        start = threading.Barrier(2)

        def once() -> surplus_rows.Removal:
            with connect(login) as own:
                start.wait()
                return remove(own, plan, found)

        with ThreadPoolExecutor(2) as pool:
            one, other = (future.result(20) for future in [pool.submit(once), pool.submit(once)])
        assert sorted(one.removed_examples + other.removed_examples) == found.rows
        assert one.gone_meanwhile + other.gone_meanwhile == 25
