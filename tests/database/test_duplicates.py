"""Which rows are surplus, and that exactly the reviewed ones leave: against a real server, with real lock waits."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from at_most_one import archive, duplicates
from at_most_one.database import Connection, Login, connect
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, SortKey, parse
from at_most_one.restore import restore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TABLE = "aedpics.inspection_sessions"
INSPECTOR = "00000000-0000-4000-a000-000000000001"


def run(connection: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run and commit; when it fails, roll back."""
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def ids(connection: Connection, condition: str = "true") -> set[str]:
    return {identifier for (identifier,) in run(connection, f"SELECT id::text FROM {TABLE} WHERE {condition}")}


def keys(rows: list[list[str]]) -> set[str]:
    return {identifier for (identifier,) in rows}


def remove(connection: Connection, plan: Plan, found: duplicates.Report, **more: Any) -> duplicates.Removal:
    return duplicates.remove(connection, plan, rows=found.rows, digest=found.digest, run_id="run-1", **more)


class TestReport:
    def test_finds_the_guides_25_surplus_rows_in_10_groups(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        found = duplicates.report(connection, plan)
        assert (found.group_count, found.row_count, found.open_total) == (10, 25, 36)
        assert keys(found.rows) == example.surplus
        assert {g.key["equipment_serial"]: g.keep["id"] for g in found.groups} == {
            serial: kept for serial, kept in example.keep.items() if serial != example.control
        }
        assert not found.truncated

    def test_a_row_that_never_started_is_the_last_to_be_kept(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        group = duplicates.report(connection, plan).groups[0]
        assert group.surplus[-1]["id"] == example.never_started
        assert group.surplus[-1]["started_at"] is None

    def test_equal_starts_are_decided_by_the_primary_key(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(connection, f"UPDATE {TABLE} SET started_at = '2025-11-07 00:00+00' WHERE equipment_serial = 'AED-0003'")
        group = duplicates.report(connection, plan).groups[2]
        listed = [group.keep["id"], *(row["id"] for row in group.surplus)]
        assert listed == sorted(map(str, listed))

    def test_the_limit_cuts_the_groups_and_nothing_else(self, connection: Connection, plan: Plan, example: Any) -> None:
        whole, cut = duplicates.report(connection, plan), duplicates.report(connection, plan, limit=3)
        assert cut.truncated
        assert cut.groups == whole.groups[:3]
        assert (cut.rows, cut.digest, cut.row_count) == (whole.rows, whole.digest, whole.row_count)

    def test_an_empty_table_has_none(self, connection: Connection, plan: Plan) -> None:
        found = duplicates.report(connection, plan)
        assert (found.groups, found.rows, found.open_total, found.truncated) == ([], [], 0, False)

    def test_a_role_that_row_security_blinds_gets_an_error_and_no_zero(
        self, connection: Connection, login: Login, plan: Plan, example: Any
    ) -> None:
        run(connection, f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
        run(connection, "CREATE ROLE reader LOGIN PASSWORD 'reader'")
        run(connection, f"GRANT USAGE ON SCHEMA aedpics TO reader; GRANT SELECT ON {TABLE} TO reader")
        try:
            with (
                connect(replace(login, user="reader", password="reader")) as blind,
                pytest.raises(OperatorError, match="row-level security") as stop,
            ):
                duplicates.report(blind, plan)
            assert stop.value.details["sqlstate"] == "42501"
        finally:
            run(connection, "DROP OWNED BY reader; DROP ROLE reader")

    def test_a_predicate_may_hold_a_percent_sign_and_a_comment(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        odd = replace(plan, predicate="status IN ('active', 'paused') AND notes LIKE '%100\\%%' -- all of them")
        assert duplicates.report(connection, odd).row_count == 25

    @pytest.mark.parametrize(
        ("change", "seen"),
        [
            ({"table": "no_such_table"}, "there is no such table"),
            ({"key": ("equipment",)}, "it has no column equipment"),
            ({"primary_key": ("equipment_serial",)}, "does not identify a row"),
            ({"predicate": "status = 'opened'"}, "invalid input value for enum"),
            ({"predicate": "state = 'active'"}, "does not exist"),
        ],
    )
    def test_a_plan_that_does_not_fit_is_named(
        self, connection: Connection, plan: Plan, change: dict[str, Any], seen: str
    ) -> None:
        with pytest.raises(OperatorError, match=seen):
            duplicates.report(connection, replace(plan, **change))

    def test_a_partitioned_table_is_refused(self, connection: Connection, plan: Plan) -> None:
        run(connection, "CREATE TABLE aedpics.parted (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)")
        parted = replace(plan, table="parted", key=("id",), primary_key=("id", "at"), keep=(), show=())
        with pytest.raises(OperatorError, match="it is partitioned"):
            duplicates.report(connection, parted)


class TestRemoval:
    def test_removes_exactly_the_surplus_and_a_second_time_nothing(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        before = ids(connection)
        found = duplicates.report(connection, plan)
        done = remove(connection, plan, found)
        assert (done.removed, keys(done.removed_examples)) == (25, example.surplus)
        assert (done.archived, done.groups_left, done.rows_left) == (25, 0, 0)
        assert ids(connection) == before - example.surplus
        assert ids(connection) >= example.history
        again = remove(connection, plan, found)
        assert (again.removed, again.statements, again.gone_meanwhile) == (0, [], 25)

    def test_check_mode_predicts_and_writes_nothing(self, connection: Connection, plan: Plan, example: Any) -> None:
        before = ids(connection)
        predicted = remove(connection, plan, duplicates.report(connection, plan), check=True)
        assert keys(predicted.removed_examples) == example.surplus
        assert (predicted.groups_left, predicted.rows_left) == (0, 0)
        assert ids(connection) == before
        assert run(connection, "SELECT to_regnamespace('at_most_one')") == [(None,)]
        assert remove(connection, plan, duplicates.report(connection, plan)).statements == predicted.statements

    def test_nothing_to_remove_creates_nothing(self, connection: Connection, plan: Plan) -> None:
        done = remove(connection, plan, duplicates.report(connection, plan))
        assert (done.removed, done.statements) == (0, [])
        assert run(connection, "SELECT to_regnamespace('at_most_one')") == [(None,)]

    def test_only_reviewed_rows_leave(self, connection: Connection, plan: Plan, example: Any) -> None:
        first = duplicates.report(connection, plan).rows[:4]
        done = duplicates.remove(connection, plan, rows=first, digest=duplicates.digest(first), run_id="run-1")
        assert sorted(done.removed_examples) == first
        assert done.rows_left == 21

    def test_a_keeper_or_history_among_the_rows_stays_and_is_named(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        rows = [[example.keep["AED-0001"]], [next(iter(example.history))]]
        done = duplicates.remove(connection, plan, rows=rows, digest=duplicates.digest(rows), run_id="run-1")
        assert (done.removed, done.kept_meanwhile) == (0, 2)
        assert done.kept_examples == sorted(rows)

    def test_a_digest_that_does_not_match_stops(self, connection: Connection, plan: Plan, example: Any) -> None:
        found = duplicates.report(connection, plan)
        with pytest.raises(OperatorError, match="exactly the rows that were reviewed"):
            duplicates.remove(connection, plan, rows=found.rows[1:], digest=found.digest, run_id="run-1")

    def test_above_the_ceiling_stops(self, connection: Connection, plan: Plan, example: Any) -> None:
        with pytest.raises(OperatorError, match=r"25 rows are to leave .* the ceiling is 24"):
            remove(connection, plan, duplicates.report(connection, plan), max_rows=24)

    @pytest.mark.parametrize(
        ("expected", "seen"),
        [({"expected_rows": 24}, "25 surplus rows found, 24"), ({"expected_groups": 9}, "10 groups found, 9")],
    )
    def test_more_than_expected_stops_before_anything_is_written(
        self, connection: Connection, plan: Plan, example: Any, expected: dict[str, int], seen: str
    ) -> None:
        before = ids(connection)
        with pytest.raises(OperatorError, match=seen):
            remove(connection, plan, duplicates.report(connection, plan), **expected)
        assert ids(connection) == before

    def test_a_referenced_row_stops_even_where_the_database_would_cascade(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        surplus = min(example.surplus)
        run(
            connection,
            "CREATE TABLE aedpics.photos (id int PRIMARY KEY, session_id uuid REFERENCES"
            f" {TABLE} (id) ON DELETE CASCADE)",
        )
        run(connection, "INSERT INTO aedpics.photos VALUES (1, %s), (2, %s)", surplus, example.keep["AED-0001"])
        found = duplicates.report(connection, plan)
        assert [(r.table, r.columns, r.on_delete, r.rows) for r in found.referenced] == [
            ("aedpics.photos", ["session_id"], "CASCADE", 1)
        ]
        for check in (True, False):
            with pytest.raises(OperatorError, match=r"1 of aedpics\.photos by photos_session_id_fkey"):
                remove(connection, plan, found, check=check)
        assert run(connection, "SELECT count(*) FROM aedpics.photos") == [(2,)]
        run(connection, "DELETE FROM aedpics.photos WHERE id = 1")
        assert keys(remove(connection, plan, found).removed_examples) == example.surplus


class Waiting:
    """Another session that holds row locks, and our removal that waits for them in a thread."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.pool = ThreadPoolExecutor(1)
        self.other = psycopg2.connect(
            host=login.host, port=login.port, dbname=login.dbname, user=login.user, password=login.password
        )

    def change(self, statement: str, *values: Any) -> None:
        with self.other.cursor() as cursor:
            cursor.execute(statement, values)

    def start(self, work: Callable[[Connection], Any]) -> Future[Any]:
        def with_connection() -> Any:
            with connect(self.login) as connection:
                return work(connection)

        future = self.pool.submit(with_connection)
        until(lambda: self._somebody_waits() or future.done())
        assert not future.done(), "it should be waiting for the other session's locks"
        return future

    def _somebody_waits(self) -> bool:
        with connect(self.login) as watcher:
            found = run(watcher, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
        return found != [(0,)]

    def close(self) -> None:
        self.other.close()
        self.pool.shutdown()


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestUnderConcurrentWriters:
    @pytest.fixture
    def waiting(self, login: Login) -> Iterator[Waiting]:
        waiting = Waiting(login)
        yield waiting
        waiting.close()

    def test_a_row_completed_while_we_wait_stays_and_is_named(
        self, connection: Connection, plan: Plan, example: Any, waiting: Waiting
    ) -> None:
        found = duplicates.report(connection, plan)
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
        found = duplicates.report(connection, plan)
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

    def test_a_row_changed_but_still_surplus_is_archived_as_it_was_at_last(
        self, connection: Connection, plan: Plan, example: Any, waiting: Waiting
    ) -> None:
        found = duplicates.report(connection, plan)
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
        found = duplicates.report(connection, plan)
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
        found = duplicates.report(connection, plan)
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
            found = duplicates.report(hurried, plan)
            with pytest.raises(OperatorError, match="a lock was not obtained in time") as stop:
                remove(hurried, plan, found)
            assert ids(hurried) >= example.surplus
        (blocker,) = stop.value.details["blockers"]
        assert blocker["pid"] == waiting.other.info.backend_pid
        assert "secret" not in str(stop.value)

    def test_two_removals_at_once_share_the_rows_without_a_deadlock(
        self, login: Login, connection: Connection, plan: Plan, example: Any
    ) -> None:
        found = duplicates.report(connection, plan)
        with connection.cursor() as cursor:
            archive.ensure(cursor)
        connection.commit()
        start = threading.Barrier(2)

        def once() -> duplicates.Removal:
            with connect(login) as own:
                start.wait()
                return remove(own, plan, found)

        with ThreadPoolExecutor(2) as pool:
            one, other = (future.result(20) for future in [pool.submit(once), pool.submit(once)])
        assert sorted(one.removed_examples + other.removed_examples) == found.rows
        assert one.gone_meanwhile + other.gone_meanwhile == 25


# --- against an oracle ----------------------------------------------------------------------------------------------

_EPOCH = datetime(2025, 11, 1, tzinfo=UTC)
_row = st.tuples(
    st.integers(0, 3),  # equipment
    st.sampled_from(["active", "paused", "completed", "cancelled"]),
    st.none() | st.integers(0, 3),  # days since the epoch: few, so that ties are common
)


def expected_surplus(rows: list[tuple[str, str, str, datetime | None]]) -> dict[str, str]:
    """The rule in plain Python: surplus id to the id that stays."""
    surplus = {}
    for serial in {row[1] for row in rows}:
        group = [row for row in rows if row[1] == serial and row[2] in ("active", "paused")]
        group.sort(key=lambda row: (row[3] is None, -(row[3] or _EPOCH).timestamp(), row[0]))
        surplus.update({row[0]: group[0][0] for row in group[1:]})
    return surplus


class TestAgainstAnOracle:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows=st.lists(_row, max_size=16))
    def test_any_table_loses_what_the_rule_says_and_gets_it_back(
        self, connection: Connection, plan: Plan, rows: list[tuple[int, str, int | None]]
    ) -> None:
        run(connection, f"TRUNCATE {TABLE}, aedpics.user_profiles; DROP SCHEMA IF EXISTS at_most_one CASCADE")
        run(connection, "INSERT INTO aedpics.user_profiles VALUES (%s, 'a@example.test', 'A')", INSPECTOR)
        made = [
            (
                f"00000000-0000-4000-8000-{number * 7919 % 997:012d}",
                f"AED-{equipment}",
                status,
                None if day is None else _EPOCH + timedelta(days=day),
            )
            for number, (equipment, status, day) in enumerate(rows)
        ]
        for identifier, serial, status, started in made:
            run(
                connection,
                f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status, started_at)"
                " VALUES (%s, %s, %s, %s, %s)",
                *(identifier, serial, INSPECTOR, status, started),
            )
        content = run(connection, f"SELECT * FROM {TABLE} ORDER BY id")
        surplus = expected_surplus(made)
        found = duplicates.report(connection, plan)
        assert keys(found.rows) == set(surplus)
        done = remove(connection, plan, found, max_rows=100, expected_rows=100)
        assert sorted(done.removed_examples) == found.rows
        assert ids(connection) == {row[0] for row in made} - set(surplus)
        if surplus:  # otherwise there is no archive
            pairs = run(connection, "SELECT primary_key ->> 'id', keeper ->> 'id' FROM at_most_one.archived_row")
            assert dict(pairs) == surplus
        restore(connection, plan, run_id="run-1")
        assert run(connection, f"SELECT * FROM {TABLE} ORDER BY id") == content


class TestOtherShapes:
    """A key of two columns with NULLs, a case-insensitive collation, a primary key of two columns, ascending order."""

    @pytest.fixture
    def seats(self, connection: Connection, plan: Plan) -> Plan:
        run(
            connection,
            "CREATE COLLATION aedpics.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
        run(
            connection,
            'CREATE TABLE aedpics."Seats" (room text, "no" int, holder text COLLATE aedpics.any_case, day date,'
            ' PRIMARY KEY (room, "no"))',
        )
        run(
            connection,
            """INSERT INTO aedpics."Seats" VALUES ('r1', 2, 'Kim', '2025-01-01'), ('r1', 10, 'KIM', '2025-01-01'),"""
            """ ('r2', 1, 'kim', NULL), ('r2', 2, NULL, NULL), ('r2', 3, NULL, NULL), ('r2', 4, 'Lee', NULL)""",
        )
        return replace(
            plan,
            table="Seats",
            primary_key=("room", "no"),
            key=("holder", "day"),
            predicate='"Seats"."no" > 0',
            keep=(SortKey("no", "asc", "last"),),
            show=("holder",),
        )

    def test_nulls_are_distinct_and_the_columns_own_comparison_counts(
        self, connection: Connection, seats: Plan
    ) -> None:
        found = duplicates.report(connection, seats)
        assert found.rows == [["r1", "10"]]
        assert found.groups[0].keep == {"room": "r1", "no": "2", "holder": "Kim"}
        assert remove(connection, seats, found).removed_examples == [["r1", "10"]]

    def test_nulls_are_equal_when_the_index_says_so(self, connection: Connection, seats: Plan) -> None:
        rule = replace(seats.rule_index, nulls_not_distinct=True)
        strict = replace(seats, rule_index=rule)
        found = duplicates.report(connection, strict)
        assert found.rows == [["r1", "10"], ["r2", "3"]]
        assert remove(connection, strict, found).rows_left == 0


class TestModule:
    def test_report_check_remove_again_restore(
        self,
        connection: Connection,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
    ) -> None:
        before = ids(connection)
        base = {"login": login_args, "plan": plan_data}
        found = run_module("duplicate_rows", {**base, "state": "reported"})
        assert (found["changed"], found["group_count"], found["row_count"]) == (False, 10, 25)
        removal = {**base, "state": "removed", "rows": found["rows"], "digest": found["digest"], "run_id": "run-1"}

        predicted = run_module("duplicate_rows", removal, check=True, diff=True)
        assert (predicted["changed"], predicted["removed"]) == (True, 25)
        assert ids(connection) == before
        gone = set(predicted["diff"]["before"].splitlines()) - set(predicted["diff"]["after"].splitlines())
        assert len(gone) == 25
        assert all(any(surplus in line for line in gone) for surplus in example.surplus)

        done = run_module("duplicate_rows", removal, diff=True)
        assert (done["changed"], done["removed"], done["archived"], done["rows_left"]) == (True, 25, 25, 0)
        assert done["diff"] == predicted["diff"]
        assert ids(connection) == before - example.surplus

        again = run_module("duplicate_rows", removal)
        assert (again["changed"], again["removed"], again["gone_meanwhile"]) == (False, 0, 25)

        restoration = {**base, "state": "restored", "run_id": "run-1"}
        assert run_module("duplicate_rows", restoration, check=True)["restored"] == 25
        assert ids(connection) == before - example.surplus
        assert run_module("duplicate_rows", restoration)["restored"] == 25
        assert ids(connection) == before
        assert run_module("duplicate_rows", restoration)["changed"] is False

    def test_by_a_file_report_check_remove(
        self,
        connection: Connection,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "cleanup_plan.json"
        base = {"login": login_args, "plan": plan_data, "path": str(path)}
        found = run_module("duplicate_rows", {**base, "state": "reported", "header": {"run_id": "run-1"}}, check=True)
        document = json.loads(path.read_text())
        assert list(document) == ["run_id", "groups", "group_count", "row_count", "digest", "rows"]
        assert keys(document["rows"]) == example.surplus
        assert {name: found[name] for name in ("groups", "digest", "row_count")}.items() <= document.items()
        assert "rows" not in found, "the controller never holds all rows"

        removal = {**base, "state": "removed", "run_id": "run-1"}
        assert run_module("duplicate_rows", removal, check=True)["removed"] == 25
        document["rows"].pop()
        path.write_text(json.dumps(document))
        assert "exactly the rows that were reviewed" in run_module("duplicate_rows", removal)["msg"]
        path.write_text("{")
        assert "is no clean-up plan" in run_module("duplicate_rows", removal)["msg"]
        assert len(ids(connection)) == 69
        run_module("duplicate_rows", {**base, "state": "reported"})
        done = run_module("duplicate_rows", removal)
        assert (done["removed"], done["rows_left"], done["batches"]) == (25, 0, 1)

    def test_a_stop_says_seen_expected_next(
        self,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
    ) -> None:
        smaller = copy.deepcopy(plan_data)
        smaller["expected"] = {"groups": 9, "rows": 24}
        base = {"login": login_args, "plan": smaller}
        found = run_module("duplicate_rows", {**base, "state": "reported"})
        stop = run_module(
            "duplicate_rows",
            {**base, "state": "removed", "rows": found["rows"], "digest": found["digest"], "run_id": "run-1"},
        )
        assert stop["failed"]
        assert "10 groups found, 9 expected" in stop["msg"]
        assert stop["details"]["found"] == {"groups": 10, "rows": 25}
        assert parse(smaller).expected.rows == 24
