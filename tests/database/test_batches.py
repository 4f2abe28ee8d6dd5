"""A removal in many small batches: what others see of it, what is left when it stops, and how it goes on."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.batches import Batches, Pace
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres.checkpoint import Place
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.cleaning import INSPECTOR, SETTINGS, TABLE, Waiting, content, ids, keys, remove, run
from tests.support.ports import wait_until

GROUP_BY_GROUP = Pace(first=4, smallest=4, largest=4)  # the guide's first five groups have four rows each
THREES = Pace(first=3, smallest=3, largest=3)
PATIENT = {"lock_timeout_ms": 30_000}


def archived(connection: Connection) -> set[str]:
    return keys([[key] for (key,) in run(connection, "SELECT primary_key ->> 'id' FROM at_most_one.archived_row")])


def hold(waiting: Waiting, row: dict[str, str | None]) -> None:
    waiting.change(f"UPDATE {TABLE} SET notes = notes WHERE id = %s", row["id"])


class TestProgress:
    def test_another_session_reads_how_far_it_is_and_afterwards_the_session_is_as_before(
        self, connection: Connection, plan: Plan, found: surplus_rows.Report, waiting: Waiting
    ) -> None:
        def settings_around(own: Connection) -> tuple[Any, Any, int]:
            before = run(own, SETTINGS)
            done = remove(own, plan, found, pace=GROUP_BY_GROUP)
            return before, run(own, SETTINGS), done.batches

        hold(waiting, found.groups[2].surplus[0])
        removal = waiting.start(settings_around, **PATIENT)
        with connect(waiting.login, autocommit=True) as watcher:
            query = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'at-most-one cleanup%%'"
            wait_until(lambda: run(watcher, query) == [("at-most-one cleanup 6 of 25",)])
        waiting.other.rollback()
        before, after, batches = removal.result(30)
        assert after == before
        assert batches == 9  # 35 rows by four


class TestAStopBetweenTwoBatches:
    @pytest.mark.versions
    def test_leaves_whole_batches_says_so_and_the_next_call_finishes(
        self, login: Login, connection: Connection, plan: Plan, found: surplus_rows.Report, waiting: Waiting
    ) -> None:
        before = content(connection)
        whole = {row["id"] for group in found.groups[:2] for row in group.surplus}
        hold(waiting, found.groups[2].surplus[0])
        with (
            connect(login, lock_timeout_ms=100) as hurried,
            pytest.raises(OperatorError, match="6 rows had left by then, in 2 whole batches") as stop,
        ):
            remove(hurried, plan, found, pace=GROUP_BY_GROUP)
        assert (stop.value.details["removed"], stop.value.details["batches"]) == (6, 2)
        assert "goes on from here" in stop.value.next_step
        assert archived(connection) == whole
        assert keys(found.rows) - ids(connection) == whole, "what left the table is what entered the archive"
        waiting.other.rollback()

        rest = remove(connection, plan, found, pace=GROUP_BY_GROUP)
        assert (rest.removed, rest.gone_meanwhile, rest.kept_meanwhile, rest.rows_left) == (19, 6, 0, 0)
        assert archived(connection) == keys(found.rows)
        assert restore(connection, plan, run_id="run-1").restored == 25
        assert content(connection) == before

    def test_a_session_that_is_killed_leaves_whole_batches_too(
        self, connection: Connection, plan: Plan, found: surplus_rows.Report, waiting: Waiting
    ) -> None:
        hold(waiting, found.groups[2].keep)
        removal = waiting.start(lambda own: remove(own, plan, found, pace=GROUP_BY_GROUP), **PATIENT)
        run(
            connection,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid NOT IN (pg_backend_pid(), %s)",
            waiting.other.info.backend_pid,
        )
        with pytest.raises(OperatorError, match="6 rows had left by then") as stop:
            removal.result(30)
        assert stop.value.details["removed"] == len(archived(connection)) == 6
        assert "already closed" not in stop.value.seen, "what has ended it, not what came of that"
        assert "whether it was committed is unknown" in stop.value.seen
        assert keys(found.rows) - ids(connection) == archived(connection)
        waiting.other.rollback()
        assert remove(connection, plan, found).removed == 19

    def test_what_objects_at_the_commit_takes_its_batch_back_and_only_that(
        self, connection: Connection, plan: Plan, found: surplus_rows.Report
    ) -> None:
        run(
            connection,
            "CREATE FUNCTION aedpics.object() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN RAISE 'this equipment keeps its sessions'; END$$",
        )
        run(
            connection,
            f"CREATE CONSTRAINT TRIGGER object AFTER DELETE ON {TABLE} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
            " WHEN (OLD.equipment_serial = 'AED-0003') EXECUTE FUNCTION aedpics.object()",
        )
        with pytest.raises(OperatorError, match="this equipment keeps its sessions") as stop:
            remove(connection, plan, found, pace=GROUP_BY_GROUP)
        assert stop.value.details["removed"] == len(archived(connection)) == 6
        assert keys(found.rows) - ids(connection) == archived(connection)


def hot_key(connection: Connection, size: int) -> list[str]:
    """So many rows of one equipment, the best one first."""
    run(connection, "INSERT INTO aedpics.user_profiles VALUES (%s, 'a@example.test', 'A')", INSPECTOR)
    run(
        connection,
        f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status, started_at) SELECT gen_random_uuid(),"
        " 'AED-HOT', %s, 'active', timestamptz '2025-11-03 10:00+09' + n * interval '1 min'"
        " FROM generate_series(1, %s) AS n",
        *(INSPECTOR, size),
    )
    return [key for (key,) in run(connection, f"SELECT id::text FROM {TABLE} ORDER BY started_at DESC")]


@pytest.mark.parametrize(
    ("acting", "first"),
    [
        ("SELECT", [0]),
        (f"CREATE TABLE aedpics.parts (session uuid REFERENCES {TABLE})", [0, 99]),
        (
            "CREATE FUNCTION aedpics.pass() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN OLD; END$$;"
            f"CREATE TRIGGER pass BEFORE DELETE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION aedpics.pass()",
            [0, 99],
        ),
    ],
    ids=["nothing", "a foreign key", "a trigger"],
)
def test_the_first_batch_is_small_where_each_row_sets_something_off(
    connection: Connection, plan: Plan, acting: str, first: list[int]
) -> None:
    """A foreign key without an index reads its whole table for each row, while all rows of the batch are locked."""
    hot_key(connection, 400)
    run(connection, acting)
    gone: list[int] = []

    def note(_connection: Connection, place: Place) -> float:
        gone.append(place.done)
        return 0.0

    found = surplus_rows.report(connection, plan)
    assert remove(connection, plan, found, max_rows=399, expected_rows=399, checkpoint=note).removed == 399
    assert gone[:2] == first


class TestAHotKey:
    """A group of twenty rows, which several batches share."""

    @pytest.fixture
    def hot(self, connection: Connection) -> list[str]:
        return hot_key(connection, 20)

    @pytest.mark.parametrize(("size", "batches"), [(3, 7), (1, 20)])
    def test_exactly_the_best_row_stays(
        self, connection: Connection, plan: Plan, hot: list[str], size: int, batches: int
    ) -> None:
        pace = Pace(first=size, smallest=size, largest=size)
        done = remove(connection, plan, surplus_rows.report(connection, plan), pace=pace)
        assert (done.removed, done.batches, done.rows_left) == (19, batches, 0)
        assert ids(connection) == {hot[0]}
        assert run(connection, "SELECT DISTINCT keeper ->> 'id' FROM at_most_one.archived_row") == [(hot[0],)]

    @pytest.mark.versions
    def test_a_keeper_completed_between_two_of_its_batches_leaves_exactly_one_open(
        self, connection: Connection, plan: Plan, hot: list[str], waiting: Waiting
    ) -> None:
        """The first three batches take eight rows (2 to 9); the fourth waits for the eleventh, then looks again."""
        waiting.change("SET deadlock_timeout = '1min'")  # whoever looks for a deadlock is the one that gives up
        waiting.change(f"UPDATE {TABLE} SET notes = 'busy' WHERE id = %s", hot[10])
        found = surplus_rows.report(connection, plan)
        removal = waiting.start(lambda own: remove(own, plan, found, pace=THREES), **PATIENT)
        assert archived(connection) == set(hot[1:9])
        waiting.change(f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s", hot[0])
        waiting.other.commit()
        done = removal.result(30)
        assert ids(connection, "status = 'completed'") == {hot[0]}
        assert ids(connection, "status = 'active'") == {hot[9]}, "the best one of those that were still there"
        assert (done.removed, done.kept_examples, done.rows_left) == (18, [[hot[9]]], 0)


class TestAWriter:
    def test_waits_for_a_batch_and_not_for_the_removal(
        self, login: Login, connection: Connection, plan: Plan, found: surplus_rows.Report, waiting: Waiting
    ) -> None:
        """A batch asks for a row that somebody holds, with the keeper of its group locked: it lets go of the keeper
        again and again. The removal cannot end meanwhile, so that nobody need look at a clock."""
        group = found.groups[4]
        hold(waiting, group.surplus[0])
        removal = waiting.start(lambda own: remove(own, plan, found, pace=GROUP_BY_GROUP), **PATIENT)
        with connect(login, lock_timeout_ms=10_000) as writer:
            for _ in range(5):
                wait_until(waiting.somebody_waits)
                with contextlib.closing(writer.cursor()) as cursor:
                    cursor.execute(f"UPDATE {TABLE} SET notes = 'mine' WHERE id = %s", (group.keep["id"],))
                writer.rollback()
        assert not removal.done()
        assert len(archived(connection)) == 12, "four batches are committed, the fifth holds nobody up"
        waiting.other.rollback()
        assert removal.result(30).removed == 25

    def test_its_rows_are_asked_for_in_slices_of_the_target_time(
        self, login: Login, plan: Plan, found: surplus_rows.Report, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []
        one = Batches._one

        def noted(self: Batches, *given: Any, **more: Any) -> Any:
            asked.append(int(self.parameters["lock_timeout"]))
            return one(self, *given, **more)

        monkeypatch.setattr(Batches, "_one", noted)
        hold(waiting, found.groups[0].surplus[0])
        with (
            connect(login, lock_timeout_ms=1_000) as hurried,
            pytest.raises(OperatorError, match="a lock was not obtained in time"),
        ):
            remove(hurried, plan, found, pace=Pace(target_ms=100))
        assert asked[:4] == [100] * 4
        assert 0 < asked[-1] <= 100


class TestDeferredForeignKey:
    @pytest.fixture
    def photos(self, connection: Connection, example: Any) -> None:
        run(
            connection,
            f"CREATE TABLE aedpics.photos (id int PRIMARY KEY, session_id uuid NOT NULL REFERENCES {TABLE} (id)"
            " DEFERRABLE INITIALLY DEFERRED)",
        )

    @pytest.mark.parametrize("check", [True, False])
    def test_a_reference_is_refused_by_name_before_the_commit_would_say_so(
        self, connection: Connection, plan: Plan, example: Any, photos: None, check: bool
    ) -> None:
        before = content(connection)
        run(connection, "INSERT INTO aedpics.photos VALUES (1, %s)", max(example.surplus))
        found = surplus_rows.report(connection, plan)
        assert [(r.constraint, r.on_delete, r.rows) for r in found.referenced] == [
            ("photos_session_id_fkey", "NO ACTION", 1)
        ]
        with pytest.raises(OperatorError, match=r"1 of aedpics\.photos by photos_session_id_fkey") as stop:
            remove(connection, plan, found, check=check, pace=THREES)
        assert "sqlstate" not in stop.value.details, "seen by us, not said by a commit"
        assert content(connection) == before

    @pytest.mark.versions
    def test_a_reference_that_is_not_committed_yet_cannot_outlive_its_row(
        self, connection: Connection, plan: Plan, example: Any, photos: None, waiting: Waiting
    ) -> None:
        """Such a writer holds no lock on the row until its own commit: that commit is what fails."""
        waiting.change("INSERT INTO aedpics.photos VALUES (1, %s)", max(example.surplus))
        assert remove(connection, plan, surplus_rows.report(connection, plan), pace=THREES).removed == 25
        with pytest.raises(psycopg2.errors.ForeignKeyViolation):
            waiting.other.commit()
        assert run(connection, "SELECT count(*) FROM aedpics.photos") == [(0,)]
        assert restore(connection, plan, run_id="run-1").restored == 25


def test_what_stops_it_after_the_last_batch_says_what_has_left(
    connection: Connection, plan: Plan, found: surplus_rows.Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that stay are asked for afterwards, which a large table may not answer in time."""

    def too_long(*_: Any, **__: Any) -> Any:
        raise OperatorError("It took too long.", expected="an answer.", next_step="again.")

    run(connection, f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s", found.rows[0][0])
    monkeypatch.setattr(surplus_rows, "_unarchived", too_long)
    with pytest.raises(OperatorError, match="24 rows had left by then") as stop:
        remove(connection, plan, found)
    assert stop.value.details["removed"] == len(archived(connection)) == 24
