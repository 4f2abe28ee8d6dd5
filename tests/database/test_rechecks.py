"""What a batch looks at again once it has its locks: rows that have changed since they were ranked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import effects, surplus_rows, worklist
from at_most_one.duplicates.batches import Batches, Pace
from at_most_one.plan import Plan, Surplus
from at_most_one.postgres import own_schema
from at_most_one.postgres.catalog import columns_of, usual_search_path
from at_most_one.postgres.connection import Connection, unheld

from tests.database.cleaning import TABLE, Waiting, ids, run

CLOSE = f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s"
WAITS = Pace(target_ms=20_000)  # so long for a lock: the batch is not begun again while a test looks at it


def removed(connection: Connection, plan: Plan, rows: list[list[str]], *, again: bool, between: Any = None) -> int:
    """Rank these rows, let ``between`` happen, and run the batches over them."""
    with connection, connection.cursor() as cursor:
        columns = columns_of(cursor, plan)
        own_schema.ensure(connection)
        worklist.load(cursor, plan, columns, rows)
        work = worklist.rank(cursor, plan, columns)
        known = effects.known(cursor, plan)
        batches = Batches(plan, columns, "run-1", usual_search_path(cursor), WAITS, unheld, known=known)
    if between:
        between()
    connection.autocommit = True
    return batches.run(connection, work, len(rows), refers=False, again=again)


def updating(plan: Plan) -> Plan:
    return replace(plan, surplus=Surplus("update", {"status": "cancelled"}, "stop"))


class TestClosedWhileTheBatchWaits:
    """With ``again`` rows are found by their key: it is the condition alone that keeps a changed one."""

    @pytest.mark.parametrize("action", ["delete", "update"])
    @pytest.mark.parametrize("again", [True, False])
    def test_a_surplus_row_stays_as_it_is(
        self, connection: Connection, plan: Plan, found: surplus_rows.Report, waiting: Waiting, action: str, again: bool
    ) -> None:
        plan = updating(plan) if action == "update" else plan
        closed = found.groups[0].surplus[0]["id"]
        waiting.change(CLOSE, closed)
        removal = waiting.start(lambda own: removed(own, plan, found.rows, again=again), lock_timeout_ms=30_000)
        waiting.other.commit()
        assert removal.result(20) == 24
        assert closed in ids(connection, "status = 'completed'")
        assert run(connection, "SELECT count(*) FROM at_most_one.archived_row") == [(24,)]

    @pytest.mark.parametrize("action", ["delete", "update"])
    @pytest.mark.parametrize("again", [True, False])
    def test_a_keeper_keeps_its_whole_group(
        self, connection: Connection, plan: Plan, found: surplus_rows.Report, waiting: Waiting, action: str, again: bool
    ) -> None:
        plan = updating(plan) if action == "update" else plan
        group = found.groups[0]
        waiting.change(CLOSE, group.keep["id"])
        removal = waiting.start(lambda own: removed(own, plan, found.rows, again=again), lock_timeout_ms=30_000)
        waiting.other.commit()
        assert removal.result(20) == 25 - len(group.surplus)
        assert {row["id"] for row in group.surplus} <= ids(connection, plan.predicate)

    def test_a_row_of_another_place_in_the_order_is_ranked_again(
        self, connection: Connection, plan: Plan, found: surplus_rows.Report, waiting: Waiting
    ) -> None:
        """Still in the rule and in its group, but the best row by now."""
        newest = found.groups[0].surplus[-1]["id"]
        waiting.change(f"UPDATE {TABLE} SET started_at = now() WHERE id = %s", newest)
        removal = waiting.start(lambda own: removed(own, plan, found.rows, again=True), lock_timeout_ms=30_000)
        waiting.other.commit()
        assert removal.result(20) == 24
        assert newest in ids(connection)


class TestInItsPlace:
    """VACUUM makes a row's place free, and a later version of the same row may take it, or another row."""

    @pytest.mark.parametrize("comes", ["closed", "as another row"])
    @pytest.mark.parametrize("which", ["surplus", "keeper"])
    def test_what_comes_there_is_not_taken_for_what_it_was(
        self, connection: Connection, plan: Plan, found: surplus_rows.Report, which: str, comes: str
    ) -> None:
        """The other row has the key and the order of the one that was there, under a primary key of its own."""
        group = found.groups[0]
        row = group.keep["id"] if which == "keeper" else group.surplus[0]["id"]
        place = f"SELECT ctid::text FROM {TABLE} WHERE id = %s"
        away = "ffffffff-ffff-4fff-8fff-ffffffffffff"
        there, status = (row, "completed") if comes == "closed" else (away, "active")

        def vacuum() -> None:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"VACUUM {TABLE}")
            connection.autocommit = False

        def leave_and_come() -> None:
            ((before,),) = run(connection, place, row)
            room = f"DELETE FROM {TABLE} WHERE status = 'completed' AND ctid > %s AND ctid < '(1,0)'"
            run(connection, room, before)
            vacuum()
            run(connection, f"UPDATE {TABLE} SET id = %s WHERE id = %s", away, row)
            vacuum()
            run(connection, f"UPDATE {TABLE} SET id = %s, status = %s WHERE id = %s", there, status, away)
            assert run(connection, place, there) == [(before,)]

        went = removed(connection, plan, found.rows, again=False, between=leave_and_come)
        connection.autocommit = False
        assert went == (25 - len(group.surplus) if which == "keeper" else 24)
        assert there in ids(connection, f"status = '{status}'")


class TestMoved:
    @pytest.mark.parametrize("again", [True, False])
    def test_a_keeper_that_is_elsewhere_by_now_is_found_by_its_key_alone(
        self, connection: Connection, plan: Plan, found: surplus_rows.Report, again: bool
    ) -> None:
        group = found.groups[0]
        move = f"UPDATE {TABLE} SET notes = notes WHERE id = %s"
        went = removed(
            connection, plan, found.rows, again=again, between=lambda: run(connection, move, group.keep["id"])
        )
        assert went == (25 if again else 25 - len(group.surplus))


class TestDeadlock:
    def test_the_batch_gives_way_and_is_begun_again(
        self, connection: Connection, plan: Plan, found: surplus_rows.Report, waiting: Waiting
    ) -> None:
        """It waits for a surplus row with the keeper locked; the other session wants the keeper."""
        group = found.groups[0]
        waiting.change("SET deadlock_timeout = '1min'")  # whoever looks for a deadlock is the one that gives up
        waiting.change(f"UPDATE {TABLE} SET notes = 'mine' WHERE id = %s", group.surplus[0]["id"])
        removal = waiting.start(lambda own: removed(own, plan, found.rows, again=True), lock_timeout_ms=30_000)
        waiting.change(f"UPDATE {TABLE} SET notes = 'mine' WHERE id = %s", group.keep["id"])
        waiting.other.commit()
        assert removal.result(20) == 25
        assert run(connection, f"SELECT notes FROM {TABLE} WHERE id = %s", group.keep["id"]) == [("mine",)]
